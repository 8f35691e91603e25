"""Which upstream gets the next request: evenly, by what is in flight, or by who asks."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from support.routing import make_service

from bgproxy.config.schema import Balance
from bgproxy.proxy.balance import (
    LEAST_REQUESTS,
    RANDOM_TWO,
    ROUND_ROBIN,
    SOURCE_HASH,
    Ring,
    balance_code,
    by_hash,
    hash_of,
    pick,
)

CODES = [ROUND_ROBIN, LEAST_REQUESTS, RANDOM_TWO, SOURCE_HASH]
KEYS = [hash_of(b"client %d" % number) for number in range(2000)]


def pool_of(count, down=()):
    return make_service(blue=count, down=tuple(9000 + number for number in down)).pools[0]


def test_every_balance_of_the_schema_has_a_number():
    """And each another."""
    assert [balance_code(name) for name in Balance.__args__] == [0, 1, 2, 3]


@pytest.mark.parametrize("code", CODES)
def test_a_pool_with_none_has_none(code):
    """No upstream, or none that may be used."""
    assert pick(pool_of(0), code, 1) is None
    assert pick(pool_of(2, down=(0, 1)), code, 1) is None
    assert by_hash(pool_of(2, down=(0, 1)), 1) is None


@pytest.mark.parametrize("code", CODES)
def test_what_may_not_be_used_gets_nothing(code):
    """Of four with two down, the two that are up get all."""
    pool = pool_of(4, down=(1, 2))
    assert {pick(pool, code, key).port for key in KEYS[:200]} == {9000, 9003}


@pytest.mark.parametrize("code", [ROUND_ROBIN, LEAST_REQUESTS])
@pytest.mark.parametrize("count", [2, 3, 7, 40])
def test_idle_upstreams_take_turns(code, count):
    """With nothing in flight each gets exactly its share."""
    pool = pool_of(count)
    shares = Counter(pick(pool, code, 0).port for _ in range(count * 10))
    assert set(shares.values()) == {10}
    assert len(shares) == count


def test_least_requests_fills_evenly():
    """Requests that stay spread to within one of each other, whatever the turn."""
    pool = pool_of(5)
    pool.upstreams[2].in_flight = 7
    for _ in range(43):
        pick(pool, LEAST_REQUESTS, 0).in_flight += 1
    assert sorted(upstream.in_flight for upstream in pool.upstreams) == [10] * 5


def test_least_requests_prefers_the_emptier():
    """One that answers slowly gets no more than it ends."""
    pool = pool_of(3)
    for upstream, load in zip(pool.upstreams, (4, 1, 4), strict=True):
        upstream.in_flight = load
    assert {pick(pool, LEAST_REQUESTS, 0).port for _ in range(10)} == {9001}


def test_a_large_pool_is_sampled_and_still_nearly_even():
    """Sixteen are looked at, from a place that moves on: the fullest of a hundred has hardly more than the mean."""
    pool = pool_of(100)
    looked = Counter()
    for _ in range(3000):
        chosen = pick(pool, LEAST_REQUESTS, 0)
        chosen.in_flight += 1
        looked[chosen.port] += 1
    loads = [upstream.in_flight for upstream in pool.upstreams]
    assert len(looked) == 100
    assert max(loads) - min(loads) <= 3
    # And no more than sixteen: with those ahead all busy, an idle one far behind is not found.
    for upstream in pool.upstreams:
        upstream.in_flight = 5
    pool.turn = 0
    pool.upstreams[50].in_flight = 0
    assert pick(pool, LEAST_REQUESTS, 0) is not pool.upstreams[50]
    pool.turn = 40
    assert pick(pool, LEAST_REQUESTS, 0) is pool.upstreams[50]


def test_random_two_takes_the_emptier_of_two(monkeypatch):
    """Two draws, one comparison."""
    pool = pool_of(4)
    pool.upstreams[3].in_flight = 9
    draws = iter([0.8, 0.3, 0.3, 0.8])  # the fourth and the second, and the other way round
    monkeypatch.setattr(random, "random", lambda: next(draws))
    assert pick(pool, RANDOM_TWO, 0) is pool.upstreams[1]
    assert pick(pool, RANDOM_TWO, 0) is pool.upstreams[1]


def test_random_two_reaches_all():
    """No upstream is forgotten, and none beyond the list is asked for."""
    pool = pool_of(5)
    random.seed(1)
    shares = Counter(pick(pool, RANDOM_TWO, 0).port for _ in range(2000))
    assert len(shares) == 5
    assert min(shares.values()) > 200


def test_a_pool_that_shrank_is_no_trouble():
    """A turn beyond the end of what is ready is brought back."""
    pool = pool_of(5)
    pool.turn = 4
    for upstream in pool.upstreams[2:]:
        upstream.usable = False
    pool.ready = pool.ready[:2]
    for code in CODES:
        assert pick(pool, code, KEYS[0]) in pool.ready


# --- by hash ------------------------------------------------------------------------------------------------------------


def test_a_key_keeps_its_upstream():
    """The same in every process: the hash is not Python's own."""
    assert hash_of(b"client 0") == 0x1F317B681C7EAE24
    one, other = pool_of(5), pool_of(5)
    assert [by_hash(one, key).port for key in KEYS[:200]] == [pick(other, SOURCE_HASH, key).port for key in KEYS[:200]]


def test_shares_of_the_ring_are_near_each_other():
    """No upstream has more than half as much again as its share."""
    pool = pool_of(5)
    shares = Counter(by_hash(pool, key).port for key in KEYS)
    assert len(shares) == 5
    assert max(shares.values()) < 1.5 * len(KEYS) / 5
    assert min(shares.values()) > 0.5 * len(KEYS) / 5


def test_when_one_goes_only_its_own_keys_move():
    """An upstream that is down hands its keys to the others; every other key stays."""
    whole = pool_of(5)
    before = {key: by_hash(whole, key).port for key in KEYS[:500]}
    pool = pool_of(5, down=(2,))
    for key, port in before.items():
        after = by_hash(pool, key).port
        assert after == port if port != 9002 else after != 9002


def test_when_one_comes_only_the_keys_that_it_takes_move():
    """A sixth upstream takes about a sixth, and nobody else gets a key that was another's."""
    five, six = Ring([f"u{n}" for n in range(5)]), Ring([f"u{n}" for n in range(6)])
    moved = 0
    for key in KEYS:
        before, after = five.order(key)[0], six.order(key)[0]
        if before != after:
            assert after == 5
            moved += 1
    assert 0.08 < moved / len(KEYS) < 0.28


def test_the_order_of_the_list_does_not_matter():
    """Two workers that were told of the same upstreams in another order agree."""
    ids = [f"u{n}" for n in range(7)]
    ring, turned = Ring(ids), Ring(ids[::-1])
    for key in KEYS[:200]:
        assert [ids[n] for n in ring.order(key)] == [ids[::-1][n] for n in turned.order(key)]


def test_an_order_has_everyone_once():
    """The next in it is asked when the first cannot be used."""
    assert sorted(Ring([f"u{n}" for n in range(9)]).order(KEYS[0])) == list(range(9))
    assert Ring([]).order(KEYS[0]) == []
    assert Ring(["one"]).order(2**64 - 1) == [0]
