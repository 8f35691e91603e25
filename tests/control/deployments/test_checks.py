"""The declarative checks: each thing that may be expected, kept to and broken, and how that is told."""

from __future__ import annotations

import asyncio
import struct
import time
import tracemalloc
from socket import SO_LINGER, SOL_SOCKET

import pytest
from support.backends import Backend, Request
from support.deployments import make_run, upstreams_of

from bgproxy.config.schema import Check, Expect
from bgproxy.control.deployments.caller import Answer, Caller
from bgproxy.control.deployments.checks import expectation, judge, request_check, same


def answer(body: bytes = b"", status: int = 200, seconds: float = 0.1, cut: bool = False, **headers: str) -> Answer:
    fields = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Answer(seconds=seconds, status=status, headers=fields, body=body, cut=cut)


JSON = b'{"total": 3, "name": "cart", "ok": true, "none": null, "items": [{"id": 1}, {"id": 1}], "price": 1.50, "a": [1, 2]}'


@pytest.mark.parametrize(
    ("expect", "came", "found"),
    [
        ({}, answer(), None),
        ({}, answer(status=302), "status 302"),
        ({}, answer(b"<h1>Oh no</h1>\r\n", status=500), "status 500: <h1>Oh no</h1>"),
        ({"status": "200,302"}, answer(status=302), None),
        ({}, Answer(seconds=10, reason="timed out after 10s", kind="timed out"), "timed out after 10s"),
        ({"headers": {"Cache-Control": "no-store"}}, answer(cache_control="no-store"), None),
        ({"headers": {"Cache-Control": "no-store"}}, answer(cache_control="public"), "Cache-Control: public"),
        ({"headers": {"X-Version": "2"}}, answer(), "no X-Version"),
        ({"body_contains": "total"}, answer(b"the total is"), None),
        ({"body_contains": "total"}, answer(b"nothing"), "a body of 7 bytes: nothing"),
        ({"body_contains": "total"}, answer(), "a body of 0 bytes"),
        (
            {"body_contains": "total"},
            answer(b"x" * 9, cut=True),
            "a body of more than 9 bytes, of which no more is read",
        ),
        ({"body_contains": "total"}, answer(b"\x1f\x8b", content_encoding="gzip"), "a body that is coded (gzip)"),
        ({"body_contains": "grün"}, answer("grün".encode("latin-1"), content_type="text/plain; charset=latin-1"), None),
        ({"body_contains": "grün"}, answer("grün".encode()), None),
        ({"body_contains": "grün"}, answer("grün".encode(), content_type="text/plain; charset=nonsense"), None),
        ({"within": 0.3}, answer(seconds=0.3), None),
        ({"within": 0.3}, answer(seconds=0.412), "it took 412ms"),
        ({"json": {"$.total": "3"}}, answer(JSON), None),
        ({"json": {"$.total": "4"}}, answer(JSON), "$.total = 3"),
        ({"json": {"$.name": "cart"}}, answer(JSON), None),
        ({"json": {"$.ok": "true", "$.none": "null", "$.price": "1.5", "$.a": "[1, 2]"}}, answer(JSON), None),
        ({"json": {"$.ok": "1"}}, answer(JSON), "$.ok = true"),
        ({"json": {"$.items[*].id": "1"}}, answer(JSON), None),
        ({"json": {"$.a[*]": "1"}}, answer(JSON), "$.a[*] = 2"),
        ({"json": {"$.b.c": "1"}}, answer(b"{}"), "there is no $.b.c in {}"),
        ({"json": {"$.a": "1"}}, answer(b"<html>"), "a body of 6 bytes: <html>"),
        ({"json": {"$.a": "1"}}, answer(b"[" * 100_000), "a body of 100000 bytes: [[["),
        ({"json": {"$[0]": "1"}}, answer(b"[" * 900 + b"]" * 900), "$[0] = "),
        ({"json": {"$": "[" * 900 + "]" * 900}}, answer(b"[" * 901 + b"]" * 901), "$ = "),
        ({"json": {"$.a": "1"}}, answer(b'{"a": NaN}'), "$.a = NaN"),
        ({"json": {"$.a": "1"}}, answer(b'{"a": "\\ud800\\u001b"}'), '$.a = "'),
        ({"json": {"$.a": "1"}}, answer(b'{"a": ' + b"1" * 5000 + b"}"), "a body of 5007 bytes"),
        ({"json": {"$.a": "1"}}, answer(b'{"a": "\xff"}'), "a body of 10 bytes"),
        ({"json": {"$.a": "1"}}, answer(b'\xef\xbb\xbf{"a": 1}'), None),
        ({"json": {"$.a": "1"}}, answer(b""), "a body of 0 bytes"),
    ],
)
def test_what_an_answer_must_be(expect, came, found):
    """What holds is passed over; of what does not, it is told what came."""
    misses = judge(Expect(**expect), came)
    if found is None:
        assert misses == []
    else:
        assert misses[0].found.startswith(found)
        assert len(misses[0].found) < 300


def test_everything_that_does_not_hold_is_told():
    """Not only the first of it; what was expected is beside what came."""
    expect = Expect(status="201", headers={"X-A": "b"}, body_contains="x", json={"$.total": "4"}, within=0.05)
    assert [tuple(miss) for miss in judge(expect, answer(JSON))][1:] == [
        ("X-A: b", "no X-A"),
        ("a body with 'x'", f"a body of {len(JSON)} bytes: {JSON.decode()}"),
        ("$.total = 4", "$.total = 3"),
        ("an answer within 50ms", "it took 100ms"),
    ]
    assert expectation(expect) == "status 201, X-A: b, a body with 'x', $.total = 4, within 50ms"


@pytest.mark.parametrize(
    "charset",
    [
        "idna",
        "punycode",
        "undefined",
        "unicode_escape",
        "raw_unicode_escape",
        "utf-7",
        "hex",
        "mbcs",
        "\xff",
        "a" * 5000,
        "utf-8;",
    ],
)
def test_no_charset_breaks_a_check_or_keeps_it_busy(charset):
    """Python knows charsets that cannot read everything, or take quadratic time; an upstream may name any."""
    body = b"grave-accent-" + b"a9" * 100_000 + b"\xff\\N{x} total"
    began = time.process_time()
    came = answer(body, content_type=f"text/html; charset={charset}")
    assert judge(Expect(body_contains="total"), came) == []
    assert judge(Expect(body_contains="nothing"), came)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("wanted", "value", "equal"),
    [
        ("1", 1, True),
        ("1", "1", True),
        ("1.0", 1, True),
        ("1", True, False),
        ("true", True, True),
        ("True", True, False),
        ("null", None, True),
        ("", "", True),
        ("", None, False),
        ('"a"', "a", True),
        ('{"b": 1, "a": [2]}', {"a": [2], "b": 1}, True),
        ('{"b": true}', {"b": 1}, False),
        ("abc", ["abc"], False),
        ("[" * 5000, [], False),
        ("1e400", 1e400, True),
    ],
)
def test_values_of_json(wanted, value, equal):
    """Text is meant as it stands, and everything else as JSON writes it."""
    assert same(wanted, value) is equal


async def checked(run, **check):
    caller = Caller(run.service, run.idle)
    told = []
    try:
        result = await request_check(caller, caller.upstreams(), Check(name="cart", **check), tell=told.append)
    finally:
        caller.close()
    return result, told


async def test_every_upstream_is_asked():
    """The request as it is written, of each; one that passes says how long it took."""
    with Backend("green") as one, Backend("green") as two:
        run = make_run(one.url, two.url)
        result, told = await checked(run, request="POST /cart?x=1", headers={"X-A": "b"}, body="hello")
        for backend in (one, two):
            (request,) = backend.requests
            assert (request.method, request.target, request.header("X-A")) == ("POST", "/cart?x=1", "b")
            assert request.header("Content-Length") == "5"
    assert (result.stage, result.name, result.ok, result.details) == ("verifying", "cart", True, ())
    assert result.found.startswith("as expected of all 2 upstreams, after ")
    assert told == [1, 2]


async def test_the_upstream_that_failed_is_named():
    """The first of them in the result, the others behind it."""
    with Backend("green") as one, Backend("green") as two, Backend("green") as three:
        run = make_run(one.url, two.url, three.url)
        for bad in (two, three):
            bad.script("/cart", b"HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\noops")
        result, _ = await checked(run, request="GET /cart")
    assert not result.ok
    assert result.found == f"127.0.0.1:{two.port}: status 500: oops"
    assert result.expected == "status 200-299"
    assert result.details == (f"127.0.0.1:{three.port}: status 500: oops; expected status 200-299",)


async def test_a_time_out_of_its_own():
    """An upstream that hangs holds up the check so long, and no longer."""
    with Backend("green") as backend:
        result, _ = await checked(make_run(backend.url), request="GET /silent", timeout=0.1)
    assert (result.ok, result.found) == (False, f"127.0.0.1:{backend.port}: timed out after 100ms")
    assert 0.1 <= result.seconds < 2


MiB = 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\n"


def _for_ever(piece: bytes, before: bytes = b"", pause: float = 0.0):
    def handler(backend: Backend, request: Request) -> None:
        request.send(before)
        while not backend.gate.wait(pause):
            request.send(piece)

    return handler


def _reset(before: bytes):
    def handler(_: Backend, request: Request) -> None:
        request.send(before)
        request.sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        request.keep = False

    return handler


def _slowly(_: Backend, request: Request) -> None:
    for byte in OK + b"Content-Length: 5\r\n\r\ntotal":
        request.send(bytes([byte]))
        time.sleep(0.004)


@pytest.mark.parametrize(
    ("handler", "found"),
    [
        (_slowly, "it took "),
        (_for_ever(b"a", OK + b"Content-Length: 50000\r\n\r\n", 0.02), "timed out after 400ms"),
        (_for_ever(b"a", OK + b"A: ", 0.02), "timed out after 400ms"),
        (_for_ever(b"A: " + b"b" * 1000 + b"\r\n", OK), "a head of more than 65536 bytes"),
        (_for_ever(b"HTTP/1.1 100 \r\n\r\n" * 1000), "too many interim responses"),
        (_for_ever(b"x" * MiB, OK + b"Content-Length: %d\r\n\r\n" % (1024 * MiB)), "a body of more than 1048576 bytes"),
        (_for_ever(b"x" * MiB, OK + b"\r\n"), "a body of more than 1048576 bytes"),
        (_for_ever(b"", OK + b"\r\ntotal", 0.1), "timed out after 400ms"),
        (_reset(OK + b"Content-Length: 9\r\n\r\ntotal"), "the answer broke off after "),
        (_reset(OK + b"\r\ntotal"), "the answer broke off after 5 bytes of its body: connection reset"),
        (_reset(b""), "the connection was closed before it answered: connection reset"),
        (
            _for_ever(b"", b"HTTP/1.1 101 x\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 0.1),
            "it switched protocols unasked",
        ),
        (_for_ever(b"", b"HTTP/1.1 302 x\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n", 0.1), "status 302"),
    ],
    ids=[
        *(
            "slowly",
            "a body that drips",
            "a head that drips",
            "an endless head",
            "interim answers",
            "a gibibyte",
            "no end",
        ),
        *("it never closes", "reset", "reset without a length", "reset at once", "101", "a redirect"),
    ],
)
async def test_whatever_an_upstream_does_a_check_ends(handler, found):
    """In its time, with the reason, and with a mebibyte of the answer at the most; `within` is about the whole of it."""
    with Backend("green") as backend:
        backend.on("/cart", handler)
        check = {"request": "GET /cart", "expect": Expect(body_contains="total", within=0.1), "timeout": 0.4}
        run = make_run(backend.url)
        tracemalloc.start()
        try:
            result, _ = await checked(run, **check)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            backend.release()
    assert not result.ok
    assert result.seconds < 2
    assert any(found in line for line in (result.found, *result.details)), result
    assert most < 12 * MiB


async def test_bodies_are_not_gathered():
    """Of many upstreams, each is judged as it answers, and what it has said is forgotten."""

    class Full:
        async def ask(self, *_, **__):
            await asyncio.sleep(0)
            return answer(bytes(MiB))

    upstreams = upstreams_of(*(f"http://127.0.0.{number}:1" for number in range(1, 61)))
    tracemalloc.start()
    try:
        result = await request_check(Full(), upstreams, Check(name="cart", request="GET /cart"))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.ok
    assert most < 20 * MiB


async def test_a_great_many_upstreams_that_fail_are_not_all_told():
    """What is kept on the disk has a bound."""
    with Backend("green") as backend:
        backend.refuse()
        run = make_run(*(f"http://127.0.0.{number}:{backend.port}" for number in range(1, 40)))
        result, told = await checked(run, request="GET /")
    assert not result.ok
    assert len(result.details) == 20
    assert told == list(range(1, 40))
