"""Who keeps us waiting for how long: clients by hand, and a clock by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from support.builds import interpreted_only
from support.dataplane import OK, DataPlane, until

from bgproxy.config import schema
from bgproxy.proxy.client_state import BUSY, IDLE
from bgproxy.proxy.exchange import BEGUN, NOTHING
from bgproxy.proxy.slow import SlowClients
from bgproxy.switchboard.layout import SLOW_BODY, SLOW_READER

RATE = 100
PATIENCE = 10.0


class Client(SimpleNamespace):
    """As much of a client as is looked at."""

    __hash__ = object.__hash__


def client(**said: Any) -> Any:
    exchange = SimpleNamespace(request_done=False, progress=NOTHING, body_in=0, bytes_out=0)
    transport = SimpleNamespace(waiting=0)
    transport.get_write_buffer_size = lambda: transport.waiting
    fields = SimpleNamespace(expect=False)
    usual = {"state": BUSY, "write_paused": False, "paused": 0}
    ending = said.pop("ending", False)
    parts = {"exchange": exchange, "transport": transport, "fields": fields, "is_ending": lambda: ending}
    return Client(**(usual | parts | said))


@pytest.fixture
def slow() -> SlowClients:
    made = SlowClients()
    made.set_rule(RATE, PATIENCE)
    return made


def looks(slow: SlowClients, one: Any, seconds: int, *, body: int = 0, answer: int = 0) -> tuple[int, int] | None:
    """A look a second while so many bytes move each second: when it was too slow first, and for what."""
    for second in range(seconds):
        for _, why in slow.look({one}, float(second)):
            return second, why
        if one.exchange is not None:
            one.exchange.body_in += body
            one.exchange.bytes_out += answer
    return None


@interpreted_only
def test_a_body_without_a_byte_is_too_slow_once_patience_ends(slow):
    """Not sooner, and not much later."""
    found = looks(slow, client(), 20)
    assert found is not None
    assert PATIENCE <= found[0] <= PATIENCE + 2
    assert found[1] == SLOW_BODY


@interpreted_only
def test_a_body_below_the_rate_is_too_slow_and_one_above_it_is_not(slow):
    """However steadily it comes."""
    assert looks(slow, client(), 40, body=RATE // 2) is not None
    assert looks(slow, client(), 40, body=RATE) is None


@interpreted_only
def test_bursts_count_as_what_they_bring(slow):
    """Who brings all of it at the end of each stretch is fast enough."""
    one = client()
    for stretch in range(4):
        for second in range(8):
            assert slow.look({one}, stretch * 8.0 + second) == []
        one.exchange.body_in += int(RATE * PATIENCE)


@pytest.mark.parametrize(
    "said",
    [
        {"paused": 1},
        {"state": IDLE, "exchange": None},
        {"exchange": SimpleNamespace(request_done=True, progress=NOTHING, body_in=0, bytes_out=0)},
        {"exchange": SimpleNamespace(request_done=False, progress=BEGUN, body_in=0, bytes_out=0)},
        {"fields": SimpleNamespace(expect=True)},
    ],
    ids=["not read from", "idle", "all sent", "answered already", "waits for 100"],
)
@interpreted_only
def test_who_does_not_keep_us_waiting_is_never_slow(slow, said):
    """Neither who we do not read from, nor who has nothing to send, nor who waits for us."""
    assert looks(slow, client(**said), 60) is None


@pytest.mark.parametrize("said", [{"write_paused": True}, {"ending": True, "exchange": None}], ids=["answer", "rest"])
@interpreted_only
def test_an_answer_that_is_not_read_is_too_slow(slow, said):
    """While its upstream waits for it, and while its connection cannot end for it."""
    one = client(**said)
    one.transport.waiting = 70_000
    found = looks(slow, one, 20)
    assert found is not None
    assert found[1] == SLOW_READER


@interpreted_only
def test_an_answer_that_is_read_is_not(slow):
    """What is sent on and waits no longer has been read."""
    one = client(write_paused=True)
    one.transport.waiting = 70_000
    assert looks(slow, one, 40, answer=RATE) is None


@interpreted_only
def test_another_request_begins_anew(slow):
    """A client is not held to what it did before."""
    one = client()
    assert looks(slow, one, 9) is None
    one.exchange = SimpleNamespace(request_done=False, progress=NOTHING, body_in=0, bytes_out=0)
    assert slow.look({one}, 11.0) == []


@interpreted_only
def test_without_a_rate_nobody_is_looked_at(slow):
    """And it forgets who waited."""
    one = client()
    looks(slow, one, 9)
    slow.set_rule(0, PATIENCE)
    assert slow.look({one}, 100.0) == []
    assert slow.marks == {}


async def test_a_real_client_is_ended_with_408() -> None:
    """Through a worker's sweep: the answer, the counter, and the connection."""
    async with DataPlane(
        limits=schema.Limits(min_rate=1000), timeouts=schema.Timeouts(slow=0.3, stream_idle=60.0)
    ) as plane:
        await plane.serve(await plane.upstream(OK))
        gate = plane.upstreams[0]

        async def silent(reader: Any, writer: Any) -> None:
            await reader.read()

        gate.script = silent
        wire = await plane.connect()
        wire.send(b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 10\r\n\r\nx")
        answer = await wire.response()
        assert answer.status == 408
        assert b"too slowly" in answer.body
        assert plane.context.hits[SLOW_BODY] == 1
        wire.close()
        await until(lambda: not plane.context.clients)
