"""Time-outs of clients: each ends what was waited for, and is counted by its reason."""

from __future__ import annotations

import asyncio

from support.dataplane import OK, DataPlane, get

from bgproxy.config import schema
from bgproxy.proxy.deadlines import time_left


async def test_a_slow_head_is_408() -> None:
    """A head that does not come within its time-out is answered with 408, whatever trickles in."""
    async with DataPlane(timeouts=schema.Timeouts(header=0.1)) as plane:
        await plane.serve(await plane.upstream(OK))
        wire = await plane.connect()
        wire.send(b"GET / HTTP/1.1\r\nHost:")
        assert (await wire.response()).status == 408
        wire.close()


async def test_an_idle_connection_is_closed_silently() -> None:
    """Between two requests a connection is kept for `client_idle` and then closed without a word."""
    async with DataPlane(timeouts=schema.Timeouts(client_idle=0.1)) as plane:
        await plane.serve(await plane.upstream(OK))
        wire = await plane.connect()
        wire.send(get())
        assert (await wire.response()).status == 200
        assert await wire.ended() == b""


async def test_a_slow_body_is_408() -> None:
    """A request body that stalls is answered with 408."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with DataPlane(timeouts=schema.Timeouts(stream_idle=0.1)) as plane:
        await plane.serve(await plane.upstream(swallow))
        answer = await plane.ask(get("/", "Content-Length: 5", method="POST") + b"ab")
        assert answer.status == 408


async def test_the_share_of_time_left_is_of_what_is_waited_for() -> None:
    """A newcomer has `header` for its first head; after an answer the share is of `client_idle`."""
    async with DataPlane(timeouts=schema.Timeouts(header=10, client_idle=100)) as plane:
        await plane.serve(await plane.upstream(OK))
        wire = await plane.connect()
        (client,) = plane.clients
        assert time_left(client, client.deadline - 5) == 0.5
        wire.send(get())
        assert (await wire.response()).status == 200
        assert time_left(client, client.deadline - 5) == 0.05
