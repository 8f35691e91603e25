"""http.md rows 54 to 58, 60, 61, 64 and 65: the order of answers, and how connections end."""

from __future__ import annotations

import asyncio
import signal
import socket

import pytest
from support.backends import Backend
from support.dataplane import OK, DataPlane, get, pool_spec, read_head, reset, until
from support.http import Client
from support.waiting import eventually
from support.witness import DATED, before, front, request
from support.worker_process import WorkerProcess
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve as serve_websockets
from websockets.exceptions import ConnectionClosed

from bgproxy.config import schema
from bgproxy.model.snapshot import ServiceSpec
from bgproxy.proxy.exchange import KEEP_FOR_RETRY
from bgproxy.switchboard.layout import code_cell


async def test_row_54_answers_come_in_the_order_of_the_requests() -> None:
    """Whatever was sent ahead; a bad request is refused after the answers to those before it, and the rest is not read."""
    requests = [
        get("/0"),
        get("/1", "Content-Length: 5", method="POST") + b"GET /",
        get("/2", method="HEAD"),
        get("/3", "Transfer-Encoding: chunked", method="PUT") + b"5\r\nGET /\r\n0\r\n\r\n",
        b"\r\n" + get("/4"),
    ]
    async with front() as shop:
        wire = await shop.plane.connect()
        wire.send(b"".join(requests) + b"BAD\r\n\r\n" + get("/evil"))
        for number in range(5):
            answer = await wire.response(head_only=number == 2)
            assert answer.body == (b"" if number == 2 else b"/%d" % number)
        answer = await wire.response()
        assert (answer.status, answer.get("connection")) == (400, "close")
        assert await wire.ended() == b""
        assert [sent.start[1] for sent in shop.witness.requests] == [b"/0", b"/1", b"/2", b"/3", b"/4"]


async def test_row_55_a_body_that_nobody_read_is_no_request() -> None:
    """An answer before the body has come: the rest of the body is read into the void, and the connection ends."""
    early = b"HTTP/1.1 403 Forbidden\r\nDate: x\r\nContent-Length: 2\r\n\r\nno"
    seen: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_head(reader))
        writer.write(early)
        while data := await reader.read(65536):
            seen.append(data)

    async with before(script) as plane:
        wire = await plane.connect()
        wire.send(get("/", "Content-Length: 100000", method="POST"))
        answer = await wire.response()
        assert (answer.status, answer.get("connection")) == (403, "close")
        wire.send(get("/smuggled").ljust(100000) + get("/smuggled"))
        assert await wire.ended() == b""
        await until(lambda: not plane.context.servers)
        assert not any(b"smuggled" in data for data in seen)
        assert plane.upstreams[0].connections == 1
    # The same where bgproxy itself is the one who answers early.
    async with DataPlane() as plane:
        await plane.serve()
        wire = await plane.connect()
        wire.send(get("/", "Content-Length: 40", method="POST") + get("/smuggled"))
        answer = await wire.response()
        assert (answer.status, answer.get("connection")) == (503, "close")
        assert await wire.ended() == b""
        assert plane.blue.codes[code_cell(503)] == 1


async def test_row_56_a_request_is_repeated_once_and_only_where_that_is_safe() -> None:
    """A kept connection that ends unanswered: once more if idempotent, with a body that is still there; else 502."""
    seen: list[bytes] = []

    async def flaky(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request, or the head of one, on each connection."""
        for number in (1, 2):
            head = await read_head(reader)
            method = head.split()[0]
            seen.append(method)
            if b"Content-Length" in head:
                await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))
            if number == 2:
                if b"/begun" in head:
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    await writer.drain()
                return
            writer.write(OK)

    large = KEEP_FOR_RETRY + 1
    cases = [
        (get(), 200, 2),
        (get(method="HEAD"), 200, 2),
        (get(method="DELETE"), 200, 2),
        (get("/", "Content-Length: 3", method="PUT") + b"abc", 200, 2),
        (get("/", f"Content-Length: {large}", method="PUT") + b"a" * large, 502, 1),
        (get("/", "Content-Length: 3", method="POST") + b"abc", 502, 1),
        (get(method="POST"), 502, 1),
        (get(method="PATCH"), 502, 1),
        (get(method="BREW"), 502, 1),
        (get("/begun"), 502, 1),
    ]
    for data, status, tries in cases:
        seen.clear()
        async with before(flaky) as plane:
            wire = await plane.connect()
            wire.send(get("/first"))
            assert (await wire.response()).status == 200
            wire.send(data)
            answer = await wire.response(head_only=data.startswith(b"HEAD"))
            if answer.status == 100:
                answer = await wire.response()
            assert answer.status == status, data[:40]
            assert seen == [b"GET", *[data.split()[0]] * tries]


async def test_row_56_no_more_than_once() -> None:
    """The repeated request is not repeated; one on a fresh connection is not either."""
    heads: list[bytes] = []

    async def dying(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_head(reader))
        if b"/first" in heads[-1]:
            writer.write(OK)
            heads.append(await read_head(reader))

    async with before(dying) as plane:
        wire = await plane.connect()
        wire.send(get("/first"))
        assert (await wire.response()).status == 200
        wire.send(get("/again"))
        assert (await wire.response()).status == 502
        assert len(heads) == 3
        wire.send(get("/fresh"))
        assert (await wire.response()).status == 502
        assert len(heads) == 4


async def test_row_57_a_half_close_cancels_nothing() -> None:
    """A client that sends no more reads its whole answer, and then the end."""
    gate = asyncio.Event()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await gate.wait()
        writer.write(DATED + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        await writer.drain()
        writer.write(b"0\r\n\r\n")
        await reader.read()

    async with before(late) as plane:
        wire = await plane.connect()
        wire.send(get())
        wire.writer.write_eof()
        await until(lambda: plane.clients[0].eof)
        gate.set()
        assert (await wire.response()).body == b"ok"
        assert await wire.ended() == b""
        assert plane.blue.codes[code_cell(200)] == 1


@pytest.mark.parametrize("way", ["reset", "closed, found out by sending", "within its request"])
async def test_row_57_a_client_that_has_gone_ends_its_request(way: str) -> None:
    """At a reset at once; after a close as soon as something is sent to it; within its request at once: 499."""
    seen: list[bytes] = []

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_head(reader))
        if way.startswith("closed"):
            await until(lambda: plane.clients[0].eof)
            writer.write(DATED + b"Content-Length: 1000000000\r\n\r\n")
            while not writer.transport.is_closing():
                writer.write(b"x" * 65536)
                await writer.drain()
        seen.append(await reader.read())

    async with before(endless) as plane:
        wire = await plane.connect()
        wire.send(get("/", "Content-Length: 5", method="POST") if way.startswith("within") else get())
        await until(lambda: seen)
        reset(wire.writer) if way == "reset" else wire.close()
        await until(lambda: not plane.context.servers)
        assert plane.blue.in_flight == [0, 0, 0]
        assert plane.blue.codes[code_cell(200 if way.startswith("closed") else 499)] == 1
        await until(lambda: not plane.context.clients)


async def test_row_58_an_error_arrives_though_the_client_is_still_sending() -> None:
    """After an error of our own the connection is read on: no reset overtakes the answer."""
    async with front() as shop:
        reader, writer = await asyncio.open_connection("127.0.0.1", shop.plane.port)
        writer.write(request(b"Content-Length: 9999999", b"Content-Length: 1", line=b"POST / HTTP/1.1"))
        for _ in range(40):  # what was on its way when the answer was sent
            writer.write(b"a" * 65536)
            await writer.drain()
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 400 ")  # a reset would raise
        writer.close()
        assert shop.witness.requests == []


async def test_row_60_a_head_that_comes_too_slowly() -> None:
    """408, and the connection ends; what trickles in meanwhile buys no time."""
    async with front(timeouts=schema.Timeouts(header=0.2)) as shop:
        wire = await shop.plane.connect()
        reading = asyncio.ensure_future(wire.response())
        for byte in b"GET / HTTP/1.1\r\nHost: " + b"a" * 1000:
            wire.send(bytes([byte]))
            if reading.done():
                break
            await asyncio.sleep(0.02)
        answer = await reading
        assert (answer.status, answer.get("connection")) == (408, "close")
        assert await wire.ended() == b""
        await shop.serves_on()


async def test_row_61_a_body_that_comes_too_slowly() -> None:
    """One that pauses for `timeouts.stream_idle`: 408, and the connection ends, at the upstream too."""
    async with front(timeouts=schema.Timeouts(stream_idle=0.1)) as shop:
        for lines, body in (
            ((b"Content-Length: 5",), b"ab"),
            ((b"Transfer-Encoding: chunked",), b"5\r\nab"),
            ((b"Transfer-Encoding: chunked",), b"2\r\nab\r\n"),
        ):
            wire = await shop.plane.connect()
            wire.send(request(*lines, line=b"POST / HTTP/1.1", body=body))
            answer = await wire.response()
            assert (answer.status, answer.get("connection")) == (408, "close")
            assert await wire.ended() == b""
        await until(lambda: len(shop.witness.unfinished) == 3)
        assert shop.witness.requests == []
        await shop.serves_on()


async def test_row_64_there_is_nobody_to_ask() -> None:
    """No upstream is up, or there are too many connections: 503 at once, with Retry-After."""
    async with DataPlane() as plane:
        await plane.serve()
        answer = await plane.ask(get())
        assert (answer.status, answer.get("retry-after")) == (503, "1")
        assert answer.get("proxy-status") == "bgproxy; error=destination_unavailable"
    gate = asyncio.Event()

    async def held(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await gate.wait()
        writer.write(OK)
        await reader.read()

    async with before(held, limits=schema.Limits(connections=1)) as plane:
        first = await plane.connect()
        first.send(get())
        await until(lambda: plane.upstreams[0].connections)
        second = await plane.connect()
        answer = await second.response()
        assert (answer.status, answer.get("retry-after"), answer.get("connection")) == (503, "1", "close")
        assert await second.ended() == b""
        gate.set()
        assert (await first.response()).status == 200


def test_row_65_sigterm() -> None:
    """No new connections; what is in flight is answered, with Connection: close; the exit status is 0."""
    spec = {
        "balance": "least_requests",
        "retries": schema.Retries(),
        "sessions": schema.Sessions(),
        "expose_pool": False,
    }
    with Backend() as blue, WorkerProcess() as worker:
        pools = (pool_spec("blue", [blue.port], 0), pool_spec("green", [], 10))
        rules = {"preview": schema.Preview(), "drain": schema.Drain(), **spec}
        worker.snapshot(ServiceSpec(name="shop", slot=0, hosts=(), path="/", pools=pools, **rules))
        worker.told()
        with Client(("127.0.0.1", worker.port)) as busy, Client(("127.0.0.1", worker.port)) as idle:
            assert idle.get("/").status == 200
            busy.send_request("GET", "/wait")
            eventually(lambda: blue.counts["/wait"])
            worker.listener.close()  # ours; the worker's is the last one
            worker.process.send_signal(signal.SIGTERM)
            assert idle.sock.recv(1) == b""
            eventually(lambda: refuses(worker.port))
            blue.release()
            answer = busy.read_response("GET")
            assert (answer.status, answer.header("Connection")) == (200, "close")
        assert worker.end() == (0, "")


def refuses(port: int) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


async def test_row_65_websockets_are_told_that_bgproxy_goes_away() -> None:
    """Both sides get a Close frame with 1001 (RFC 6455 section 7.4.1)."""
    codes: list[int | None] = []

    async def handler(websocket) -> None:
        await websocket.wait_closed()
        codes.append(websocket.close_code)

    async with serve_websockets(handler, "127.0.0.1", 0) as server, DataPlane() as plane:
        await plane.serve(server.sockets[0].getsockname()[1])
        async with connect(f"ws://127.0.0.1:{plane.port}/") as websocket:
            plane.context.stopping = True
            plane.clients[0].retire()
            with pytest.raises(ConnectionClosed) as closed:
                await websocket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
        await until(lambda: codes == [1001])
        await until(lambda: not plane.context.clients)
