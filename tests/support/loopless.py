"""A data plane without sockets, event loop or time: bytes go in, bytes come out, and every order of things can be tried.

Connections are bgproxy's own; their transports are made here, and do what uvloop's do. Upstreams are read by h11, which
refuses what is no request, and by `support.strict`, which refuses what is not the only way to write one.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import h11
from support import strict
from support.dataplane import pool_spec

from bgproxy.config import schema
from bgproxy.http1.names import NameTable
from bgproxy.model.snapshot import ProxySpec, ServiceSpec
from bgproxy.proxy.client import ClientConnection
from bgproxy.proxy.context import Context
from bgproxy.proxy.deadlines import due, is_due
from bgproxy.proxy.heads import Listener
from bgproxy.proxy.upstream import UpstreamConnection
from bgproxy.switchboard.board import Switchboard

PEER = "192.0.2.7"
MOST = 1 << 20  # bytes that h11 may hold of a head
LATE = 1e15  # seconds: every deadline is over by then

#: What an upstream answers: its pieces, and whether it closes the connection behind them.
Answer = tuple[list[bytes], bool]


class Wire:
    """The transport of one connection, and what the other end has sent and got."""

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.got = bytearray()
        self.to_come: deque[bytes] = deque()
        self.eof = False  # comes behind all of that
        self.closing = False
        self.ended = False  # our side has sent its last
        self.reading = True
        self.lost = False
        protocol.connection_made(self)

    def get_extra_info(self, name: str, default: object = None) -> object:
        return (PEER, 5000) if name == "peername" else default

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        assert not self.ended, "something is written behind write_eof"
        if not self.closing:
            self.got += data

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closing = True

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    @property
    def over(self) -> bool:
        """Nothing more will be written."""
        return self.closing or self.ended

    def turn(self) -> bool:
        """The next thing that happens to the connection; False if there is none."""
        if self.lost:
            return False
        if self.closing:
            self.lost = True
            self.protocol.connection_lost(None)
        elif not self.reading:
            return False
        elif self.to_come:
            self.protocol.data_received(self.to_come.popleft())
        elif self.eof:
            self.eof = False
            self.closing = not self.protocol.eof_received() or self.closing
        else:
            return False
        return True


class Origin:
    """The upstream's end of a connection. Raises `AssertionError` for anything but strict requests, one at a time."""

    def __init__(self, plane: Plane, wire: Wire) -> None:
        self.plane = plane
        self.wire = wire
        self.read = 0  # bytes of what the wire got
        self._forget()

    def _forget(self) -> None:
        self.parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST)
        self.raw = b""
        self.body = b""

    def turn(self) -> bool:
        got = self.wire.got
        if len(got) == self.read:
            return False
        assert not self.wire.to_come, "a request is sent before the last one was answered"
        data = bytes(got[self.read :])
        self.read = len(got)
        self.raw += data
        self.parser.receive_data(data)
        while True:
            try:
                event = self.parser.next_event()
            except h11.RemoteProtocolError as error:
                raise AssertionError(f"{error}: {self.raw[-200:]!r}") from error
            if isinstance(event, h11.Request):
                self.head = event
            elif isinstance(event, h11.Data):
                self.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                assert event is h11.NEED_DATA, event
                return True
        assert not self.parser.trailing_data[0], "bytes behind a request"
        request = strict.read_request(self.raw)
        assert request.end == len(self.raw)
        assert request.start == (self.head.method, self.head.target)
        assert request.fields == self.head.headers.raw_items()
        assert request.body == self.body
        assert request.trailers == event.headers.raw_items()
        self._forget()
        plane = self.plane
        plane.requests.append(request)
        plane.carried.append(self.wire)
        pieces, self.wire.eof = plane.answer(request, len(plane.requests) - 1)
        self.wire.to_come.extend(pieces)
        return True


class _Task:
    """Stands for a task that connects."""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        # `dial(exchange, upstream)`: what it would do on a loop is done by `Plane`.
        told = coroutine.cr_frame.f_locals  # type: ignore[attr-defined]
        self.exchange, self.upstream = told["exchange"], told["upstream"]
        coroutine.close()
        self.then: Callable[[object], None] = lambda _: None

    def add_done_callback(self, callback: Callable[[object], None]) -> None:
        self.then = callback


class Plane:
    """One worker's context before one upstream. Made once: `begin` and `finish` go around each run."""

    def __init__(self) -> None:
        self.under_way = False  # between `begin` and a `finish` that found nothing wrong
        self._board = Switchboard(1)
        self._board.settle(0, 0)
        self.context = Context(self, self._board, 0, 1)  # type: ignore[arg-type] # it creates tasks, and no more
        self.context.id_base = "0" * 8
        self.context.set_proxy(ProxySpec(schema.Limits(), schema.Timeouts(), (), "off", bytes(32)))
        spec = ServiceSpec(
            name="shop",
            slot=0,
            hosts=(),
            path="/",
            pools=(pool_spec("blue", 9001, 0), pool_spec("green", (), 100)),
            balance="least_requests",
            retries=schema.Retries(),
            sessions=schema.Sessions(),
            preview=schema.Preview(),
            drain=schema.Drain(),
            expose_pool=False,
        )
        self.context.set_services((spec,), (), whole=True)
        self.listener = Listener(8080, unix=False)

    def create_task(self, coroutine: Coroutine[Any, Any, None], *, name: str) -> _Task:
        """What a worker asks of its loop."""
        task = _Task(coroutine)
        self._dials.append(task)
        return task

    def begin(self, answer: Callable[[strict.Message, int], Answer], order: int) -> None:
        """Begin a run; `order` seeds the order in which things happen."""
        self.under_way = True
        context = self.context
        context.accepted = 0  # the same ids in every run
        context.request_names, context.response_names = NameTable(), NameTable()
        context.recent.clear()
        self.answer = answer
        self.requests: list[strict.Message] = []
        self.carried: list[Wire] = []  # on which connection each of them came
        self._chance = random.Random(order)
        self._dials: list[_Task] = []
        self._wires: list[Wire] = []
        self._origins: list[Origin] = []

    def client(self) -> Wire:
        """A client connects."""
        wire = Wire(ClientConnection(self.context, self.listener))
        self._wires.append(wire)
        return wire

    def settle(self) -> None:
        """Let happen what can."""
        for _ in range(100_000):
            steps = [*(wire.turn for wire in self._wires), *(origin.turn for origin in self._origins)]
            if self._dials:
                steps.append(self._connect)
            self._chance.shuffle(steps)
            if not sum(step() for step in steps):  # each of them, hence not any()
                return
        raise AssertionError("it does not come to rest")

    def _connect(self) -> bool:
        task = self._dials.pop(0)
        server = UpstreamConnection(self.context, task.upstream)
        wire = Wire(server)
        self._wires.append(wire)
        self._origins.append(Origin(self, wire))
        task.exchange.connected(task.upstream, server)
        task.then(task)
        return True

    def finish(self) -> None:
        """End a run by letting time pass: all connections end by their deadlines, and nothing is left counted."""
        context = self.context
        for round_ in range(6):
            now = LATE * (1 + round_)
            for client in [client for client in context.clients if is_due(client, now)]:
                due(client, now)
            for server in [server for server in context.servers if 0.0 < server.deadline <= now]:
                server.due()
            self.settle()
            if not context.clients and not context.servers:
                break
        assert not context.clients, f"no deadline ends {context.clients}"
        assert not context.servers, f"no deadline ends {context.servers}"
        assert not context.tasks
        pool = context.services["shop"].pools[0]
        upstream = pool.upstreams[0]
        assert (pool.in_flight, pool.unsafe) == ([0, 0, 0], 0)
        assert (upstream.in_flight, upstream.connections, upstream.idle) == (0, 0, [])
        self.under_way = False
