"""Clients that ask for much and read little or nothing."""

from __future__ import annotations

import time

from support.attackers import SLOW, Others, metric
from support.waiting import eventually

ASK = b"GET /download?bytes=100000000 HTTP/1.1\r\nHost: slow.example\r\n\r\n"


def test_who_reads_too_slowly_is_cut_and_nobody_else_notices(start_proxy, blue):
    """A hundred bytes ten times a second never is a silence; it is less than `limits.min_rate`, for too long."""
    proxy = start_proxy(blue=[blue.url], **SLOW)
    with Others(proxy):
        slow = [proxy.client(receive_buffer=4096) for _ in range(10)]
        try:
            for client in slow:
                client.send(ASK)
            deadline = time.monotonic() + 10.0
            while metric(proxy, "bgproxy_client_timeouts_total", reason="slow_reader") < 10:
                assert time.monotonic() < deadline
                for client in slow:
                    try:
                        client.sock.recv(10)
                    except OSError:
                        continue
                time.sleep(0.1)
            eventually(lambda: proxy.service()["pools"]["blue"]["in_flight"]["requests"] <= 4)
        finally:
            for client in slow:
                client.close()


def test_who_reads_nothing_is_cut_without_a_least_rate_too(start_proxy, blue):
    """It is `timeouts.stream_idle` then."""
    proxy = start_proxy(blue=[blue.url], limits={"min_rate": "0"}, timeouts={"stream_idle": "500ms"})
    with proxy.client(receive_buffer=4096) as client:
        client.send(ASK)
        eventually(lambda: metric(proxy, "bgproxy_client_timeouts_total", reason="write") == 1)


def test_a_last_answer_that_nobody_reads_does_not_hold_its_connection(start_proxy, blue):
    """After `Connection: close` the rest of an answer waits for a reader, and not for ever."""
    blue.on("/big", lambda _backend, request: request.answer(bytes(6_000_000)))
    proxy = start_proxy(blue=[blue.url], limits={"min_rate": "0"}, timeouts={"stream_idle": "1s"}, workers=1)
    with proxy.client(receive_buffer=4096) as client:
        client.send(b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        eventually(lambda: metric(proxy, "bgproxy_connections") == 1)
        eventually(lambda: metric(proxy, "bgproxy_connections") == 0, within=8.0)


def test_who_reads_slowly_but_enough_gets_all(start_proxy, blue):
    """Above the least rate an answer may last longer than `timeouts.slow`."""
    proxy = start_proxy(blue=[blue.url], **SLOW)
    size = 8_000_000
    with proxy.client(receive_buffer=65536) as client:
        client.send(b"GET /download?bytes=%d HTTP/1.1\r\nHost: a\r\n\r\n" % size)
        assert client.read_head().status == 200
        got = len(client.buffer)
        client.buffer = b""
        since = time.monotonic()
        while got < size:
            got += len(client.read_exactly(min(250_000, size - got)))
            time.sleep(0.08)  # the reader's own pace
        assert time.monotonic() - since > 1.5
