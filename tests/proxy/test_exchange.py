"""Retries where they are safe and nowhere else; drains; what is counted."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing

import pytest
from support.dataplane import OK, DataPlane, get, read_head, reset, until

from bgproxy.config import schema
from bgproxy.proxy import dial
from bgproxy.proxy.context import Context
from bgproxy.proxy.deadlines import expire
from bgproxy.proxy.dial import open_connection
from bgproxy.proxy.runtime import Pool, Upstream
from bgproxy.proxy.upstream import UpstreamConnection
from bgproxy.switchboard.layout import (
    BUCKET_COUNT,
    PREVIEW_BUCKETS,
    PREVIEWED,
    PREVIEWED_FAILED,
    TIMEOUT_BODY,
    TIMEOUT_WRITE,
    code_cell,
    pool_base,
)


def dead_port() -> int:
    """A port on which nobody listens."""
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_refused_connection_is_tried_on_another_upstream(method: str) -> None:
    """Nothing was sent, so any method may go to another upstream of the pool; the user sees nothing."""
    async with DataPlane() as plane:
        blue = await plane.upstream(OK)
        await plane.serve([dead_port(), blue], balance="round_robin")
        for _ in range(4):
            assert (await plane.ask(get("/", "Content-Length: 0", method=method))).status == 200
        assert plane.blue.retries == 2
        assert len(plane.failures) == 2
        assert [upstream.in_flight for upstream in plane.blue.upstreams] == [0, 0]


async def test_a_body_that_came_early_survives_the_retry() -> None:
    """The bytes of a body that waited for a connection go to the upstream that is reached in the end."""
    got: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        got.append(await reader.readexactly(100_000))
        writer.write(OK)
        await reader.read()

    async with DataPlane() as plane:
        await plane.serve([dead_port(), await plane.upstream(script)], balance="round_robin")
        plane.blue.turn = 1
        answer = await plane.ask(get("/", "Content-Length: 100000", method="POST") + b"b" * 100_000)
        assert answer.status == 200
        assert got == [b"b" * 100_000]
        assert plane.blue.retries == 1


async def test_no_other_upstream_is_502() -> None:
    """With nobody else to ask, a refused connection is 502 with the reason."""
    async with DataPlane() as plane:
        await plane.serve(dead_port())
        answer = await plane.ask(get())
        assert answer.status == 502
        assert b"refused" in answer.body
        assert "connection_refused" in answer.get("proxy-status")
        assert plane.blue.in_flight == [0, 0, 0]


async def test_retries_are_limited() -> None:
    """`attempts` is how often it is tried again, not more."""
    async with DataPlane() as plane:
        await plane.serve([dead_port(), dead_port(), dead_port()])
        assert (await plane.ask(get())).status == 502
        assert plane.blue.retries == 1
        assert len(plane.failures) == 2


def flaky(counts: list[int], *, answer_first: bool = True):
    """Answers the first request of a connection and resets at the second."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer_first:
            head = await read_head(reader)
            counts.append(1)
            writer.write(OK)
        head = await read_head(reader)
        if b"Content-Length: 3" in head:
            await reader.readexactly(3)
        counts.append(1)
        reset(writer)

    return script


async def test_a_reused_connection_that_breaks_is_repeated_if_idempotent() -> None:
    """GET on a kept connection that dies unanswered is sent again on a fresh one; a POST never is."""
    counts: list[int] = []
    async with DataPlane() as plane:
        blue = await plane.upstream(flaky(counts))
        await plane.serve(blue)
        wire = await plane.connect()
        for _ in range(4):
            wire.send(get())
            assert (await wire.response()).status == 200
        assert plane.blue.retries == 3
        assert plane.failures == []
        wire.send(get("/", "Content-Length: 3", method="POST") + b"abc")
        assert (await wire.response()).status == 502
        assert plane.blue.retries == 3


async def test_a_put_with_its_body_is_repeated_whole() -> None:
    """An idempotent request whose body was kept is sent again with all of it."""
    bodies: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = True
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"PUT"):
                bodies.append(await reader.readexactly(3))
                if not first:
                    reset(writer)
                    return
            first = False
            writer.write(OK)

    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(script))
        wire = await plane.connect()
        wire.send(get())
        assert (await wire.response()).status == 200
        wire.send(get("/", "Content-Length: 3", method="PUT") + b"abc")
        assert (await wire.response()).status == 200
        assert bodies == [b"abc", b"abc"]


async def test_a_fresh_connection_that_breaks_is_not_repeated() -> None:
    """A request on a fresh connection may have been acted on: 502, once."""
    counts: list[int] = []
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(flaky(counts, answer_first=False)))
        assert (await plane.ask(get())).status == 502
        assert len(counts) == 1


async def test_a_request_belongs_to_its_pool_until_it_ends() -> None:
    """What began on blue ends on blue, across a switch; the next request of the same connection goes to green."""
    gate = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await gate.wait()
        writer.write(OK.replace(b"ok", b"bl"))
        await reader.read()

    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(slow), await plane.upstream(OK.replace(b"ok", b"gr")))
        wire = await plane.connect()
        wire.send(get())
        await until(lambda: plane.upstreams[0].connections)
        plane.switch(1)
        other = await plane.ask(get())
        assert other.body == b"gr"
        assert plane.blue.in_flight[0] == 1
        gate.set()
        assert (await wire.response()).body == b"bl"
        wire.send(get())
        assert (await wire.response()).body == b"gr"
        assert plane.blue.in_flight == [0, 0, 0]
        await until(lambda: plane.blue.upstreams[0].connections == 0)  # the old pool's connections are not kept


@pytest.mark.parametrize("begun", [False, True])
async def test_the_drain_deadline_of_requests(*, begun: bool) -> None:
    """At its deadline a request gets 504 if nothing was sent, else its connection ends."""

    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        if begun:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await reader.read()

    async with DataPlane() as plane:
        await plane.serve(
            await plane.upstream(stuck), await plane.upstream(OK), drain=schema.Drain(requests=0.1, streams=60.0)
        )
        wire = await plane.connect()
        wire.send(get())
        if begun:
            assert (await wire.head()).status == 200
        else:
            await until(lambda: plane.upstreams[0].connections)
        plane.switch(1)
        if begun:
            assert await wire.ended() == b"half"
        else:
            assert (await wire.response()).status == 504
        assert plane.blue.cut == [1, 0, 0]
        assert plane.blue.in_flight == [0, 0, 0]
        assert plane.blue.codes[code_cell(200 if begun else 504)] == 1  # nor is the upstream to blame for a cut


async def test_an_unbounded_answer_is_a_stream() -> None:
    """A chunked answer that has begun is of the class `streams`, whose own deadline ends it."""

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"1\r\nx\r\n")
        await reader.read()

    async with DataPlane() as plane:
        await plane.serve(
            await plane.upstream(stream), await plane.upstream(OK), drain=schema.Drain(requests=60.0, streams=0.1)
        )
        wire = await plane.connect()
        wire.send(get())
        await wire.head()
        await until(lambda: plane.blue.in_flight == [0, 1, 0])
        plane.switch(1)
        await wire.ended()
        assert plane.blue.cut == [0, 1, 0]
        assert plane.blue.in_flight == [0, 0, 0]


async def test_requests_that_name_their_pool_are_counted_apart() -> None:
    """With all others, for the metrics, and once more: a bake judges by live traffic. By header, by cookie, whatever came of them."""
    stream = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 1\r\n\r\nx"
    for response, failed, timed in (
        (OK, 0, 3),
        (b"HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n", 3, 3),
        (stream, 0, 3),
    ):
        async with DataPlane() as plane:
            spec = await plane.serve(await plane.upstream(response), preview=schema.Preview(allow="any"))
            wire = await plane.connect()
            cookie = ("Cookie: a=b; bgproxy_pool=live",)
            for lines in ((), ("X-BGProxy-Pool: blue",), (), cookie, ("X-BGProxy-Pool: nonsense",)):
                wire.send(get("/", *lines))
                await wire.response()
            wire.send(get("/", "X-BGProxy-Pool: blue", "Content-Length: 2", method="POST") + b"ok")
            await wire.response()
            previews = plane.blue.previews
            assert (sum(plane.blue.codes), sum(plane.blue.buckets)) == (6, 6)
            assert (previews.requests, previews.failed, sum(previews.buckets)) == (3, failed, timed)
            wire.send(get("/", "X-BGProxy-Pool: green"))
            assert (await wire.response()).status == 503
            assert (plane.green.previews.requests, plane.green.previews.failed) == (1, 1)
            assert sum(plane.green.previews.buckets) == 0
            plane.context.flush()
            cells = plane.context.cells
            base = pool_base(0, 0)
            assert (cells[base + PREVIEWED], cells[base + PREVIEWED_FAILED]) == (3, failed)
            assert sum(cells[base + PREVIEW_BUCKETS : base + PREVIEW_BUCKETS + BUCKET_COUNT]) == timed
            # A successor in this worker's place goes on from there.
            again = Pool(plane.context.services[spec.name], 0)
            again.adopt(cells)
            again.cells = cells
            again.count_preview(200, 3)
            assert (again.previews.requests, again.previews.failed) == (4, failed)


@pytest.mark.parametrize(
    ("kind", "timed"), [(b"Content-Type: text/html", 1), (b"Content-Type: text/event-stream", 0), (b"", 0)]
)
async def test_what_lasts_as_long_as_it_likes_has_no_latency(kind: bytes, timed: int) -> None:
    """Streams of events and upgraded connections are counted, and stay out of the histogram; a page in chunks is in it."""

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        if kind:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + kind + b"\r\n\r\n")
            await gate.wait()
            writer.write(b"1\r\nx\r\n0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
            await gate.wait()

    gate = asyncio.Event()
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(stream))
        wire = await plane.connect()
        wire.send(get("/") if kind else get("/", "Connection: Upgrade", "Upgrade: echo"))
        await wire.head()
        gate.set()
        if not kind:
            wire.close()
        await until(lambda: sum(plane.blue.codes))
        assert plane.blue.codes[code_cell(200 if kind else 101)] == 1
        assert sum(plane.blue.buckets) == timed
        assert (plane.blue.duration_us > 0.0) == bool(timed)
        assert plane.blue.in_flight == [0, 0, 0]


async def test_a_rollback_takes_the_deadline_back() -> None:
    """A pool that is live again has no drain deadline: what was in flight ends in peace."""
    gate = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await gate.wait()
        writer.write(OK)
        await reader.read()

    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(slow), await plane.upstream(OK), drain=schema.Drain(requests=0.15))
        wire = await plane.connect()
        wire.send(get())
        await until(lambda: plane.upstreams[0].connections)
        plane.switch(1)
        plane.switch(0)
        await asyncio.sleep(0.25)  # past the deadline that no longer is one
        gate.set()
        assert (await wire.response()).status == 200
        assert plane.blue.cut == [0, 0, 0]


async def test_a_client_that_leaves_ends_its_exchange() -> None:
    """A client that goes away while its answer is awaited frees the upstream; it is counted as 499."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(silent))
        wire = await plane.connect()
        wire.send(get())
        await until(lambda: plane.upstreams and plane.upstreams[0].connections)
        reset(wire.writer)
        await until(lambda: not plane.context.servers)
        assert plane.blue.in_flight == [0, 0, 0]
        from bgproxy.switchboard.layout import code_cell

        assert plane.blue.codes[code_cell(499)] == 1


async def test_a_connect_time_out_is_504() -> None:
    """An upstream whose backlog is full does not answer the connection: 504 at `timeouts.connect`."""
    with closing(socket.socket()) as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        async with DataPlane(timeouts=schema.Timeouts(connect=0.2)) as plane:
            await plane.serve(full.getsockname()[1])
            answer = await plane.ask(get())
            assert answer.status == 504
            assert "connection_timeout" in answer.get("proxy-status")
        for filler in fillers:
            filler.close()


async def test_a_connection_that_ends_before_it_is_used_carried_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upstream that accepts and closes at once has seen nothing of the request: any method goes to another."""

    async def slam(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reset(writer)

    async def late(context: Context, upstream: Upstream, client: object = None) -> UpstreamConnection:
        server = await open_connection(context, upstream, client)  # type: ignore[arg-type]
        if upstream.port == bad.port:
            await until(lambda: not server.usable())
        return server

    monkeypatch.setattr(dial, "open_connection", late)
    async with DataPlane() as plane:
        bad = await plane.upstream(slam)
        await plane.serve([bad, await plane.upstream(OK)], balance="round_robin")
        for _ in range(4):
            assert (await plane.ask(get("/", "Content-Length: 3", method="POST") + b"abc")).status == 200
        assert plane.failures == [(f"127.0.0.1:{bad.port}", "connection closed before anything was sent")] * 2
        assert [upstream.in_flight for upstream in plane.blue.upstreams] == [0, 0]
        await plane.serve(bad)
        answer = await plane.ask(get())
        assert answer.status == 502
        assert "connection_terminated" in answer.get("proxy-status")


async def test_warming_keeps_no_connection_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ended while it was opened is not put by for a request."""

    async def slam(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reset(writer)

    async def late(context: Context, upstream: Upstream, client: object = None) -> UpstreamConnection:
        server = await open_connection(context, upstream, client)  # type: ignore[arg-type]
        await until(lambda: not server.usable())
        return server

    monkeypatch.setattr(dial, "open_connection", late)
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(slam))
        (upstream,) = plane.blue.upstreams
        await dial.warm(plane.context, upstream, 2)
        assert upstream.idle == []


async def test_an_upstream_that_takes_no_more_of_a_body_is_to_blame() -> None:
    """What waits for the upstream is not the client's delay: 504, reported, and no time-out of a client is counted."""
    gate = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await gate.wait()

    async with DataPlane(timeouts=schema.Timeouts(stream_idle=0.2)) as plane:
        await plane.serve(await plane.upstream(deaf))
        wire = await plane.connect()
        wire.send(get("/", "Content-Length: 50000000", method="PUT") + bytes(50_000_000))
        answer = await wire.response()
        gate.set()
        assert answer.status == 504
        assert "connection_write_timeout" in answer.get("proxy-status")
        assert [reason for _, reason in plane.failures] == ["it takes no more of the request's body"]
        assert plane.context.hits[TIMEOUT_BODY] == 0


async def test_a_client_has_all_its_time_again_when_the_upstream_reads_on() -> None:
    """The time for the next piece of a body is counted from when it may be sent."""
    gate = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()

    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(silent))
        wire = await plane.connect()
        wire.send(get("/", "Content-Length: 5", method="PUT") + b"ab")
        await until(lambda: plane.clients and plane.clients[0].exchange is not None)
        (client,) = plane.clients
        client.server_full()
        client.deadline = 1.0
        client.server_ready()
        gate.set()
        assert client.deadline >= plane.context.now + plane.context.timeouts.stream_idle - 1


async def test_a_retry_does_not_wait_for_the_connection_that_is_gone() -> None:
    """The body goes on to the next connection, however full the last one was."""
    got: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"PUT"):
                if not got:
                    got.append(await reader.readexactly(2))
                    gate.set()
                    await let.wait()
                    reset(writer)
                    return
                got.append(await reader.readexactly(5))
            writer.write(OK)

    gate, let = asyncio.Event(), asyncio.Event()
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(script))
        wire = await plane.connect()
        wire.send(get())
        assert (await wire.response()).status == 200
        wire.send(get("/", "Content-Length: 5", method="PUT") + b"ab")
        await gate.wait()
        plane.clients[0].server_full()  # as the connection says that is about to break
        let.set()
        await until(lambda: plane.blue.retries == 1)
        wire.send(b"cde")
        assert (await wire.response()).status == 200
        assert got == [b"ab", b"abcde"]


async def test_who_does_not_read_is_no_failure_of_the_service() -> None:
    """An exchange that ends with its client, before an answer, counts as 499 and not among the errors of the pool."""
    gate = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()

    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(silent))
        wire = await plane.connect()
        wire.send(get())
        await until(lambda: plane.clients and plane.clients[0].exchange is not None)
        expire(plane.clients[0], TIMEOUT_WRITE)
        gate.set()
        assert plane.blue.codes[code_cell(499)] == 1
        assert sum(plane.blue.codes) == 1
