"""What must hold for any bytes that an upstream sends to a deployment's own client (`Wire`), without sockets: h11 is the judge."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import Any, cast

from support.judging import Read, cut, read_answer_by_h11

from bgproxy.control.deployments.wire import MAX_HEAD, Reply, Unanswered, Way, Wire
from bgproxy.http1.chunked import MAX_TRAILERS
from bgproxy.http1.names import NameTable

WAY = Way("a:1", ("127.0.0.1", 1), "a")
NAMES = NameTable()
#: What a wire may hold of an answer beside the body that is kept: a head, or a trailer section, and the piece that came last.
HELD = MAX_HEAD + MAX_TRAILERS


class Transport:
    """Takes what is written; knows whether it was ended."""

    def __init__(self) -> None:
        self.ended = False

    def write(self, data: bytes) -> None:
        pass

    def abort(self) -> None:
        self.ended = True


@lru_cache
def loop() -> asyncio.AbstractEventLoop:
    """One for all runs."""
    return asyncio.new_event_loop()


def told(data: bytes, cuts: list[int], method: bytes, *, keep: int = 1 << 20, whole: bool = True) -> tuple[Any, ...]:
    """What a wire makes of these bytes, in these pieces, with the end of the connection behind them.

    Of an answer: status, fields, body, whether it is cut, and whether the connection could carry another question. Else the kind of
    failure. There is always one of them.
    """
    wire = Wire(WAY, NAMES)
    transport = Transport()
    wire.connection_made(cast("asyncio.BaseTransport", transport))
    wire.reusable = True
    asking = wire.ask(b"?", head_only=method == b"HEAD", keep=keep, whole=whole)
    asyncio._set_running_loop(loop())  # the coroutine is stepped by hand: what it waits for, it is given here
    try:
        asking.send(None)
        for piece in cut(data, cuts):
            if transport.ended:
                break
            wire.data_received(piece)
            held = len(wire._held) + len(wire._body) + (len(wire._chunks._held) if wire._chunks is not None else 0)
            assert held <= HELD + len(piece) + keep, "more is held than there is any use for"
        again = wire.reusable
        if not transport.ended:
            wire.eof_received()
        wire.connection_lost(None)
        asking.send(None)
    except StopIteration as end:
        reply: Reply = end.value
        return reply.status, reply.fields, reply.body, reply.cut, again
    except Unanswered as error:
        kind, reason = error.kind, str(error)
    finally:
        asyncio._set_running_loop(None)
    assert kind in ("reset", "rubbish"), kind
    assert reason
    assert not again, "a connection with half an answer on it is kept"
    return (kind,)


def check_wire(data: bytes, cuts: list[int], method: bytes = b"GET") -> tuple[Any, ...]:
    """An answer that is taken is the one that h11 reads; nothing depends on the pieces, or on how much of it is kept."""
    whole = told(data, [], method)
    assert told(data, cuts, method) == whole, "it matters how it arrives"
    _, read = read_answer_by_h11(data, method)
    if len(whole) == 1:
        return whole
    status, fields, body, was_cut, _ = whole
    assert read is not None, "taken, and h11 reads no answer in it"
    assert read.trailers is not None, "complete, and h11 says that it was cut short"
    assert (b"%d" % status,) == read.start
    assert _known(fields) == _fields(read)
    assert body == read.body
    assert not was_cut
    less = told(data, cuts, method, keep=3)
    assert less[:4] == (status, fields, body[:3], len(body) > 3)
    assert told(data, cuts, method, keep=3, whole=False)[:4] == less[:4]
    return whole


def _known(fields: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """As h11 tells them: it spells a coding its own way."""
    return [(name, value.lower() if name.lower() == "transfer-encoding" else value) for name, value in fields]


def _fields(read: Read) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in read.fields]
