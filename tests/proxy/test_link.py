"""A worker's end of the link: what it does when it is told, and what it tells."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.dataplane import KEY, OK, DataPlane, get, until

from bgproxy.config import schema
from bgproxy.model.snapshot import ProxySpec
from bgproxy.proxy.link import Link
from bgproxy.switchboard import messages


class Controller:
    """The other end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.decoder = messages.Decoder()
        self.got: list[Any] = []

    def say(self, message: Any) -> None:
        self.writer.write(messages.encode(message))

    async def hear(self, kind: type) -> Any:
        async with asyncio.timeout(5):
            while True:
                for message in list(self.got):
                    self.got.remove(message)
                    if isinstance(message, kind):
                        return message
                self.got += self.decoder.feed(await self.reader.read(65536))


@pytest.fixture
async def plane() -> AsyncIterator[DataPlane]:
    async with DataPlane() as plane:
        yield plane


@pytest.fixture
async def controller(plane: DataPlane) -> AsyncIterator[Controller]:
    ours, theirs = socket.socketpair()
    routed = asyncio.Event()
    plane.link = await Link.open(plane.context, routed, theirs)
    plane.context.failed = plane.link.failed
    reader, writer = await asyncio.open_connection(sock=ours)
    yield Controller(reader, writer)
    writer.close()
    await writer.wait_closed()


async def test_it_says_who_it_is(controller: Controller) -> None:
    """The first word over a link is Hello."""
    assert (await controller.hear(messages.Hello)).worker == 0


async def test_a_snapshot_is_in_force_when_it_is_acknowledged(plane: DataPlane, controller: Controller) -> None:
    """After the Ack the next request is routed by the new snapshot."""
    spec = await plane.serve(await plane.upstream(OK))
    plane.context.set_services((), (), whole=True)
    proxy = ProxySpec(schema.Limits(connections=3), schema.Timeouts(), ("10.0.0.0/8",), "off", KEY)
    controller.say(messages.Snapshot(5, whole=True, services=(spec,), proxy=proxy))
    assert (await controller.hear(messages.Ack)).number == 5
    assert plane.context.max_connections == 3
    assert (await plane.ask(get())).status == 200


async def test_drain_closes_idle_connections_and_sets_the_clock(plane: DataPlane, controller: Controller) -> None:
    """DrainPool closes what is idle and says since when; UndrainPool takes that back; unknown services do no harm."""
    await plane.serve(await plane.upstream(OK))
    await plane.ask(get())
    controller.say(messages.DrainPool("shop", 0, 12.5))
    await until(lambda: plane.blue.draining_since == 12.5)
    await until(lambda: not plane.context.servers)
    controller.say(messages.UndrainPool("shop", 0))
    await until(lambda: plane.blue.draining_since == -1.0)
    controller.say(messages.DrainPool("gone", 0, 1.0))
    controller.say(messages.Flush(9))
    assert (await controller.hear(messages.Ack)).number == 9


async def test_warm_opens_connections_ahead(plane: DataPlane, controller: Controller) -> None:
    """Warm opens idle connections, up to the number, to each usable upstream; a dead one does no harm."""
    green = await plane.upstream(OK)
    await plane.serve((), [green])
    controller.say(messages.Warm("shop", 1, 3))
    await until(lambda: len(plane.green.upstreams[0].idle) == 3)
    controller.say(messages.Warm("shop", 1, 3))
    controller.say(messages.Flush(1))
    await controller.hear(messages.Ack)
    assert green.connections == 3


async def test_failures_are_told_together(plane: DataPlane, controller: Controller) -> None:
    """Failures between two sweeps go out as one message with their number."""
    await plane.serve(await plane.upstream(OK))
    upstream = plane.blue.upstreams[0]
    for number in range(4):
        plane.context.report(upstream, f"reason {number}")
    plane.link.flush()
    told = await controller.hear(messages.UpstreamFailed)
    assert (told.count, told.reason, told.upstream) == (4, "reason 3", upstream.id)
