"""What an upstream may answer, how it is framed for the client, and what happens when it breaks."""

from __future__ import annotations

import asyncio

import pytest
from support.dataplane import OK, DataPlane, get, read_head, reset, until

from bgproxy.config import schema
from bgproxy.model import connection
from bgproxy.proxy import upstream as upstream_module
from bgproxy.proxy.client_state import SERVER_FULL
from bgproxy.switchboard.layout import code_cell

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_states_are_those_of_the_table() -> None:
    """The constants of the hot path are the members of the enums, so that the table means them."""
    for enum in (connection.ServerState, connection.ServerEvent):
        for member in enum:
            assert getattr(upstream_module, member.name) == member.value


def once(*pieces: bytes | float, close: bool = True):
    """A script: one request is answered piece by piece (each piece a write of its own), then the connection ends."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.005)  # so that pieces travel apart; nothing is waited for
        if not close:
            await reader.read()

    return script


@pytest.mark.parametrize(
    ("response", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", 200, b"old"),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", 200, b"hello"),
        (CHUNKED + b"5;ext=1\r\nhello\r\n0;x\r\n\r\n", 200, b"hello"),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b""),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, b""),
        (b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno", 404, b"no"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 103, b""),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 103, b""),
    ],
)
@pytest.mark.parametrize("split", [False, True])
async def test_answers_arrive_whole(response: bytes, status: int, body: bytes, *, split: bool) -> None:
    """Every framing reaches the client whole, in one piece or byte by byte, and its connection goes on."""
    pieces = [response[at : at + 1] for at in range(len(response))] if split else [response]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)

    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(script))
        wire = await plane.connect()
        wire.send(get())
        answer = await wire.response()
        assert (answer.status, answer.body) == (status, body)
        if status == 103:
            assert (await wire.response()).body == b"x"
        else:
            assert answer.get("date")
        assert answer.get("connection") is None
        await plane.serve(await plane.upstream(OK))
        wire.send(get())
        assert (await wire.response()).body == b"ok"


async def test_head_keeps_its_length_and_has_no_body() -> None:
    """HEAD: the headers of GET, no body, and the connection is in step afterwards."""
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"))
        wire = await plane.connect()
        for _ in range(3):
            wire.send(get(method="HEAD"))
            answer = await wire.response(head_only=True)
            assert answer.get("content-length") == "999"
        assert plane.upstreams[0].connections == 1


@pytest.mark.parametrize(
    "response",
    [
        b"rubbish\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \x00\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 99 X\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"",
    ],
)
async def test_rubbish_is_502(response: bytes) -> None:
    """What is no proper response is answered with 502 and a reason, is reported, and its connection is never reused."""
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(once(response)))
        wire = await plane.connect()
        wire.send(get())
        answer = await wire.response()
        assert answer.status == 502
        assert answer.get("proxy-status").startswith("bgproxy; error=")
        assert len(plane.failures) == 1
        await until(lambda: not plane.context.servers)
        await plane.serve(await plane.upstream(OK))
        wire.send(get())
        assert (await wire.response()).status == 200


@pytest.mark.parametrize(
    ("head", "sent"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", (b"half",)),
        (CHUNKED, (b"4\r\nhalf\r\n",)),
        (CHUNKED, (b"4\r\nhalf\r\n", b"rubbish\r\n")),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n",
            (b"4\r\nhalf\r\n",),
        ),
    ],
)
async def test_a_broken_body_is_cut_short_for_the_client(head: bytes, sent: tuple[bytes, ...]) -> None:
    """An upstream that ends within its body: the client's connection ends too, without a last chunk; and it counts as an error."""
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(once(head, *sent)))
        wire = await plane.connect()
        wire.send(get())
        assert (await wire.head()).status == 200
        rest = await wire.ended()
        assert b"half" in rest
        assert not rest.endswith(b"0\r\n\r\n")
        assert len(plane.failures) == 1
        assert plane.blue.in_flight == [0, 0, 0]
        assert (plane.blue.codes[code_cell(502)], sum(plane.blue.codes)) == (1, 1)


UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize("head", [UNTIL_CLOSE, CHUNKED])
@pytest.mark.parametrize("how", ["broken", "drained", "killed"])
async def test_an_answer_cut_short_is_no_whole_one_for_a_client_of_http_1_0(head: bytes, how: str) -> None:
    """Nothing but the connection's end tells it where the answer ends: so that end is a reset, however it comes about."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(head + (b"4\r\nhalf\r\n" if head == CHUNKED else b"half"))
        await go_on.wait()
        reset(writer)

    go_on = asyncio.Event()
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(script), drain=schema.Drain(requests=0.05, streams=0.05))
        wire = await plane.connect()
        wire.send(get(version="HTTP/1.0"))
        assert (await wire.head()).status == 200
        assert await wire.reader.readexactly(4) == b"half"
        if how == "broken":
            go_on.set()
        elif how == "drained":
            plane.switch(1)
        else:  # nothing of ours has a say in it, as where the process is gone
            plane.clients[0].transport.abort()
        with pytest.raises(ConnectionResetError):
            await wire.ended()
        go_on.set()


@pytest.mark.parametrize(
    ("head", "sent"), [(UNTIL_CLOSE, (b"half", b"half")), (CHUNKED, (b"4\r\nhalf\r\n", b"4\r\nhalf\r\n0\r\n\r\n"))]
)
async def test_a_whole_answer_ends_in_order_for_a_client_of_http_1_0(head: bytes, sent: tuple[bytes, ...]) -> None:
    """No reset behind it, also where it came in pieces and was not read at once."""
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(once(head, *sent)))
        wire = await plane.connect()
        wire.send(get(version="HTTP/1.0"))
        assert (await wire.head()).status == 200
        assert await wire.ended() == b"halfhalf"
        assert plane.failures == []


async def test_a_length_tells_a_client_of_http_1_0_as_much() -> None:
    """Where it has the answer's length, what it got so far may arrive in order."""
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(once(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"half")))
        wire = await plane.connect()
        wire.send(get(version="HTTP/1.0"))
        assert (await wire.head()).status == 200
        assert await wire.ended() == b"half"


async def test_rubbish_at_the_beginning_of_a_body_is_a_502_that_arrives() -> None:
    """Nothing of the answer has been sent: the client of HTTP/1.0 gets an error, and no reset."""
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(CHUNKED + b"rubbish\r\n"))
        wire = await plane.connect()
        wire.send(get(version="HTTP/1.0"))
        assert (await wire.response()).status == 502
        assert await wire.ended() == b""


async def test_surplus_bytes_end_the_upstream_connection() -> None:
    """Bytes behind an answer are nobody's answer: that connection is not used again."""
    async with DataPlane() as plane:
        blue = await plane.upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\nevil")
        await plane.serve(blue)
        wire = await plane.connect()
        for _ in range(3):
            wire.send(get())
            assert (await wire.response()).body == b"ok"
        assert blue.connections == 3


async def test_trailers_pass() -> None:
    """Trailer fields of a chunked answer reach the client; those that may not stand there do not."""
    body = b"1\r\nx\r\n0\r\nX-Sum: 1\r\nContent-Length: 5\r\n\r\n"
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(CHUNKED + body))
        answer = await plane.ask(get())
        assert answer.trailers == [b"X-Sum: 1"]


async def test_uploads_stream_and_are_counted_whole() -> None:
    """Bodies of known length and chunked ones reach the upstream as they were sent."""
    seen: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"chunked" in head:
                body = await reader.readuntil(b"0\r\n\r\n")
            else:
                body = await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            seen.append(body)
            writer.write(OK)

    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(script))
        wire = await plane.connect()
        wire.send(get("/", "Content-Length: 1000000", method="POST") + b"a" * 1_000_000)
        assert (await wire.response()).status == 200
        wire.send(get("/", "Transfer-Encoding: Chunked", method="POST") + b"3;a=b\r\nabc\r\n0\r\n\r\n")
        assert (await wire.response()).status == 200
        assert seen == [b"a" * 1_000_000, b"3\r\nabc\r\n0\r\n\r\n"]


async def test_expect_100_continue_is_the_upstreams_to_answer() -> None:
    """The expectation goes on; the 100 comes back, then the body goes, then the answer comes."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        assert b"Expect: 100-continue" in head
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await reader.readexactly(4) == b"body"
        writer.write(OK)
        await reader.read()

    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(script))
        wire = await plane.connect()
        wire.send(get("/", "Content-Length: 4", "Expect: 100-continue", method="PUT"))
        assert (await wire.response()).status == 100
        wire.send(b"body")
        assert (await wire.response()).status == 200


async def test_an_early_answer_is_delivered_and_the_connection_ends() -> None:
    """An upstream that answers before the body is sent: the client gets that answer, and no second request."""
    early = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno"
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(once(early, close=False)))
        wire = await plane.connect()
        wire.send(get("/", "Content-Length: 1000000", method="POST") + b"a" * 1000)
        answer = await wire.response()
        assert answer.status == 413
        assert answer.get("connection") == "close"
        wire.send(b"a" * 5000)
        assert await wire.ended() == b""


async def test_a_silent_upstream_is_504() -> None:
    """No head within `timeouts.response`: 504, the upstream's connection is closed, its failure is reported."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with DataPlane(timeouts=schema.Timeouts(response=0.1)) as plane:
        await plane.serve(await plane.upstream(silent))
        wire = await plane.connect()
        wire.send(get())
        answer = await wire.response()
        assert answer.status == 504
        assert "http_response_timeout" in answer.get("proxy-status")
        assert plane.blue.in_flight == [0, 0, 0]
        assert plane.failures[0][1] == "no answer within 0.1s"
        await until(lambda: not plane.context.servers)


@pytest.mark.parametrize(("kind", "code"), [(b"text/html", 502), (b"text/event-stream", 200)])
async def test_a_stalled_stream_is_cut(kind: bytes, code: int) -> None:
    """A stream without a byte for `stream_idle` ends: an error, but where no event has come for so long."""
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: " + kind + b"\r\n\r\n")
    async with DataPlane(timeouts=schema.Timeouts(stream_idle=0.1)) as plane:
        await plane.serve(await plane.upstream(once(head, b"1\r\nx\r\n", close=False)))
        wire = await plane.connect()
        wire.send(get())
        assert (await wire.head()).status == 200
        assert await wire.ended() == b"1\r\nx\r\n"
        assert (plane.blue.codes[code_cell(code)], sum(plane.blue.codes)) == (1, 1)


async def test_an_idle_upstream_connection_is_closed() -> None:
    """Unused connections to an upstream are kept for `upstream_idle`."""
    async with DataPlane(timeouts=schema.Timeouts(upstream_idle=0.1)) as plane:
        await plane.serve(await plane.upstream(OK))
        await plane.ask(get())
        assert len(plane.context.servers) == 1
        await until(lambda: not plane.context.servers)
        assert plane.blue.upstreams[0].idle == []


async def test_a_client_that_does_not_read_pauses_its_upstream() -> None:
    """What an upstream sends to a client that does not read stays with the upstream, but for a bounded rest."""
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(endless))
        reader, writer = await asyncio.open_connection("127.0.0.1", plane.port, limit=4096)
        writer.write(get())
        await until(lambda: plane.clients and plane.clients[0].write_paused)
        client = plane.clients[0]
        assert client.transport.get_write_buffer_size() < 1 << 20
        before = sent
        await reader.readexactly(1 << 22)
        await until(lambda: sent > before)
        writer.close()
        await until(lambda: not plane.context.servers)
        assert plane.blue.in_flight == [0, 0, 0]


async def test_an_upstream_that_does_not_read_pauses_its_client() -> None:
    """An upload to an upstream that does not read is not gathered in memory."""
    gate = asyncio.Event()
    got = 0

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        await read_head(reader)
        await gate.wait()
        while got < 50_000_000 and (data := await reader.read(1 << 20)):
            got += len(data)
        writer.write(OK)
        await reader.read()

    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(late))
        wire = await plane.connect()
        wire.send(get("/", "Content-Length: 50000000", method="POST"))
        wire.send(b"a" * 50_000_000)
        # It is paused while the connection is made, too: what is meant is the pause when something waits to be written.
        await until(lambda: any(server.transport.get_write_buffer_size() for server in plane.context.servers))
        await until(lambda: plane.clients[0].paused)
        (server,) = plane.context.servers
        assert server.transport.get_write_buffer_size() < 1 << 20
        gate.set()
        assert (await wire.response()).status == 200
        assert got == 50_000_000


async def test_unix_sockets(tmp_path) -> None:
    """An upstream may be a Unix socket."""
    from bgproxy.model.snapshot import UpstreamSpec

    path = str(tmp_path / "app.sock")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(OK)
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    async with DataPlane() as plane:
        await plane.serve(UpstreamSpec("unix:" + path, 0, "unix://" + path, path, usable=True))
        assert (await plane.ask(get())).status == 200
    server.close()


async def test_an_answer_in_one_piece_goes_the_way_of_the_table() -> None:
    """Its short cut from waiting to idle is what a head and an end of an answer make of it."""
    answering = connection.SERVER_STEPS[upstream_module.HEAD * 6 + upstream_module.WAITING]
    assert connection.SERVER_STEPS[upstream_module.ANSWERED * 6 + answering] == upstream_module.IDLE


@pytest.mark.parametrize("whose", [b"", b"Strict-Transport-Security: max-age=5\r\n"])
async def test_an_upstreams_own_hsts_replaces_ours_and_nothing_else(whose: bytes) -> None:
    """The listener's line is for answers without one; what else we add stays beside either."""
    response = b"HTTP/1.1 200 OK\r\n" + whose + b"Content-Length: 2\r\n\r\nok"
    async with DataPlane() as plane:
        plane.listener.hsts = b"Strict-Transport-Security: max-age=9\r\n"
        await plane.serve(await plane.upstream(response), expose_pool=True)
        wire = await plane.connect()
        for _ in range(2):
            wire.send(get())
            answer = await wire.response()
            lines = [value for name, value in answer.headers if name == "strict-transport-security"]
            assert lines == ["max-age=5" if whose else "max-age=9"]
            assert answer.get("x-bgproxy-pool") == "blue"


async def test_rubbish_from_an_upstream_that_reads_nothing_leaves_no_connection() -> None:
    """Its connection ends though it does not take what was written, and it is blamed once."""
    gate = asyncio.Event()

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        full = 0
        while full < 50:  # until the kernel, too, takes no more
            full = full + 1 if plane.clients[0].paused == SERVER_FULL else 0
            await asyncio.sleep(0.002)
        writer.write(b"RUBBISH\r\n\r\n")
        await gate.wait()

    async with DataPlane(timeouts=schema.Timeouts(stream_idle=0.3)) as plane:
        await plane.serve(await plane.upstream(rude))
        wire = await plane.connect()
        wire.send(get("/", "Content-Length: 50000000", method="PUT") + bytes(50_000_000))
        assert (await wire.response()).status == 502
        await until(lambda: not plane.context.servers)
        gate.set()
        assert len(plane.failures) == 1


async def test_an_upstream_is_not_timed_while_nobody_reads_it() -> None:
    """Its time for an answer begins anew once the client reads again."""
    gate = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await gate.wait()
        writer.write(OK)

    async with DataPlane(timeouts=schema.Timeouts(response=0.1)) as plane:
        await plane.serve(await plane.upstream(slow))
        wire = await plane.connect()
        wire.send(get())
        await until(lambda: plane.clients and plane.clients[0].exchange and plane.clients[0].exchange.server)
        (client,) = plane.clients
        (server,) = plane.context.servers
        client.pause_writing()  # as after many interim responses
        assert server.deadline == 0.0
        client.resume_writing()
        assert 0.0 < server.deadline <= plane.context.now + 0.1
        gate.set()
        assert (await wire.response()).status == 200
        assert plane.failures == []
