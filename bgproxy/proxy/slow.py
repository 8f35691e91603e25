"""Clients that are slow on purpose, or might as well be: a least rate for bodies that come and for answers that are read.

A body that brings a byte now and then holds an upstream's worker for as long as it likes, and so does an answer that is
read a byte at a time; no time-out between two bytes catches either. So who has kept us waiting for all of `timeouts.slow`
must have moved `limits.min_rate` bytes a second in it. A request's body counts until its answer begins, and while we take
it; the reading of an answer counts while so much of it waits here (64 KiB by uvloop's reckoning) that the upstream is not read, or
while a connection that is to end has something left to send. So neither an event stream that is silent nor a body
that an upstream does not take is held against the client.

All of it is looked at once in a while, not at each byte: a look costs what it takes to go through the connections once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bgproxy.proxy.client_state import BUSY
from bgproxy.proxy.exchange import BEGUN
from bgproxy.switchboard.layout import SLOW_BODY, SLOW_READER

if TYPE_CHECKING:
    from bgproxy.proxy.client import ClientConnection
    from bgproxy.proxy.exchange import Exchange

#: Looks within `timeouts.slow`, and the seconds between two looks at the least and at the most.
_LOOKS: Final = 8
_SOONEST: Final = 0.1
_LATEST: Final = 2.0

#: What a client does not keep us waiting for.
_NOTHING: Final = -1


class Mark:
    """Where a client stood when it was first, or last sufficiently ahead, seen to keep us waiting."""

    def __init__(self, what: int, exchange: Exchange | None, moved: int, since: float) -> None:
        self.what = what  # SLOW_BODY or SLOW_READER
        self.exchange = exchange
        self.moved = moved  # bytes
        self.since = since  # CLOCK_MONOTONIC


class SlowClients:
    """Who keeps us waiting, and since when. `rate` in bytes a second, 0 for none; `patience` in seconds."""

    def __init__(self) -> None:
        self.rate = 0
        self.patience = 0.0
        self.next_look = 0.0
        self.marks: dict[ClientConnection, Mark] = {}

    def set_rule(self, rate: int, patience: float) -> None:
        """Take another rule; who waits already is measured by it from where it stood."""
        self.rate = rate
        self.patience = patience
        self.next_look = 0.0
        if not rate:
            self.marks = {}

    def look(self, clients: set[ClientConnection], now: float) -> list[tuple[ClientConnection, int]]:
        """Who has been too slow for too long by now, with SLOW_BODY or SLOW_READER; none where it is not time to look."""
        late: list[tuple[ClientConnection, int]] = []
        if not self.rate or now < self.next_look:
            return late
        self.next_look = now + min(max(self.patience / _LOOKS, _SOONEST), _LATEST)
        before = self.marks
        marks: dict[ClientConnection, Mark] = {}
        enough = int(self.rate * self.patience)
        for client in clients:
            what = waited_for(client)
            if what == _NOTHING:
                continue
            moved = moved_of(client, what)
            mark = before.get(client)
            if mark is None or mark.what != what or mark.exchange is not client.exchange:
                mark = Mark(what, client.exchange, moved, now)
            elif moved - mark.moved >= enough:
                mark.moved = moved
                mark.since = now
            elif now - mark.since >= self.patience:
                late.append((client, what))
                continue
            marks[client] = mark
        self.marks = marks
        return late


def waited_for(client: ClientConnection) -> int:
    """What this client keeps us waiting for: SLOW_BODY, SLOW_READER, or -1 for nothing."""
    exchange = client.exchange
    if client.write_paused or (exchange is None and client.is_ending()):
        return SLOW_READER if client.transport is not None and client.transport.get_write_buffer_size() else _NOTHING
    if exchange is None or client.state != BUSY or exchange.request_done or client.paused:
        return _NOTHING
    if exchange.progress == BEGUN or (client.fields.expect and not exchange.body_in):
        return _NOTHING
    return SLOW_BODY


def moved_of(client: ClientConnection, what: int) -> int:
    """How many bytes of it have come, or have gone: only differences mean anything."""
    exchange = client.exchange
    if what == SLOW_BODY:
        return exchange.body_in if exchange is not None else 0
    waiting: int = client.transport.get_write_buffer_size()
    return (exchange.bytes_out if exchange is not None else 0) - waiting
