"""One question to one upstream: what is sent, how an answer is read, and what is left behind."""

from __future__ import annotations

import asyncio
import errno
import os
import socket

import pytest
from support.waiting import eventually_async

from bgproxy.config.schema import Health
from bgproxy.control.probing import MAX_HEAD, Probe, Prober, words


class Asker:
    """A prober, and what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.prober = Prober(lambda _, reason: self.told.append(reason))

    def ask(self, address, url: str = "http://web.test", **settings) -> Probe:
        probe = Probe("k", url, address, Health(**settings))
        self.prober.ask(probe)
        return probe

    async def reason(self, address, url: str = "http://web.test", **settings) -> str:
        count = len(self.told)
        self.ask(address, url, **settings)
        await eventually_async(lambda: len(self.told) > count)
        return self.told[-1]


@pytest.fixture
async def asker():
    asker = Asker()
    asker.prober.start()
    yield asker
    asker.prober.close()


class Upstream:
    """A listener whose answers the test writes itself."""

    def __init__(self, family: int = socket.AF_INET) -> None:
        host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        self.listener = socket.create_server((host, 0), family=family)
        self.listener.setblocking(False)
        self.address = (host, self.listener.getsockname()[1])
        self.ends: list[socket.socket] = []

    async def accept(self) -> socket.socket:
        end, _ = await asyncio.get_running_loop().sock_accept(self.listener)
        self.ends.append(end)
        return end

    async def request(self, end: socket.socket) -> bytes:
        found = b""
        while not found.endswith(b"\r\n\r\n"):
            found += await asyncio.get_running_loop().sock_recv(end, 1_000_000)
        return found

    async def answer(self, *parts: bytes, close: bool = False) -> socket.socket:
        end = await self.accept()
        await self.request(end)
        for part in parts:
            await asyncio.get_running_loop().sock_sendall(end, part)
            await asyncio.sleep(0.01)  # so that it comes as a part of its own
        if close:
            end.close()
        return end

    def close(self) -> None:
        for end in [*self.ends, self.listener]:
            end.close()


@pytest.fixture
async def upstream():
    upstream = Upstream()
    yield upstream
    upstream.close()


async def both(asking, answering):
    async with asyncio.timeout(5):
        return (await asyncio.gather(asking, answering))[0]


async def test_what_is_asked(asker, upstream):
    """The path and the host as they are written, who asks, and that nothing will follow; a default port is not told."""
    asker.ask(upstream.address, "http://web.test:80", path="/health?deep=%41")
    sent = await upstream.request(await upstream.accept())
    line, *fields = sent.decode().removesuffix("\r\n\r\n").split("\r\n")
    assert line == "GET /health?deep=%41 HTTP/1.1"
    assert fields[0] == "Host: web.test"
    assert fields[1].startswith("User-Agent: bgproxy-health/")
    assert fields[2:] == ["Accept: */*", "Connection: close"]


async def test_an_ipv6_upstream(asker):
    """Its brackets are the URL's, not the address'."""
    try:
        upstream = Upstream(socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 on this machine's loopback")
    good = b"HTTP/1.1 204 No Content\r\n\r\n"
    assert (
        await both(asker.reason(upstream.address, f"http://[::1]:{upstream.address[1]}"), upstream.answer(good)) == ""
    )
    upstream.close()


@pytest.mark.parametrize(
    "parts",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",),
        (b"HTTP/1.0 200 OK\r\n\r\n",),
        (b"HT", b"TP/1.1 200 ", b"OK\r\nA: b\r\n", b"\r\n"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",),
    ],
    ids=["whole", "HTTP/1.0", "in pieces", "early hints", "two heads at once"],
)
async def test_an_answer_in_any_shape(asker, upstream, parts):
    """The final head decides, however it comes."""
    assert await both(asker.reason(upstream.address), upstream.answer(*parts)) == ""


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((b"SSH-2.0-OpenSSH_9.2\r\n",), "not an HTTP answer: not an HTTP/1 status line"),
        ((b"\x15\x03",), "not an HTTP answer: not an HTTP/1 status line"),
        ((b"HTTP/1.1 200 OK\nA: b\n\n",), "not an HTTP answer: a bare LF in the header"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",), "not an HTTP answer: Content-Length is not one number"),
        (
            (b"HTTP/1.1 200 OK\r\nA: " + b"b" * MAX_HEAD,),
            f"not an HTTP answer: a response head of more than {MAX_HEAD} bytes",
        ),
        ((b"HTTP/1.1 101 Switching Protocols\r\n\r\n",), "status 101, expected 200-399"),
    ],
    ids=["SSH", "TLS", "bare LF", "no length", "endless head", "101"],
)
async def test_rubbish_is_told_at_once(asker, upstream, parts, reason):
    """Though the connection stays open: the end of such a head may never come."""
    assert await both(asker.reason(upstream.address), upstream.answer(*parts)) == reason


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\nA: b"], ids=["nothing", "half a head"])
async def test_a_connection_that_is_closed_too_early(asker, upstream, part):
    """Whatever has come of the head."""
    reason = await both(asker.reason(upstream.address), upstream.answer(part, close=True))
    assert reason == "connection closed before it answered"


async def test_a_request_that_does_not_fit_into_the_buffers_is_sent_to_its_end(asker, upstream):
    """What cannot be sent at once follows as the upstream reads."""
    path = "/" + "x" * 8_000_000
    good = b"HTTP/1.1 200 OK\r\n\r\n"
    assert await both(asker.reason(upstream.address, path=path), upstream.answer(good)) == ""


async def test_nothing_is_left_behind(asker, upstream):
    """The connection is reset: no port in TIME-WAIT here, and an upstream in the middle of a body sends no more of it."""
    answering = asyncio.ensure_future(upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbeg"))
    assert await asker.reason(upstream.address) == ""
    end = await answering
    with pytest.raises(ConnectionResetError):
        await asyncio.get_running_loop().sock_recv(end, 1)


async def test_a_check_of_type_tcp_connects_and_no_more(asker, upstream):
    """With `type: tcp` an upstream that accepts is good, without a byte sent; the connection is reset. One that refuses is not."""
    assert await asker.reason(upstream.address, type="tcp") == ""
    end = await upstream.accept()
    with pytest.raises(ConnectionResetError):
        await asyncio.get_running_loop().sock_recv(end, 1)
    upstream.listener.close()
    assert await asker.reason(upstream.address, type="tcp") == os.strerror(errno.ECONNREFUSED).lower()


async def test_what_is_dropped_is_closed_and_told_to_nobody(asker, upstream):
    """Nor is an upstream asked a second time while a question is under way."""
    probe = asker.ask(upstream.address)
    asker.prober.ask(probe)
    assert len(asker.prober) == 1
    end = await upstream.accept()
    asker.prober.drop(probe)
    asker.prober.drop(probe)
    assert len(asker.prober) == 0
    await upstream.request(end)
    assert await asyncio.get_running_loop().sock_recv(end, 1) == b""
    assert asker.told == []


async def test_a_closed_prober_asks_nobody(asker, upstream):
    """What was under way is dropped; closing twice is as good as once."""
    probe = asker.ask(upstream.address)
    asker.prober.close()
    asker.prober.close()
    asker.prober.ask(probe)
    asker.prober.look()
    assert probe.socket is None
    assert asker.told == []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), os.strerror(errno.ECONNREFUSED).lower()),
        (OSError("Path too LONG\nreally"), "path too long"),
        (OSError(), "OSError"),
    ],
)
def test_errors_in_words(error, told):
    """The system's where it has some."""
    assert words(error) == told
