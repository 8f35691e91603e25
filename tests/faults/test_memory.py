"""What a configuration can be made to hold is less than docs/operations.md reckons, row by row; the figures are read from there."""

from __future__ import annotations

import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from support.attackers import crowd, disperse, metric, resident
from support.certificates import Authority
from support.proxy import Proxy
from support.waiting import eventually

KiB = 1024
HEADER = 8 * KiB
#: More than enough, and no client is cut while it is measured what it can do.
LIMITS = {"connections": 4000, "header_bytes": "8KiB", "min_rate": "0"}

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


# --- what the page says -----------------------------------------------------------------------------------------------


def formula(*secure: str) -> int:
    """Bytes of one connection, with TLS to those of `client` and `upstream` that are named."""
    found = re.search(
        r"connections \* \((\d+) KiB \+ (\d+) \* header_bytes"
        r" \+ (\d+) KiB with TLS to the client \+ (\d+) KiB with TLS to the upstream\)",
        PAGE.read_text(),
    )
    assert found, "docs/operations.md has lost its formula"
    tls = {"client": int(found[3]) * KiB, "upstream": int(found[4]) * KiB}
    return int(found[1]) * KiB + int(found[2]) * HEADER + sum(tls[side] for side in secure)


def row(about: str) -> int:
    """Bytes of one row of its table: all KiB that stand in it, and so many times `header_bytes`."""
    (line,) = (line for line in PAGE.read_text().splitlines() if line.startswith(f"| {about}"))
    figures = line.split("|")[2]
    heads = sum(int(number) for number in re.findall(r"(\d+) \* `header_bytes`", figures))
    return sum(int(number) * KiB for number in re.findall(r"(\d+) KiB", figures)) + heads * HEADER


def itself() -> int:
    """Every connection has these two rows."""
    return row("the connections themselves") + row("the last head")


def test_the_formula_is_the_sum_of_its_rows():
    """What a client and an upstream can make wait at a time, and the connections themselves."""
    parts = row("an answer that the client does not read") + row("requests sent ahead") + itself()
    assert parts <= formula()
    for side in ("client", "upstream"):
        assert row(f"TLS to the {side}") == formula(side) - formula()


# --- who does it ------------------------------------------------------------------------------------------------------


def longest_head(line: str, *fields: str) -> bytes:
    """A head nearly as long as one may be."""
    filler = "".join(f"X-{number}: {'y' * 85}\r\n" for number in range((HEADER - 500) // 95))
    head = "".join(f"{each}\r\n" for each in (line, "Host: localhost", *fields)) + filler + "\r\n"
    assert HEADER * 0.9 < len(head) < HEADER
    return head.encode()


class Flood:
    """An upstream that sends without end as soon as it is asked, and reads no more: HTTP, or at once whatever its protocol."""

    def __init__(self, *, ask: bool = True, answer: bool = True, tls: ssl.SSLContext | None = None) -> None:
        self._ask, self._answer, self._tls = ask, answer, tls
        self._server = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._server.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._threads[0].join(10)
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(10)
        disperse(self._sockets)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._server.accept()
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                self._sockets.append(sock)
                self._threads.append(threading.Thread(target=self._serve, args=(sock,)))
                self._threads[-1].start()

    def _serve(self, plain: socket.socket) -> None:
        with suppress(OSError):
            sock = plain if self._tls is None else self._tls.wrap_socket(plain, server_side=True)
            if sock is not plain:
                self._sockets.append(sock)
            if self._ask:
                while b"\r\n\r\n" not in sock.recv(16384):
                    continue
            if not self._answer:
                return
            if self._ask:
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")
            while True:
                sock.sendall(bytes(65536))


@contextmanager
def clients(proxy: Proxy, count: int, tls: ssl.SSLContext | None = None) -> Iterator[list[socket.socket]]:
    """So many connections that take little of what is sent to them."""
    found: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = socket.socket()
            found.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(10)
            sock.connect(proxy.address)
            if tls is not None:
                found[-1] = tls.wrap_socket(sock, server_hostname="localhost")
        yield found
    finally:
        disperse(found)


def pour(sockets: Iterable[socket.socket], data: bytes, within: float = 4.0) -> None:
    """Send, all of them, until nobody takes any more."""
    sockets = list(sockets)
    for sock in sockets:
        sock.setblocking(False)
    until, quiet = time.monotonic() + within, 0
    while time.monotonic() < until and quiet < 3:
        taken = 0
        for sock in sockets:
            with suppress(BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                taken += sock.send(data)
        quiet = 0 if taken else quiet + 1
        if not taken:
            time.sleep(0.1)


class Worker:
    """The one worker of a proxy, and what it held before."""

    def __init__(self, proxy: Proxy) -> None:
        (self.pid,) = proxy.worker_pids()
        self._before = resident(self.pid)

    def each(self, count: int, about: str, allowed: int) -> None:
        """What it holds more for each of `count` connections is less than `allowed` bytes."""
        grown = (resident(self.pid) - self._before) / count
        print(f"{about}: {grown / KiB:.1f} KiB a connection, of {allowed / KiB:.0f} KiB")
        assert grown < allowed


def started(start_proxy: Any, **options: Any) -> tuple[Proxy, Worker]:
    options.setdefault("timeouts", {"header": "60s"})
    proxy = start_proxy(workers=1, limits=LIMITS, **options)
    return proxy, Worker(proxy)


# --- row by row -------------------------------------------------------------------------------------------------------


def test_idle_connections(start_proxy, blue):
    """Two thousand that have asked something: a few KiB each, and a short last head."""
    proxy, worker = started(start_proxy, blue=[blue.url])
    head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    found = crowd(proxy.address, 2000)
    try:
        for sock in found:
            sock.sendall(head)
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        worker.each(2000, "idle", row("the connections themselves"))
    finally:
        disperse(found)


def test_half_heads(start_proxy, blue):
    """A thousand that never send the end of the longest head that they may."""
    proxy, worker = started(start_proxy, blue=[blue.url])
    found = crowd(proxy.address, 1000, longest_head("GET / HTTP/1.1")[:-4])
    try:
        eventually(lambda: metric(proxy, "bgproxy_connections") == 1000)
        worker.each(1000, "half heads", itself())
    finally:
        disperse(found)


def test_longest_heads_that_are_remembered(start_proxy, blue):
    """Three hundred, no two the same, on connections that go on."""
    proxy, worker = started(start_proxy, blue=[blue.url])
    found = crowd(proxy.address, 300)
    try:
        for number, sock in enumerate(found):
            sock.sendall(longest_head("GET / HTTP/1.1", f"Cookie: {number}"))
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        worker.each(300, "longest heads", itself())
    finally:
        disperse(found)


def test_answers_that_nobody_reads(start_proxy, blue):
    """A hundred megabytes for each, of which nothing is taken."""
    proxy, worker = started(start_proxy, blue=[blue.url])
    with clients(proxy, 60) as found:
        for sock in found:
            sock.sendall(b"GET /download?bytes=100000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: proxy.service()["pools"]["blue"]["in_flight"]["requests"] == 60)
        time.sleep(0.5)  # whatever comes meanwhile; less would be no failure
        worker.each(60, "answers", row("an answer that the client") + itself())


def test_answers_that_nobody_reads_over_tls(start_proxy, blue, tmp_path):
    """They wait in the clear no longer than without TLS, and encrypted behind that."""
    authority = Authority()
    pair = authority.issue(tmp_path, "localhost").as_config()
    proxy, worker = started(
        start_proxy, blue=[blue.url], listen={"address": "127.0.0.1:0", "tls": {"certificates": [pair]}}
    )
    with clients(proxy, 40, authority.client_context()) as found:
        for sock in found:
            sock.sendall(b"GET /download?bytes=100000000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: proxy.service()["pools"]["blue"]["in_flight"]["requests"] == 40)
        time.sleep(0.5)  # whatever comes meanwhile; less would be no failure
        worker.each(40, "answers over TLS", 900 * KiB)


def test_bodies_that_no_upstream_takes(start_proxy):
    """The upstream reads the head and nothing else."""
    upstream = Flood(answer=False)
    try:
        health = {"type": "tcp", "interval": "1s", "rise": 1}
        proxy, worker = started(start_proxy, blue=[f"http://127.0.0.1:{upstream.port}"], health=health)
        with clients(proxy, 60) as found:
            for sock in found:
                sock.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000000\r\n\r\n")
            pour(found, bytes(65536))
            worker.each(60, "bodies", row("requests sent ahead") + itself())
    finally:
        upstream.close()


# --- all at once ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [(), ("client",), ("upstream",), ("client", "upstream")], ids=repr)
def test_the_worst_case(start_proxy, tmp_path, secure):
    """The longest heads, an answer without end that nobody reads, and as much sent ahead as anybody takes; then others are served."""
    authority = Authority()
    files = authority.issue(tmp_path, "localhost")
    options: dict[str, Any] = {}
    context = None
    if "client" in secure:
        context = authority.client_context()
        options["listen"] = {"address": "127.0.0.1:0", "tls": {"certificates": [files.as_config()]}}
    theirs = None
    if "upstream" in secure:
        theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        theirs.load_cert_chain(files.cert, files.key)
    upstream = Flood(tls=theirs)
    scheme = "https" if theirs else "http"
    pool = {"upstreams": [f"{scheme}://localhost:{upstream.port}"], "tls": {"ca": str(authority.write(tmp_path))}}
    if theirs is None:
        del pool["tls"]
    service = {"pools": {"blue": pool}, "health": {"interval": "1s", "rise": 1, "path": "/"}}
    try:
        proxy, worker = started(start_proxy, services={"default": service}, **options)
        head = longest_head("GET / HTTP/1.1")
        with clients(proxy, 40, context) as found:
            for sock in found:
                sock.sendall(head)
            pour(found, head * 10)
            worker.each(40, f"worst case, TLS of {secure}", formula(*secure))
        eventually(lambda: metric(proxy, "bgproxy_connections") == 0)
    finally:
        upstream.close()


def test_the_worst_case_of_mode_tcp(start_proxy):
    """Nobody reads on either side, everybody sends."""
    upstream = Flood(ask=False)
    listen = {"address": "127.0.0.1:0", "mode": "tcp", "service": "db"}
    service = {"pools": {"blue": {"upstreams": [f"tcp://127.0.0.1:{upstream.port}"]}}, "health": {"rise": 1}}
    try:
        proxy, worker = started(start_proxy, listen=[listen], services={"db": service})
        with clients(proxy, 60) as found:
            pour(found, bytes(65536))
            worker.each(60, "mode tcp", formula())
    finally:
        upstream.close()


# --- the base ---------------------------------------------------------------------------------------------------------


def test_the_base(start_proxy, blue, tmp_path):
    """A thousand services, a remembered head of each of 256 addresses, and an access log that nobody takes."""
    log = tmp_path / "access.log"
    os.mkfifo(log)
    services = {
        f"service{number}": {
            "match": {"hosts": [f"host{number}.example.test"]},
            "pools": {"blue": {"upstreams": [blue.url]}},
            "health": {"interval": "1h", "type": "tcp", "rise": 1},
        }
        for number in range(1000)
    }
    with ExitStack() as stack:
        reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
        stack.callback(os.close, reader)
        proxy = start_proxy(services=services, access_log=str(log), workers=1, limits=LIMITS)
        (worker,) = proxy.worker_pids()
        filler = "".join(f"X-{number}: {'y' * 85}\r\n" for number in range(38))
        found = crowd(proxy.address, 256, sources=[f"127.0.1.{number}" for number in range(256)])
        stack.callback(disperse, found)
        for number, sock in enumerate(found):
            fields = f"Host: host{number}.example.test\r\nCookie: {number}\r\n{filler}\r\n"
            head = f"GET /{'t' * 3400} HTTP/1.1\r\n{fields}".encode()
            for _ in range(6):
                sock.sendall(head)
                assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        assert metric(proxy, "bgproxy_log_lines_dropped_total") > 0
        text = Path(f"/proc/{worker}/status").read_text()
        held = int(re.search(r"VmRSS:\s+(\d+) kB", text)[1])
        allowed = int(re.search(r"base of (\d+) MiB", PAGE.read_text())[1]) * KiB
        print(f"base: {held / KiB:.1f} MiB of {allowed / KiB:.0f} MiB")
        assert held < allowed
