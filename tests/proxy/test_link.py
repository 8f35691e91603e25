"""A worker's end of the link: what it does when it is told, and what it tells."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.dataplane import KEY, OK, DataPlane, get, until

from bgproxy.config import schema
from bgproxy.model.snapshot import MirrorSpec, ProxySpec
from bgproxy.proxy import link
from bgproxy.proxy.dial import warm
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


async def test_idle_connections_are_closed_a_few_at_a_time(
    plane: DataPlane, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody's request waits for all of them; it goes on when the drain is over, and ends when the pool is live again."""
    monkeypatch.setattr(link, "_CLOSING_PAUSE", 0.05)
    await plane.serve(await plane.upstream(OK), await plane.upstream(OK))
    upstream = plane.blue.upstreams[0]
    await warm(plane.context, upstream, 28)
    plane.board.commit({0: 1})
    controller.say(messages.DrainPool("shop", 0, 12.5))
    await until(lambda: len(upstream.idle) == 20)
    controller.say(messages.UndrainPool("shop", 0))
    await until(lambda: len(upstream.idle) == 12)
    plane.board.commit({0: 0})
    await until(lambda: not plane.context.tasks)
    assert len(upstream.idle) == 12
    await until(lambda: len(plane.context.servers) == 12)
    plane.board.commit({0: 1})
    controller.say(messages.DrainPool("shop", 0, 13.5))
    await until(lambda: not plane.context.servers)


async def test_warm_opens_as_many_connections_as_the_live_pool_needed(plane: DataPlane, controller: Controller) -> None:
    """Shared among the usable upstreams, answered when they are there; a dead upstream does no harm, nor an unknown pool."""
    green, dead = await plane.upstream(OK), await plane.upstream(OK)
    await dead.stop()
    await plane.serve(await plane.upstream(OK), [green, dead])
    await warm(plane.context, plane.blue.upstreams[0], 13)
    controller.say(messages.Warm(5, (("shop", 1), ("gone", 1))))
    assert (await controller.hear(messages.Ack)).number == 5
    assert [len(upstream.idle) for upstream in plane.green.upstreams] == [7, 0]
    controller.say(messages.Warm(6, (("shop", 1),)))
    assert (await controller.hear(messages.Ack)).number == 6
    assert green.connections == 7


async def test_what_was_not_used_lately_is_not_needed(plane: DataPlane, controller: Controller) -> None:
    """After a rush, connections stay idle for long; a switch does not wait for as many anew. One there always is."""
    green = await plane.upstream(OK)
    await plane.serve(await plane.upstream(OK), green)
    await warm(plane.context, plane.blue.upstreams[0], 13)
    for connection in plane.blue.upstreams[0].idle:
        connection.deadline -= 1.5
    controller.say(messages.Warm(5, (("shop", 1),)))
    assert (await controller.hear(messages.Ack)).number == 5
    await until(lambda: len(plane.green.upstreams[0].idle) == 1)
    await until(lambda: not plane.context.tasks)
    assert green.connections == 1


async def test_warm_leaves_a_draining_pool_alone(plane: DataPlane, controller: Controller) -> None:
    """What is opened to it would be closed at once."""
    green = await plane.upstream(OK)
    await plane.serve((), green)
    controller.say(messages.DrainPool("shop", 1, 1.0))
    controller.say(messages.Warm(5, (("shop", 1),)))
    assert (await controller.hear(messages.Ack)).number == 5
    assert green.connections == 0


async def test_failures_are_told_together(plane: DataPlane, controller: Controller) -> None:
    """Failures between two sweeps go out as one message with their number."""
    await plane.serve(await plane.upstream(OK))
    upstream = plane.blue.upstreams[0]
    for number in range(4):
        plane.context.report(upstream, f"reason {number}")
    plane.link.flush()
    told = await controller.hear(messages.UpstreamFailed)
    assert (told.count, told.reason, told.upstream) == (4, "reason 3", upstream.id)


async def test_credits_and_recent_targets(plane: DataPlane, controller: Controller) -> None:
    """A credit is for the service and the deployment that it names; what was seen is told, of an unknown service nothing."""
    mirror = MirrorSpec(number=7, pool=0, share=100.0, methods=("GET",), body_bytes=100)
    plane.context.tell = plane.link.say
    spec = await plane.serve(await plane.upstream(OK))
    plane.change(spec, mirror=mirror, note_recent=True)
    for service, number in (("shop", 6), ("other", 7), ("shop", 7)):
        controller.say(messages.MirrorCredit(service, number, 1))
    controller.say(messages.AskRecent(3, "other", 5))
    assert await controller.hear(messages.Recent) == messages.Recent(3, "other", ())
    assert (await plane.ask(get("/cart"))).body == b"ok"
    mirrored = await controller.hear(messages.Mirrored)
    assert (mirrored.service, mirrored.number, mirrored.target, mirrored.answer) == ("shop", 7, b"/cart", b"ok")
    controller.say(messages.AskRecent(4, "shop", 5))
    assert await controller.hear(messages.Recent) == messages.Recent(4, "shop", (("/cart", 1),))


async def test_credits_end_with_the_controller_that_gave_them(plane: DataPlane, controller: Controller) -> None:
    """The next one gives its own, even if it goes on with the same deployment."""
    mirror = MirrorSpec(number=7, pool=0, share=100.0, methods=("GET",), body_bytes=100)
    plane.change(await plane.serve(await plane.upstream(OK)), mirror=mirror)
    tap = plane.context.services["shop"].tap
    controller.say(messages.MirrorCredit("shop", 7, 5))
    await until(lambda: tap.mirror.credits == 5)
    ours, theirs = socket.socketpair()
    await Link.open(plane.context, asyncio.Event(), theirs)
    assert tap.mirror.credits == 0
    ours.close()
