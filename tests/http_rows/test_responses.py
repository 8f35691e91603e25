"""http.md rows 45 to 53, 59, 62 and 63: what upstreams answer, and what they do instead."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing
from email.utils import parsedate_to_datetime

import pytest
from support.dataplane import OK, DataPlane, get, read_head, reset, until
from support.witness import DATED, Witness, before, front, request

from bgproxy.config import schema
from bgproxy.config.loading import load_text
from bgproxy.errors import ConfigError

UNDATED = b"HTTP/1.1 200 OK\r\nServer: mine/1.0\r\nContent-Length: 2\r\n\r\nok"
EARLY = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: 2\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
UPGRADE = get("/", "Connection: Upgrade", "Upgrade: echo")


async def test_row_45_date_is_added_where_there_is_none() -> None:
    """A Date that is there, and Server, are as the upstream wrote them; a missing Server stays missing."""
    async with before(UNDATED) as plane:
        answer = await plane.ask(get())
        assert parsedate_to_datetime(answer.get("date"))
        assert [name for name, _ in answer.headers].count("date") == 1
        assert answer.get("server") == "mine/1.0"
    odd = b"HTTP/1.1 200 OK\r\ndate: yesterday\r\nContent-Length: 2\r\n\r\nok"
    async with before(odd) as plane:
        answer = await plane.ask(get())
        assert answer.raw + answer.body == odd


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", DATED + b"Content-Length: 999\r\n\r\n"),
        ("HEAD", DATED + b"Transfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\nDate: x\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nDate: x\r\nContent-Length: 999\r\n\r\n"),
    ],
)
async def test_row_46_answers_without_a_body(method: str, head: bytes) -> None:
    """HEAD, 204, 304: the head goes on as it is, no body with it, and surplus bytes end the upstream's connection."""
    for surplus in (b"", b"surplus", b"0\r\n\r\n", OK):
        async with before(head + surplus) as plane:
            wire = await plane.connect()
            for number in range(1, 4):
                wire.send(get(method=method))
                answer = await wire.response(head_only=True)
                assert answer.raw == head
                assert plane.upstreams[0].connections == (number if surplus else 1)
            wire.writer.write_eof()
            assert await wire.ended() == b""


async def test_row_47_interim_answers_arrive_in_order() -> None:
    """100 and 103 reach a client of HTTP/1.1 as they came, before the answer; one of HTTP/1.0 gets the answer alone."""
    async with before(EARLY + OK) as plane:
        wire = await plane.connect()
        wire.send(get())
        assert await wire.reader.readexactly(len(EARLY + OK)) == EARLY + OK
        wire.send(get(version="HTTP/1.0"))
        answer = await wire.response()
        assert (answer.status, answer.body) == (200, b"ok")
        assert await wire.ended() == b""


async def test_row_48_expectations() -> None:
    """100-continue is the upstream's to answer, and nobody waits for anybody; another expectation is 417."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"\r\nExpect: 100-continue\r\n" in await read_head(reader)
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await reader.readexactly(5) == b"hello"
        writer.write(OK)
        await reader.read()

    expecting = get("/", "Expect: 100-continue", "Content-Length: 5", method="PUT")
    async with before(script) as plane:
        wire = await plane.connect()
        wire.send(expecting)
        assert (await wire.response()).status == 100
        wire.send(b"hello")
        assert (await wire.response()).body == b"ok"
    # The upstream refuses: no 100, its answer arrives, and the body that was not sent ends the connection.
    early = b"HTTP/1.1 413 Content Too Large\r\nDate: x\r\nContent-Length: 2\r\n\r\nno"
    async with before(early) as plane:
        wire = await plane.connect()
        wire.send(expecting)
        answer = await wire.response()
        assert (answer.status, answer.body, answer.get("connection")) == (413, b"no", "close")
        assert await wire.ended() == b""
    async with front() as shop:
        for value in (b"miracles", b"100-continue, more"):
            await shop.refused(request(b"Expect: " + value), 417)
        sent = await shop.forwarded(
            request(b"Expect: 100-Continue", b"Content-Length: 2", line=b"PUT / HTTP/1.1", body=b"ok")
        )
        assert sent.body == b"ok"


async def test_row_49_a_101_that_nobody_asked_for() -> None:
    """502; the upstream's connection is closed, and the client's is no tunnel."""
    for data in (
        get(),
        get("/", "Upgrade: echo"),
        get("/", "Connection: Upgrade"),
        get("/", "Connection: X", "X: echo"),
    ):
        async with before(SWITCHING + b"evil") as plane:
            wire = await plane.connect()
            wire.send(data)
            answer = await wire.response()
            assert answer.status == 502
            assert b"evil" not in answer.body
            await until(lambda: not plane.context.servers)
            wire.send(get())
            assert (await wire.response()).status == 502


async def test_row_50_an_upgrade_takes_a_101() -> None:
    """The upstream is asked, and its 200 leaves HTTP as it was; a body, h2c or HTTP/1.0 never asks for one."""
    async with front() as shop:
        sent = await shop.forwarded(UPGRADE)
        assert (sent.all(b"connection"), sent.all(b"upgrade")) == ([b"Upgrade"], [b"echo"])
        wire = await shop.plane.connect()
        wire.send(UPGRADE + get("/next"))
        assert [(await wire.response()).body for _ in range(2)] == [b"/", b"/next"]
        asking = (b"Connection: Upgrade", b"Upgrade: echo")
        never = [
            request(*asking, b"Content-Length: 2", line=b"POST / HTTP/1.1", body=b"ok"),
            request(*asking, b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.1", body=b"0\r\n\r\n"),
            request(*asking, line=b"GET / HTTP/1.0"),
            request(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAAA"),
            request(b"Connection: Upgrade", b"Upgrade: echo, h2c"),
            request(b"Connection: Upgrade", b"Upgrade: H2C"),
        ]
        for data in never:
            sent = await shop.forwarded(data)
            assert sent.all(b"connection") == sent.all(b"upgrade") == sent.all(b"http2-settings") == []


async def test_row_51_what_follows_an_upgrade_waits_for_the_101() -> None:
    """Bytes behind the head reach the upstream only once it has switched (CVE-2026-2833)."""
    gate = asyncio.Event()
    seen: list[bytes] = []

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_head(reader))
        await gate.wait()
        writer.write(SWITCHING)
        seen.append(await reader.readexactly(5))
        writer.write(b"heard")
        await reader.read()

    async with before(late) as plane:
        wire = await plane.connect()
        wire.send(UPGRADE + b"early")
        await until(lambda: seen)
        await until(lambda: plane.clients[-1].buffer == b"early")  # it is held here
        assert seen[0].endswith(b"\r\n\r\n")
        gate.set()
        assert (await wire.head()).status == 101
        assert await wire.reader.readexactly(5) == b"heard"
        assert seen[1:] == [b"early"]


async def test_row_52_a_body_that_ends_with_the_connection() -> None:
    """It is chunked for the client, whose connection goes on; one that breaks off has no last chunk and no clean end."""

    async def closing_after(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        writer.write(DATED + b"\r\nuntil the end")
        await writer.drain()
        if b"/broken" in head:
            await until(lambda: begun)
            reset(writer)

    begun: list[int] = []
    async with before(closing_after) as plane:
        wire = await plane.connect()
        for _ in range(2):
            wire.send(get())
            answer = await wire.response()
            assert (answer.get("transfer-encoding"), answer.body) == ("chunked", b"until the end")
            assert answer.get("connection") is None
        wire.send(get("/broken"))
        begun.append((await wire.head()).status)
        assert await wire.ended() in (b"d\r\nuntil the end\r\n", b"")
    for cut in (b"Content-Length: 9\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"):

        async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: bytes = cut) -> None:
            await read_head(reader)
            writer.write(DATED + cut)

        async with before(half) as plane:
            wire = await plane.connect()
            wire.send(get())
            assert (await wire.head()).status == 200
            assert await wire.ended() in (b"half", b"4\r\nhalf\r\n")


async def test_row_53_clients_of_http_1_0() -> None:
    """No chunks for them; the connection ends unless they asked to keep it and the length is known."""
    chunked = DATED + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"
    for response in (chunked, DATED + b"Content-Length: 2\r\n\r\nok"):
        async with before(response) as plane:
            for options in (
                (),
                ("Connection: keep-alive",),
                ("Connection: close",),
                ("Connection: keep-alive, close",),
            ):
                wire = await plane.connect()
                wire.send(get("/", *options, version="HTTP/1.0"))
                answer = await wire.response()
                assert answer.body == b"ok"
                assert answer.get("transfer-encoding") is None
                kept = options == ("Connection: keep-alive",) and response is not chunked
                assert answer.get("connection") == ("keep-alive" if kept else "close")
                if not kept:
                    assert await wire.ended() == b""
                wire.close()


async def test_row_59_no_response_is_split() -> None:
    """CR and LF in an upstream's fields are 502; names that an operator gives are tokens, or the configuration is refused."""
    for line in (b"X: a\rSet-Cookie: b=c", b"X: a\nSet-Cookie: b=c", b"X: a\r", b"X: \n"):
        async with before(DATED + line + b"\r\nContent-Length: 0\r\n\r\n") as plane:
            answer = await plane.ask(get())
            assert answer.status == 502
            assert b"Set-Cookie" not in answer.raw + answer.body
    for wrong in (
        'sessions: {mode: cookie, cookie: "a\\r\\nX: b"}',
        'preview: {header: "X\\nY"}',
        'preview: {cookie: "a;b"}',
    ):
        with pytest.raises(ConfigError) as found:
            load_text(f"pools:\n  blue: {{}}\n  green: {{}}\n{wrong}\n", "here")
        assert any(mistake.line == 4 for mistake in found.value.mistakes), found.value.mistakes


async def test_row_62_an_upstream_that_breaks() -> None:
    """Refused, reset, closed without a word, rubbish: 502 that names the kind, and the client's connection goes on."""

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        if b"/reset" in head:
            reset(writer)
        elif b"/rubbish" in head:
            writer.write(b"hello, this is no HTTP\r\n\r\n")
            await reader.read()
        elif b"/fine" in head:
            writer.write(OK)

    async with before(rude) as plane:
        wire = await plane.connect()
        for target, kind in (
            ("/reset", "connection_terminated"),
            ("/close", "connection_terminated"),
            ("/rubbish", "http_protocol_error"),
        ):
            wire.send(get(target))
            answer = await wire.response()
            assert answer.status == 502
            assert answer.get("proxy-status") == f"bgproxy; error={kind}"
        wire.send(get("/fine"))
        assert (await wire.response()).status == 200
        assert len(plane.failures) == 3
        with closing(socket.socket()) as nobody:
            nobody.bind(("127.0.0.1", 0))
            await plane.serve(nobody.getsockname()[1])
            wire.send(get())
            answer = await wire.response()
        assert (answer.status, answer.get("proxy-status")) == (502, "bgproxy; error=connection_refused")


async def test_row_63_an_upstream_that_is_silent() -> None:
    """No connection, no first byte, no further byte: three time-outs, of which each is told from the others."""
    limits = {"connect": 60.0, "response": 60.0, "stream_idle": 60.0}

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        if b"/half" in head:
            writer.write(DATED + b"Content-Length: 9\r\n\r\nhalf")
        await reader.read()

    async with before(silent, timeouts=schema.Timeouts(**limits | {"response": 0.1})) as plane:
        answer = await plane.ask(get())
        assert (answer.status, answer.get("proxy-status")) == (504, "bgproxy; error=http_response_timeout")
        await until(lambda: not plane.context.servers)
    async with before(silent, timeouts=schema.Timeouts(**limits | {"stream_idle": 0.1})) as plane:
        wire = await plane.connect()
        wire.send(get("/half"))
        assert (await wire.head()).status == 200
        assert await wire.ended() == b"half"
    with closing(socket.socket()) as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        async with DataPlane(timeouts=schema.Timeouts(**limits | {"connect": 0.1})) as plane:
            await plane.serve(full.getsockname()[1])
            answer = await plane.ask(get())
            assert (answer.status, answer.get("proxy-status")) == (504, "bgproxy; error=connection_timeout")
        for filler in fillers:
            filler.close()


async def test_a_witness_that_is_lied_to_says_so() -> None:
    """The strict upstream of these tests does find fault: with what no parser may take."""
    for data in (b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"):
        witness = Witness()
        async with DataPlane() as plane:
            upstream = await plane.upstream(witness.script)
            _, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
            writer.write(data)
            await until(lambda witness=witness: witness.faults)
            writer.close()
        assert witness.requests == []
