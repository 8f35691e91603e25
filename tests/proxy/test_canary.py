"""Canaries: who goes to the pool that is not live, and that they go on going there."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from support.routing import client, fields, make_service

from bgproxy.config.schema import ONLY_SERVICE, Sessions
from bgproxy.proxy.balance import Ring, hash_of
from bgproxy.proxy.canary import COOKIE, canary_of, cookie_of, number_of, side
from bgproxy.proxy.choice import Memory, choose

TRIES = 2000


def chosen(service, share, *lines, live=0, peer="127.0.0.1", trusted=(), switched_at=0.0):
    """The choice for a request with these lines, while so many per cent go to the pool that is not live."""
    caller = client(peer, trusted, switched_at=switched_at)
    caller.fields = fields(*lines)
    return choose(service, Memory(service, caller.fields, caller), live | share << 1, caller)


def given(choice) -> bytes:
    """The cookie that an answer brings, as the client sends it back."""
    (value,) = re.findall(rb"Set-Cookie: ([^;]+);", choice.extra)
    return b"Cookie: " + value


def test_a_share_of_the_clients_goes_to_the_other_pool():
    """As many as were asked for, whichever pool is live; none at 0 and all at 100."""
    service = make_service()
    for share, live in ((0, 0), (10, 0), (50, 1), (100, 1)):
        others = sum(chosen(service, share, live=live).pool.index != live for _ in range(TRIES))
        assert abs(others / TRIES - share / 100) < 0.05


def test_a_client_stays_on_its_side():
    """By its cookie, of which it gets one only; a share that grows takes clients along and sends none back."""
    service = make_service()
    for _ in range(50):
        first = chosen(service, 50)
        cookie = given(first)
        for share in (50, 60, 99):
            again = chosen(service, share, cookie)
            assert again.extra == b""
            assert again.pool.index >= first.pool.index
        assert chosen(service, 50, cookie).pool.index == first.pool.index


def test_the_next_deployment_has_other_canaries():
    """The number of a client follows from when the service last switched, too."""
    service = make_service()
    numbers = {number_of(b"0123456789abcdef", service, moment) for moment in (1.0, 2.0, 3.0, 4.0, 5.0)}
    assert len(numbers) > 1
    assert all(0 <= number < 100 for number in numbers)


ADDRESSES = [f"10.{high}.{low}.7".encode() for high in range(100) for low in range(100)]


def chi_square(counts, cells):
    """How far counts are from being even, over so many cells."""
    expected = sum(counts.values()) / cells
    return sum((counts[cell] - expected) ** 2 / expected for cell in range(cells))


def test_every_number_is_as_likely():
    """10,000 addresses in a row over 100 numbers: chi-square, 99 degrees of freedom, of which one in a million is above 182."""
    service = make_service()
    numbers = Counter(number_of(address, service, 5.0) for address in ADDRESSES)
    assert chi_square(numbers, 100) < 182


@pytest.mark.parametrize("what", ["services", "deployments", "upstreams"])
def test_who_is_a_canary_says_nothing_else(what):
    """Not of another service (switched in the same instant), of the next deployment, or of the upstream that a hash of the address picks.

    10 by 10 cells with two numbers each, 81 degrees of freedom: one in a million is above 157.
    """
    one, other = make_service(), make_service(name="api")
    ring = Ring([f"10.9.9.{number}:80" for number in range(10)])

    def second(address: bytes) -> int:
        if what == "upstreams":
            return ring.order(hash_of(address))[0]
        return number_of(address, *((other, 5.0) if what == "services" else (one, 6.0))) // 10

    pairs = Counter((number_of(address, one, 5.0) // 10, second(address)) for address in ADDRESSES)
    rows = Counter(row for row, _ in pairs.elements())
    columns = Counter(column for _, column in pairs.elements())  # a ring is only about even
    expected = {(row, column): rows[row] * columns[column] / len(ADDRESSES) for row in rows for column in columns}
    assert sum((pairs[cell] - mean) ** 2 / mean for cell, mean in expected.items()) < 157


@pytest.mark.parametrize("value", [b"", b"short", b"0123456789abcdeX", b"0123456789abcdef0"])
def test_a_cookie_that_is_not_ours_is_none(value):
    """The client gets a good one."""
    assert given(chosen(make_service(), 50, b"Cookie: bgproxy_canary_shop=" + value))


def test_by_address_no_cookie_is_needed():
    """The client's address decides, the one behind trusted proxies, and the answers are not touched."""
    service = make_service(canary_by="source")
    sides = set()
    for host in range(60):
        line = b"X-Forwarded-For: 203.0.113.%d" % host
        choices = [chosen(service, 50, line, peer="10.0.0.1", trusted=("10.0.0.0/8",)) for _ in range(3)]
        assert len({choice.pool.index for choice in choices}) == 1
        assert not any(choice.extra for choice in choices)
        sides.add(choices[0].pool.index)
    assert sides == {0, 1}
    assert len({chosen(service, 50, b"X-Forwarded-For: 203.0.113.%d" % host).pool.index for host in range(60)}) == 1


def test_a_canary_that_is_down_gets_nobody():
    """Its clients go to the live pool, and are not marked."""
    service = make_service(down=(9500,))
    for _ in range(20):
        choice = chosen(service, 99)
        assert (choice.pool.index, choice.extra) == (0, b"")


def test_testers_choose_all_the_same():
    """A preview goes before a canary."""
    service = make_service()
    for pool, index in ((b"blue", 0), (b"green", 1)):
        assert chosen(service, 50, b"X-BGProxy-Pool: " + pool).pool.index == index


@pytest.mark.parametrize("policy", ["follow", "finish", "deadline"])
def test_new_sessions_are_pinned_to_their_side(policy):
    """In a canary a new session begins on either side and stays there; no other cookie is given."""
    service = make_service(sessions=Sessions(mode="cookie", on_switch=policy))
    sides = []
    for _ in range(200):
        first = chosen(service, 30)
        sides.append(first.pool.index)
        assert first.extra.count(b"Set-Cookie") == 1
        assert COOKIE.encode() not in first.extra
        assert chosen(service, 30, given(first)).pool.index == first.pool.index
    assert 20 < sum(sides) < 100


def test_sessions_that_follow_move_with_the_share():
    """Up and, when the share goes back to nothing, back; the others stay where they began."""
    follow = make_service(sessions=Sessions(mode="cookie"))
    finish = make_service(sessions=Sessions(mode="cookie", on_switch="finish"))
    olds = [given(chosen(follow, 0)) for _ in range(200)]
    moved = sum(chosen(follow, 50, cookie).pool.index for cookie in olds)
    assert 60 < moved < 140
    assert not any(chosen(follow, 0, cookie).pool.index for cookie in olds)
    olds = [given(chosen(finish, 0)) for _ in range(50)]
    assert not any(chosen(finish, 50, cookie).pool.index for cookie in olds)


def test_each_service_of_a_host_has_a_cookie_of_its_own():
    """But the only one needs no name."""
    assert cookie_of("shop") == b"bgproxy_canary_shop"
    assert cookie_of(ONLY_SERVICE) == b"bgproxy_canary"


def test_over_tls_the_cookie_is_secure():
    """And for scripts it is not there."""
    caller = client()
    caller.fields = fields()
    assert b"; HttpOnly; SameSite=Lax\r\n" in side(make_service(), 50, caller, "").extra
    caller.listener.secure = True
    assert side(make_service(), 50, caller, "").extra.endswith(b"; Secure\r\n")


def test_connections_in_mode_tcp_are_shared_out_too():
    """By chance, or by address; a canary that is down gets none."""
    by_chance, by_address, down = make_service(), make_service(canary_by="source"), make_service(down=(9500,))
    others = sum(canary_of(by_chance, 0 | 30 << 1, "10.0.0.1", 0.0).index for _ in range(TRIES))
    assert abs(others / TRIES - 0.3) < 0.05
    assert len({canary_of(by_address, 0 | 50 << 1, "10.0.0.1", 0.0).index for _ in range(20)}) == 1
    assert {canary_of(by_address, 1 | 50 << 1, f"10.0.0.{host}", 0.0).index for host in range(50)} == {0, 1}
    assert not any(canary_of(down, 0 | 99 << 1, "10.0.0.1", 0.0).index for _ in range(20))
