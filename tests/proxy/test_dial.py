"""Connections to upstreams: made, refused, too late, given up."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from support.dataplane import OK, DataPlane

from bgproxy.config import schema
from bgproxy.proxy.dial import dial, warm


class Told:
    """Stands in for the exchange that waits: what it is told."""

    def __init__(self, plane: DataPlane) -> None:
        self.context = plane.context
        self.answers: list[Any] = []
        self.client = SimpleNamespace(transport=None)

    def connected(self, upstream: object, server: Any) -> None:
        server.release()
        self.answers.append("connected")

    def unreachable(self, upstream: object, reason: str, *, timed_out: bool, error: str = "connection_refused") -> None:
        self.answers.append((reason, timed_out))


def full(sock: socket.socket) -> int:
    """Listen with a backlog that is full: a connection to the port gets no answer."""
    sock.bind(("127.0.0.1", 0))
    sock.listen(0)
    return sock.getsockname()[1]


def fill(sock: socket.socket) -> list[socket.socket]:
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(sock.getsockname())
        fillers.append(filler)
    return fillers


async def test_a_connection_is_handed_over() -> None:
    """The exchange gets the connection."""
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(OK))
        told = Told(plane)
        await dial(told, plane.blue.upstreams[0])
        assert told.answers == ["connected"]
        assert len(plane.blue.upstreams[0].idle) == 1


async def test_a_refusal_is_told_in_words() -> None:
    """Where nobody listens, the reason is the system's; it was no time-out."""
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        async with DataPlane() as plane:
            await plane.serve(sock.getsockname()[1])
            told = Told(plane)
            await dial(told, plane.blue.upstreams[0])
            ((reason, timed_out),) = told.answers
            assert ("refused" in reason, timed_out) == (True, False)


async def test_silence_ends_at_the_deadline() -> None:
    """No answer within `timeouts.connect`: told so, and as a time-out."""
    with closing(socket.socket()) as sock:
        port, fillers = full(sock), fill(sock)
        async with DataPlane(timeouts=schema.Timeouts(connect=0.05)) as plane:
            await plane.serve(port)
            told = Told(plane)
            await dial(told, plane.blue.upstreams[0])
            assert told.answers == [("no connection within 0.05s", True)]
        for filler in fillers:
            filler.close()


async def test_it_can_be_cancelled() -> None:
    """A worker that stops does not wait for an upstream that does not answer; nobody is told anything."""
    with closing(socket.socket()) as sock:
        port, fillers = full(sock), fill(sock)
        async with DataPlane() as plane:
            await plane.serve(port)
            told = Told(plane)
            task = asyncio.create_task(dial(told, plane.blue.upstreams[0]), name="dial")
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert told.answers == []
        for filler in fillers:
            filler.close()


async def test_warming_opens_what_is_missing_and_lets_failures_be() -> None:
    """Connections ahead are a courtesy: no more than asked for, and no error leaves it."""
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        async with DataPlane() as plane:
            await plane.serve([await plane.upstream(OK), sock.getsockname()[1]])
            reachable, dead = plane.blue.upstreams
            for number in (1, 3, 2):
                await warm(plane.context, reachable, number)
            await warm(plane.context, dead, 2)
            assert (len(reachable.idle), len(dead.idle)) == (3, 0)
