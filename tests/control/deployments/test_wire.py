"""One connection to an upstream: framing, how it breaks, and what is left of it afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import pytest
from support.backends import Backend

from bgproxy.control.deployments.wire import MAX_HEAD, Unanswered, Way, Wire
from bgproxy.http1.names import NameTable
from bgproxy.model.snapshot import TlsSpec

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def backend():
    with Backend("green") as backend:
        yield backend


async def opened(backend: Backend) -> Wire:
    wire = Wire(Way(backend.url, ("127.0.0.1", backend.port), "a"), NameTable())
    await wire.open()
    return wire


@contextlib.asynccontextmanager
async def asked(backend: Backend, *pieces: bytes, close: bool = False, **options):
    backend.script("/x", *pieces, close=close)
    wire = await opened(backend)
    try:
        async with asyncio.timeout(5):
            yield await wire.ask(GET, **{"keep": 1000} | options), wire
    finally:
        wire.close()


@pytest.mark.parametrize(
    ("pieces", "close", "body", "again"),
    [
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",), False, b"ok", True),
        ((b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 2\r\n\r", b"\no", b"k"), False, b"ok", True),
        (
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1", b"\r\nk\r\n0\r\n\r\n"),
            False,
            b"ok",
            True,
        ),
        ((b"HTTP/1.1 200 OK\r\n\r\no", b"k"), True, b"ok", False),
        ((b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",), False, b"ok", False),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",), False, b"ok", False),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokrubbish",), False, b"ok", False),
        ((b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n",), False, b"", True),
        ((b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",), False, b"", True),
    ],
    ids=["length", "in pieces", "chunked", "until the end", "1.0", "close", "more than it said", "interim", "304"],
)
async def test_framing(backend, pieces, close, body, again):
    """A body ends where RFC 9112 section 6.3 says, and the connection is kept only where that leaves it clean."""
    async with asked(backend, *pieces, close=close) as (reply, wire):
        assert (reply.body, reply.cut, wire.reusable) == (body, False, again)


async def test_a_head_has_no_body(backend):
    """The length in an answer to HEAD is of what would have come."""
    async with asked(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", head_only=True) as (reply, wire):
        assert (reply.status, reply.body, wire.reusable) == (200, b"", True)


async def test_fields_are_told_as_they_came(backend):
    """In their order, those that stand twice too, without the white space around them."""
    head = b"HTTP/1.1 302 Found\r\nLocation: /y \r\nSet-Cookie: a=1\r\nSet-Cookie:b=2\r\nContent-Length: 0\r\n\r\n"
    async with asked(backend, head) as (reply, _):
        fields = (("Location", "/y"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Content-Length", "0"))
        assert (reply.status, reply.fields) == (302, fields)


@pytest.mark.parametrize("whole", [True, False], ids=["read to the end", "ended there"])
async def test_a_body_is_kept_up_to_a_bound(backend, whole):
    """What is beyond is dropped: the rest is read, and the connection kept, only if that is wanted."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300000
    async with asked(backend, answer, keep=10, whole=whole) as (reply, wire):
        assert (reply.body, reply.cut, wire.reusable) == (b"x" * 10, True, whole)


@pytest.mark.parametrize(
    ("pieces", "kind", "reason"),
    [
        ((b"SSH-2.0-x\r\n",), "rubbish", "not an HTTP answer: not an HTTP/1 status line"),
        (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",),
            "rubbish",
            "Content-Length is not one",
        ),
        ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",), "rubbish", "not hexadecimal"),
        ((b"HTTP/1.1 200 OK\r\nA: " + b"b" * MAX_HEAD,), "rubbish", "a head of more than"),
        ((b"HTTP/1.1 200 OK\r\n",), "reset", "the answer broke off within its head"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",), "reset", "broke off after 3 bytes of its body"),
        ((), "reset", "the connection was closed before it answered"),
    ],
    ids=["another protocol", "two lengths", "chunk size", "endless head", "half a head", "half a body", "nothing"],
)
async def test_what_is_no_answer(backend, pieces, kind, reason):
    """It is told in a word and in a sentence, and the connection is over."""
    with pytest.raises(Unanswered) as caught:
        async with asked(backend, *pieces, close=True):
            pass
    assert caught.value.kind == kind
    assert reason in str(caught.value)


async def test_a_kept_connection_that_was_closed_is_told_apart(backend):
    """The upstream closed it while it idled: asking anew is no second try."""
    async with asked(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (_, wire):
        backend.script("/x", close=True)
        with pytest.raises(Unanswered) as caught:
            await wire.ask(GET)
        assert not caught.value.fresh


async def test_who_cancels_a_question_closes_the_connection(backend):
    """What would still come must not pass for the answer to another question."""
    wire = await opened(backend)
    question = asyncio.ensure_future(wire.ask(b"GET /silent HTTP/1.1\r\nHost: a\r\n\r\n"))
    await asyncio.sleep(0)
    question.cancel()
    with pytest.raises(asyncio.CancelledError):
        await question
    assert not wire.reusable
    with pytest.raises(Unanswered):
        await wire.ask(GET)


async def test_bytes_that_nobody_asked_for_end_it(backend):
    """Such as the 408 that a server sends to a connection that idles."""
    async with asked(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (_, wire):
        wire.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        assert not wire.reusable


async def test_an_empty_line_too_many_behind_an_interim_answer(backend):
    """As in live traffic, where it is passed over once, wherever the pieces are cut."""
    pieces = (b"HTTP/1.1 100 Continue\r\n\r\n\r", b"\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    async with asked(backend, *pieces) as (reply, wire):
        assert (reply.status, reply.body, wire.reusable) == (200, b"ok", True)
    with pytest.raises(Unanswered, match="not an HTTP answer"):
        async with asked(backend, pieces[0], b"\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"):
            pass


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 100 \r\n\r\n" * 100_000, "too many interim responses"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * (MAX_HEAD + 1) + b"\r\n\r\n", "a head of more than"),
        (b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "it switched protocols unasked"),
        (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", "a bare LF in the header"),
    ],
    ids=["1xx for ever", "a whole head that is too long", "101", "bare LF"],
)
async def test_what_live_traffic_would_not_get_is_no_answer(backend, answer, reason):
    """Told at once: neither more bytes nor the end of the connection are waited for, and no time is lost on them."""
    began = time.process_time()
    with pytest.raises(Unanswered, match=reason) as caught:
        async with asked(backend, answer):
            pass
    assert caught.value.kind == "rubbish"
    assert time.process_time() - began < 0.5


async def test_a_name_that_no_certificate_can_have():
    """It is told as what it is; nothing breaks on it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        wire = Wire(Way("x", server.getsockname(), "a", tls=TlsSpec(), server_name=".a"), NameTable())
        with pytest.raises(Unanswered) as caught:
            await wire.open()
    assert caught.value.kind == "other"
