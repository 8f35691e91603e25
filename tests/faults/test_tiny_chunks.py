"""Bodies in chunks of one byte: six bytes of work for each byte of data."""

from __future__ import annotations

import time

from support.attackers import Others, metric
from support.waiting import eventually

POST = b"POST /upload HTTP/1.1\r\nHost: slow.example\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_they_are_throttled_arrive_whole_and_nobody_else_notices(start_proxy, blue):
    """Over `limits.tiny_chunks` a second a body is read no further within that second; nothing of it is lost."""
    proxy = start_proxy(blue=[blue.url], limits={"tiny_chunks": 5000})
    count = 60_000
    with Others(proxy), proxy.client(timeout=60) as client:
        since = time.monotonic()
        client.send(POST + b"1\r\nx\r\n" * count + b"0\r\n\r\n")
        answer = client.read_response()
        assert answer.text.startswith(f"blue {count} ")
        assert time.monotonic() - since >= 1.0
    eventually(lambda: metric(proxy, "bgproxy_limits_exceeded_total", limit="tiny_chunks") >= 1)


def test_a_few_at_a_time_are_let_through(start_proxy, blue):
    """Who writes a byte when there is one is not held up."""
    proxy = start_proxy(blue=[blue.url], limits={"tiny_chunks": 5000})
    with proxy.client() as client:
        client.send(POST)
        for _ in range(100):
            client.send(b"1\r\nx\r\n" * 20)
        client.send(b"0\r\n\r\n")
        assert client.read_response().text.startswith("blue 2000 ")
    assert metric(proxy, "bgproxy_limits_exceeded_total", limit="tiny_chunks") == 0
