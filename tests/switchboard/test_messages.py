"""Messages over a link: whole, in order, however the bytes were split."""

from __future__ import annotations

import pytest

from bgproxy.config import schema
from bgproxy.model.snapshot import PoolSpec, ProxySpec, ServiceSpec, UpstreamSpec
from bgproxy.switchboard.messages import (
    Ack,
    Decoder,
    DrainPool,
    Flush,
    Hello,
    Snapshot,
    UndrainPool,
    UpstreamFailed,
    Warm,
    encode,
)

UPSTREAM = UpstreamSpec("unix:/run/a.sock", 3, "unix:///run/a.sock", "/run/a.sock", usable=True)
SERVICE = ServiceSpec(
    name="shop",
    slot=4,
    hosts=("shop.example",),
    path="/",
    pools=(PoolSpec("blue", "1", (UPSTREAM,)), PoolSpec("green", "", ())),
    balance="round_robin",
    retries=schema.Retries(),
    sessions=schema.Sessions(mode="cookie"),
    preview=schema.Preview(allow=("10.0.0.0/8",)),
    drain=schema.Drain(),
    expose_pool=True,
)
PROXY = ProxySpec(schema.Limits(), schema.Timeouts(), (), "stdout", bytes(range(32)))
MESSAGES = [
    Snapshot(1, whole=True, services=(SERVICE,), proxy=PROXY),
    Snapshot(2, whole=False, services=(), removed=("shop",)),
    DrainPool("shop", 0, 12.5),
    UndrainPool("shop", 1),
    Warm(4, (("shop", 1),)),
    Flush(3),
    Hello(0, 4711),
    Ack(3),
    UpstreamFailed("unix:/run/a.sock", "shop", 0, 5, "connection refused"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_out_as_it_went_in(message):
    """Equal by value, and of the same type."""
    (out,) = Decoder().feed(encode(message))
    assert out == message
    assert type(out) is type(message)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 64, 1000, 100_000])
def test_messages_come_whole_and_in_order_at_any_split(size):
    """Pieces of any size: every message once, when its last byte has come."""
    stream = b"".join(encode(message) for message in MESSAGES)
    decoder = Decoder()
    out = []
    for start in range(0, len(stream), size):
        out += decoder.feed(stream[start : start + size])
    assert out == MESSAGES


def test_a_message_is_not_there_before_its_last_byte():
    """Cut in two anywhere: nothing, then the message."""
    data = encode(MESSAGES[2])
    for cut in range(len(data)):
        decoder = Decoder()
        assert decoder.feed(data[:cut]) == []
        assert decoder.feed(data[cut:]) == [MESSAGES[2]]
        assert decoder.feed(b"") == []


def test_the_end_of_one_and_the_beginning_of_the_next_in_one_piece():
    """What is left waits for its rest."""
    first, second = encode(MESSAGES[5]), encode(MESSAGES[7])
    decoder = Decoder()
    assert decoder.feed(first[:-1]) == []
    assert decoder.feed(first[-1:] + second[:3]) == [MESSAGES[5]]
    assert decoder.feed(second[3:]) == [MESSAGES[7]]


def test_a_large_snapshot_goes_too():
    """The length has four bytes: a thousand services are no matter."""
    message = Snapshot(9, whole=True, services=(SERVICE,) * 1000, proxy=PROXY)
    big = Snapshot(10, whole=True, services=(), removed=tuple(f"service-{number:0100}" for number in range(5000)))
    assert len(encode(big)) > 500_000
    assert Decoder().feed(encode(message) + encode(big)) == [message, big]
