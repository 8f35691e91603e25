"""Bodies of requests: where they end, what is too much, and what may come behind them."""

from __future__ import annotations

import asyncio

from support.dataplane import OK, DataPlane, get, until

from bgproxy.config import schema
from bgproxy.proxy import bodies
from bgproxy.switchboard.layout import OVER_TINY_CHUNKS


async def test_a_body_over_the_limit_is_413() -> None:
    """A body over the limit is refused, by its announced length or as it streams."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with DataPlane(limits=schema.Limits(body_bytes=10)) as plane:
        await plane.serve(await plane.upstream(swallow))
        assert (await plane.ask(get("/", "Content-Length: 11", method="POST") + b"a" * 11)).status == 413
        chunked = get("/", "Transfer-Encoding: chunked", method="POST") + b"b\r\n" + b"a" * 11 + b"\r\n0\r\n\r\n"
        assert (await plane.ask(chunked)).status == 413


async def test_requests_behind_a_body_are_taken_up_in_order() -> None:
    """What follows a body, of either framing and in the same segment, is the next request."""
    seen: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            chunked = b"chunked" in head
            body = await reader.readuntil(b"0\r\n\r\n") if chunked else b""
            if b"Content-Length: 4" in head:
                body = await reader.readexactly(4)
            seen.append(head.split(b" ", 2)[1] + b" " + body)
            writer.write(OK)

    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(note))
        wire = await plane.connect()
        sized = get("/1", "Content-Length: 4", method="PUT") + b"GET "
        chunked = get("/2", "Transfer-Encoding: chunked", method="PUT") + b"4\r\nGET \r\n0\r\n\r\n"
        wire.send(sized + chunked + get("/3"))
        for _ in range(3):
            assert (await wire.response()).status == 200
        assert seen == [b"/1 GET ", b"/2 4\r\nGET \r\n0\r\n\r\n", b"/3 "]


async def test_a_malformed_chunk_is_400_and_the_upstream_loses_its_request() -> None:
    """A body that breaks off its framing in the middle ends both ways: 400, counted, and no end of body upstream."""
    ended = asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert not (await reader.read()).endswith(b"0\r\n\r\n")
        ended.set()

    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(swallow))
        wire = await plane.connect()
        wire.send(get("/", "Transfer-Encoding: chunked", method="POST") + b"2\r\nab\r\n")
        await until(lambda: plane.clients[0].exchange is not None and plane.clients[0].exchange.server is not None)
        wire.send(b"zz\r\n")
        assert (await wire.response()).status == 400
        await asyncio.wait_for(ended.wait(), 5)
        assert plane.context.bad_requests == 1


async def test_what_is_sent_ahead_is_bounded() -> None:
    """A client that sends on and on before its answer comes is not read any more, and all of it is answered later."""
    gate = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await gate.wait()
            writer.write(OK)

    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(wait))
        wire = await plane.connect()
        request = get("/" + "a" * 8000)
        wire.send(request * 20)
        (client,) = plane.clients
        await until(lambda: len(client.buffer) > bodies.AHEAD)
        assert not client.transport.is_reading()
        gate.set()
        for _ in range(20):
            assert (await wire.response()).status == 200
        assert client.transport.is_reading()


async def test_tiny_chunks_wait_and_arrive() -> None:
    """More tiny chunks than allowed in a second pause the reading; the body arrives whole all the same."""

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"0\r\n\r\n")
        writer.write(OK)

    async with DataPlane(limits=schema.Limits(tiny_chunks=10)) as plane:
        await plane.serve(await plane.upstream(count))
        wire = await plane.connect()
        wire.send(get("/", "Transfer-Encoding: chunked", method="POST"))
        wire.send(b"1\r\na\r\n" * 40)
        await until(lambda: plane.context.hits[OVER_TINY_CHUNKS] > 0)
        assert not plane.clients[0].transport.is_reading()
        wire.send(b"0\r\n\r\n")
        assert (await wire.response()).status == 200
