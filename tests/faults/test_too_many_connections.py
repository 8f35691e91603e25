"""Ten thousand idle connections, storms of new ones, and more of either than is allowed."""

from __future__ import annotations

import socket
import time

import pytest
from support.attackers import Others, allow_files, crowd, disperse, metric, resident, status_of, still_open
from support.waiting import eventually

SOURCES = [f"127.0.0.{number}" for number in range(2, 11)]


@pytest.mark.alone
@pytest.mark.slow
def test_ten_thousand_idle_connections_cost_little(start_proxy, blue, green):
    """All are accepted, each costs less than 40 KiB, and a switch is as quick as without them."""
    count = 10_000
    if not allow_files(count + 1000):
        pytest.skip(f"a test may not have {count + 1000} open files here (ulimit -Hn)")
    proxy = start_proxy(
        blue=[blue.url],
        green=[green.url],
        limits={"connections": 15_000},
        timeouts={"header": "5m", "client_idle": "5m"},
    )
    proxy.wait_healthy()
    workers = proxy.worker_pids()
    before = sum(resident(pid) for pid in workers)
    idle: list[socket.socket] = []
    try:
        with Others(proxy):
            idle += crowd(proxy.address, count, sources=SOURCES)
            eventually(lambda: metric(proxy, "bgproxy_connections") >= count, within=20.0)
            each = (sum(resident(pid) for pid in workers) - before) / count
            assert each < 40 * 1024, f"{each / 1024:.1f} KiB a connection"
            print(f"{each / 1024:.1f} KiB a connection")
            assert proxy.switch("green")["switched_in_ms"] < 500
            assert proxy.get("/").text == "green"
        assert all(still_open(sock) for sock in idle[::100])
    finally:
        disperse(idle)
    assert metric(proxy, "bgproxy_connections_refused_total") == 0


def test_idle_connections_make_room_for_newcomers(start_proxy, blue):
    """Who holds all connections that there may be, and asks for nothing, keeps nobody out."""
    proxy = start_proxy(blue=[blue.url], workers=1, limits={"connections": 100})
    idle = crowd(proxy.address, 100)
    try:
        eventually(lambda: metric(proxy, "bgproxy_connections") == 100)
        # Until a fiftieth of their time has passed they count as newcomers themselves.
        eventually(lambda: proxy.get("/").status == 200, within=2.0)
        with Others(proxy, 8):
            for _ in range(10):
                idle += crowd(proxy.address, 10)
                time.sleep(0.1)  # what the others do meanwhile is what is looked at
    finally:
        disperse(idle)
    assert metric(proxy, "bgproxy_connections_evicted_total") >= 1
    assert metric(proxy, "bgproxy_connections") <= 100


def test_half_heads_make_room_too_and_answers_do_not(start_proxy, blue):
    """Who is being answered is never cut for a newcomer, who gets 503 then."""
    proxy = start_proxy(blue=[blue.url], workers=1, limits={"connections": 10})
    busy = crowd(proxy.address, 5, b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
    half = crowd(proxy.address, 5, b"GET / HTTP/1.1\r\nHost: a\r\n")
    try:
        eventually(lambda: metric(proxy, "bgproxy_connections") == 10)
        eventually(lambda: proxy.get("/").status == 200, within=2.0)
        more = crowd(proxy.address, 5, b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        half += more
        eventually(lambda: blue.counts["/wait"] == 10, within=3.0)
        with proxy.client() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert status_of(client) == 503
        blue.release()
        for sock in busy:
            sock.settimeout(5)
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
    finally:
        blue.release()
        disperse(busy + half)
    assert metric(proxy, "bgproxy_connections_refused_total", reason="connections") >= 1


@pytest.mark.alone
def test_storms_of_connections_are_nobodys_trouble(start_proxy, blue):
    """Three thousand connections that come and go as fast as they can, over the limit: the others are served."""
    proxy = start_proxy(blue=[blue.url], limits={"connections": 200})
    with Others(proxy, renewed=0, patience=10.0):
        for _ in range(30):
            disperse(crowd(proxy.address, 100))
    eventually(lambda: metric(proxy, "bgproxy_connections") <= 2)
    assert metric(proxy, "bgproxy_connections_accepted_total") >= 2000
    assert proxy.get("/").status == 200


def test_an_address_may_have_its_share_and_no_more(start_proxy, blue):
    """Beyond `limits.connections_per_address` an address gets 503; other addresses are served."""
    proxy = start_proxy(blue=[blue.url], workers=1, limits={"connections_per_address": 5})
    greedy = crowd(proxy.address, 5, sources=["127.0.0.9"] * 2)
    try:
        eventually(lambda: metric(proxy, "bgproxy_connections") == 5)
        over = crowd(proxy.address, 1, sources=["127.0.0.9"] * 2)
        greedy += over
        assert over[0].recv(100).startswith(b"HTTP/1.1 503")
        assert proxy.get("/").status == 200
        disperse(greedy)
        eventually(lambda: metric(proxy, "bgproxy_connections") == 0)
        greedy += crowd(proxy.address, 1, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", sources=["127.0.0.9"] * 2)
        assert greedy[-1].recv(100).startswith(b"HTTP/1.1 200")
    finally:
        disperse(greedy)
    assert metric(proxy, "bgproxy_connections_refused_total", reason="address") == 1
