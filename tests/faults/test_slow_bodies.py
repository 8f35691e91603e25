"""Bodies that stall, or drip so slowly that they would hold an upstream for ever."""

from __future__ import annotations

import time

from support.attackers import SLOW, Others, crowd, disperse, metric, status_of
from support.waiting import eventually

POST = b"POST /upload HTTP/1.1\r\nHost: slow.example\r\nContent-Length: 1000000\r\n\r\n"


def test_dripping_bodies_end_and_nobody_else_notices(start_proxy, blue):
    """A byte ten times a second never runs into a time-out between two bytes; it is less than `limits.min_rate`: 408."""
    proxy = start_proxy(blue=[blue.url], **SLOW)
    with Others(proxy):
        since = time.monotonic()
        slow = crowd(proxy.address, 50, POST)
        try:
            left = [*slow]
            answers = b""
            while left:
                assert time.monotonic() - since < 6.0, f"{len(left)} are still there"
                time.sleep(0.1)
                for sock in [*left]:
                    sock.setblocking(False)
                    try:
                        sock.send(b"x")
                        piece = sock.recv(4096)
                    except BlockingIOError:
                        continue
                    except OSError:
                        piece = b""
                    answers += piece[:12]
                    left.remove(sock)
        finally:
            disperse(slow)
    assert answers == b"HTTP/1.1 408" * 50
    eventually(lambda: metric(proxy, "bgproxy_client_timeouts_total", reason="slow_body") == 50)


def test_a_body_that_stalls_gets_408(start_proxy, blue):
    """Without a least rate it is `timeouts.stream_idle` that ends a body that comes no more."""
    proxy = start_proxy(blue=[blue.url], limits={"min_rate": "0"}, timeouts={"stream_idle": "500ms"})
    with proxy.client() as client:
        client.send(POST + b"x")
        assert status_of(client) == 408
        assert client.read_all()
    eventually(lambda: metric(proxy, "bgproxy_client_timeouts_total", reason="body") == 1)


def test_a_body_that_is_fast_enough_may_take_its_time(start_proxy, blue):
    """Above the least rate a body may last longer than `timeouts.slow`."""
    proxy = start_proxy(blue=[blue.url], **SLOW)
    with proxy.client() as client:
        client.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 6000\r\n\r\n")
        for _ in range(15):
            client.send(b"x" * 400)
            time.sleep(0.2)  # the body's own pace, not a wait for something
        assert client.read_response().text.startswith("blue 6000 ")


def test_a_body_that_the_upstream_does_not_take_is_not_the_clients_fault(start_proxy, blue):
    """A client that is not read from is not slow, however long that lasts."""

    def reluctant(backend, request):
        backend.gate.wait(3.0)
        request.answer(str(len(request.body())))

    blue.on("/reluctant", reluctant)
    size = 20_000_000
    proxy = start_proxy(blue=[blue.url], limits={"min_rate": "1000"}, timeouts={"slow": "500ms"})
    with proxy.client() as client:
        client.send_request("POST", "/reluctant", body=bytes(size))
        assert client.read_response().text == str(size)
    assert metric(proxy, "bgproxy_client_timeouts_total", reason="slow_body") == 0


def test_a_body_over_the_limit_is_counted(start_proxy, blue):
    """413, and its counter."""
    proxy = start_proxy(blue=[blue.url], limits={"body_bytes": "1KiB"})
    with proxy.client() as client:
        assert client.request("POST", "/upload", body=bytes(2000)).status == 413
    eventually(lambda: metric(proxy, "bgproxy_limits_exceeded_total", limit="body") == 1)
