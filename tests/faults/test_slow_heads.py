"""Heads that come a byte at a time (Slowloris), heads without end, and floods of fields."""

from __future__ import annotations

import time

from support.attackers import SLOW, Others, crowd, disperse, metric, still_open
from support.waiting import eventually

HEAD = b"GET / HTTP/1.1\r\nHost: slow.example\r\n"


def test_slow_heads_end_in_time_and_nobody_else_notices(start_proxy, blue):
    """Two hundred clients that send a field now and then are cut off after `timeouts.header`, with 408; others are served."""
    proxy = start_proxy(blue=[blue.url], **SLOW)
    with Others(proxy):
        since = time.monotonic()
        slow = crowd(proxy.address, 200, HEAD)
        try:
            left = [*slow]
            while left:
                assert time.monotonic() - since < 5.0, f"{len(left)} are still there"
                for sock in left:
                    try:
                        sock.send(b"X-a: b\r\n")
                    except OSError:
                        continue
                time.sleep(0.2)
                left = [sock for sock in left if still_open(sock)]
        finally:
            disperse(slow)
    assert time.monotonic() - since >= 1.0
    eventually(lambda: metric(proxy, "bgproxy_client_timeouts_total", reason="header") == 200)


def test_who_never_says_anything_is_let_go(start_proxy, blue):
    """A connection without a first byte ends after `timeouts.header`, and is counted as idle."""
    proxy = start_proxy(blue=[blue.url], **SLOW)
    with proxy.client() as client:
        assert client.closed()
    eventually(lambda: metric(proxy, "bgproxy_client_timeouts_total", reason="idle") == 1)


def test_a_head_byte_by_byte_is_a_head(start_proxy, blue):
    """Slow, but in time: it is served."""
    proxy = start_proxy(blue=[blue.url])
    with proxy.client() as client:
        for byte in HEAD + b"\r\n":
            client.send(bytes([byte]))
        assert client.read_response().status == 200


def test_floods_of_fields_get_431_and_nobody_else_notices(start_proxy, blue):
    """Too many fields, one that is too long, and one that never ends are refused as soon as they are too much."""
    proxy = start_proxy(blue=[blue.url])
    many = HEAD + b"".join(b"X-%d: y\r\n" % number for number in range(200)) + b"\r\n"
    long = HEAD + b"X: " + bytes(40_000).replace(b"\0", b"y") + b"\r\n\r\n"
    endless = HEAD + b"X: " + b"y" * 40_000
    with Others(proxy):
        for data in (many, long, endless) * 20:
            with proxy.client() as client:
                client.send(data)
                assert client.read_response().status == 431
                assert client.closed()
    eventually(lambda: metric(proxy, "bgproxy_limits_exceeded_total", limit="head") == 60)
