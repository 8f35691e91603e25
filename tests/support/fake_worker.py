"""A worker as the controller sees it: the other end of a real socket pair, which speaks `switchboard.messages`.

It takes snapshots and acknowledges them, keeps what it was told, and has the cells of its area for the test to write. `stop` is
what SIGSTOP does to a process: nothing is read and nothing is answered, until `go`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from bgproxy.model.snapshot import ProxySpec, ServiceSpec
from bgproxy.switchboard import layout, messages
from bgproxy.switchboard.board import Switchboard


class FakeWorker(asyncio.Protocol):
    """One worker. `theirs` is the controller's end, to be handed over."""

    def __init__(self, board: Switchboard, index: int, *, pid: int | None = None) -> None:
        self.board = board
        self.index = index
        self.pid = 1000 + index if pid is None else pid
        self.heard: list[Any] = []
        self.services: dict[str, ServiceSpec] = {}
        self.proxy: ProxySpec | None = None
        self.draining: dict[tuple[str, int], float] = {}
        self.at_flush: Callable[[], None] = lambda: None  # called before a flush is acknowledged
        self.acks = True
        self.warms = True  # its connections are open at once, else never
        self.gone = False
        self.theirs, self._ours = socket.socketpair()
        self._decoder = messages.Decoder()
        self._transport: asyncio.Transport | None = None

    async def start(self, *, hello: bool = True) -> FakeWorker:
        self._ours.setblocking(False)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=self._ours)
        if hello:
            self.hello()
        return self

    async def relink(self) -> FakeWorker:
        """Its controller has gone, and another has come: a new link, and everything it was told is still in force."""
        self.gone = False
        self.theirs, self._ours = socket.socketpair()
        self._decoder = messages.Decoder()
        return await self.start()

    def hello(self) -> None:
        self.say(messages.Hello(self.index, self.pid))

    # --- what a test does with it -----------------------------------------------------------------------------------

    def stop(self) -> None:
        """SIGSTOP."""
        assert self._transport is not None
        self._transport.pause_reading()

    def go(self) -> None:
        """SIGCONT."""
        assert self._transport is not None
        self._transport.resume_reading()

    def die(self) -> None:
        """What kill -9 does: its end of the link closes."""
        self.gone = True
        if self._transport is not None:
            self._transport.abort()

    def say(self, message: messages.ToController) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(messages.encode(message))

    def of(self, kind: type) -> list[Any]:
        """The messages of one kind that came."""
        return [message for message in self.heard if isinstance(message, kind)]

    def set_cell(self, cell: int, value: int) -> None:
        area = self.board.area(self.index)
        area[cell] = value
        area.release()

    def in_flight(self, slot: int, pool: int, kind: int, count: int) -> None:
        self.set_cell(layout.pool_base(slot, pool) + layout.IN_FLIGHT + kind, count)

    def cut(self, slot: int, pool: int, kind: int, count: int) -> None:
        self.set_cell(layout.pool_base(slot, pool) + layout.CUT + kind, count)

    # --- the link ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # a socket's is one

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.gone = True

    def data_received(self, data: bytes) -> None:
        for message in self._decoder.feed(data):
            self.heard.append(message)
            self._take(message)

    def _take(self, message: Any) -> None:
        if isinstance(message, messages.Snapshot):
            if message.whole:
                self.services.clear()
            for name in message.removed:
                self.services.pop(name, None)
            self.services |= {spec.name: spec for spec in message.services}
            self.proxy = message.proxy or self.proxy
        elif isinstance(message, messages.Flush):
            self.at_flush()
        elif isinstance(message, messages.DrainPool):
            self.draining[message.service, message.pool] = message.since
        elif isinstance(message, messages.UndrainPool):
            self.draining.pop((message.service, message.pool), None)
        answered = isinstance(message, messages.Snapshot | messages.Flush) or (
            isinstance(message, messages.Warm) and self.warms
        )
        if self.acks and answered:
            self.say(messages.Ack(message.number))
