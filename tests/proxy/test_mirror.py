"""What the tap copies for the controller, what it leaves out, and that no client notices."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from support.builds import interpreted_only
from support.dataplane import OK, DataPlane, get, read_head, reset, until

from bgproxy.config.schema import MiB, Preview
from bgproxy.model.snapshot import MirrorSpec
from bgproxy.proxy import mirror
from bgproxy.proxy.peers import Networks
from bgproxy.switchboard import layout
from bgproxy.switchboard.messages import Mirrored

SPEC = MirrorSpec(number=7, pool=0, share=100.0, methods=("GET", "HEAD"), body_bytes=100)
DATE = b"Date: Mon, 23 Nov 2026 00:00:00 GMT\r\n"


class Tapped:
    """A data plane of which the controller has been given copies."""

    def __init__(self, plane: DataPlane) -> None:
        self.plane = plane
        self.got: list[Mirrored] = []
        self.spec: Any = None

    async def serve(self, script: Any = OK, credit: int = 1, **changes: Any) -> None:
        upstream = await self.plane.upstream(script)
        self.spec = await self.plane.serve(upstream, preview=Preview(allow="any"))
        self.mirror(**changes)
        self.credit(credit)

    def mirror(self, **changes: Any) -> None:
        values = {name: getattr(SPEC, name) for name in SPEC.__slots__} | changes
        self.spec = self.plane.change(self.spec, mirror=MirrorSpec(**values))

    def credit(self, count: int, number: int = 7) -> None:
        self.tap.credit(number, count)

    @property
    def tap(self) -> Any:
        return self.plane.context.services["shop"].tap

    def counts(self) -> tuple[int, int]:
        """Copied, and not."""
        if self.tap is not None:
            self.tap.sweep(self.plane.context.now)
        cells = self.plane.context.cells
        base = layout.pool_base(0, 0)
        return cells[base + layout.MIRRORED], cells[base + layout.MIRROR_DROPPED]

    def holds(self) -> int:
        return len(self.tap.mirror.captures)


@pytest.fixture
async def tapped() -> AsyncIterator[Tapped]:
    async with DataPlane() as plane:
        tapped = Tapped(plane)
        plane.context.tell = tapped.got.append
        yield tapped


def answer(*fields: bytes, body: bytes = b"", status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status + b"\r\n", DATE, *(field + b"\r\n" for field in fields), b"\r\n", body]
    return b"".join(lines)


async def test_a_request_and_its_answer_are_copied_as_they_went_on(tapped: Tapped) -> None:
    """The head with what the proxy adds, the status, the answer's head and body; and the client gets its answer."""
    await tapped.serve(credit=2)
    for _ in range(2):  # the second time from memories
        reply = await tapped.plane.ask(get("/cart?id=1", "Accept: text/plain", "Connection: x-drop", "X-Drop: 1"))
        assert (reply.status, reply.body) == (200, b"ok")
    assert len(tapped.got) == 2
    for message, head in zip(tapped.got, tapped.plane.upstreams[0].heads, strict=True):
        assert (message.service, message.number) == ("shop", 7)
        assert (message.method, message.target, message.body) == (b"GET", b"/cart?id=1", b"")
        assert message.head == head
        assert b"X-Drop" not in message.head
        assert (message.status, message.answer, message.complete) == (200, b"ok", True)
        assert message.answer_head == OK[:-4]
        assert 0.0 < message.seconds < 5.0
    assert tapped.counts() == (2, 0)
    assert not tapped.holds()


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    ("response", "body", "complete"),
    [
        (answer(b"Content-Length: 5", body=b"hello"), b"hello", True),
        (answer(b"Content-Length: 0"), b"", True),
        (answer(b"Transfer-Encoding: chunked", body=b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nX-T: 1\r\n\r\n"), b"hello", True),
        (answer(b"Content-Length: 5", status=b"304 Not Modified"), b"", True),
        (answer(status=b"204 No Content"), b"", True),
        (answer(b"Content-Length: 100", body=b"a" * 100), b"a" * 100, True),
        (answer(b"Content-Length: 101", body=b"a" * 101), b"", False),
        (answer(b"Transfer-Encoding: chunked", body=b"c8\r\n" + b"a" * 200 + b"\r\n0\r\n\r\n"), b"", False),
        (answer(b"Content-Type: text/event-stream", b"Content-Length: 5", body=b"hello"), b"", False),
    ],
)
async def test_bodies_are_copied_in_every_framing(
    tapped: Tapped, response: bytes, body: bytes, *, complete: bool, split: bool
) -> None:
    """In one piece or byte by byte, up to the bound; what is larger, or a stream, goes without its body; the client gets all of it."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_head(reader)
            for at in range(0, len(response), 1 if split else len(response)):
                writer.write(response[at : at + (1 if split else len(response))])
                await asyncio.sleep(0)

    await tapped.serve(script, credit=1)
    wire = await tapped.plane.connect()
    wire.send(get())
    first = await wire.response()
    await until(lambda: tapped.got)
    (message,) = tapped.got
    assert (message.status, message.answer, message.complete) == (first.status, body, complete)
    wire.send(get())  # without a credit
    second = await wire.response()
    assert (second.status, second.body, second.headers) == (first.status, first.body, first.headers)
    assert tapped.counts() == (1, 1)


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
async def test_a_body_that_ends_with_the_connection_is_copied(tapped: Tapped, version: str) -> None:
    """Without the chunks that the proxy puts it into for the client."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(answer(body=b"until the end"))

    await tapped.serve(script)
    reply = await tapped.plane.ask(get(version=version))
    assert reply.body == b"until the end"
    assert (tapped.got[0].answer, tapped.got[0].complete) == (b"until the end", True)


async def test_head_has_no_body(tapped: Tapped) -> None:
    """However long the body is that it would have."""
    await tapped.serve(answer(b"Content-Length: 5000"))
    reply = await tapped.plane.ask(get(method="HEAD"))
    assert reply.get("content-length") == "5000"
    assert (tapped.got[0].method, tapped.got[0].answer, tapped.got[0].complete) == (b"HEAD", b"", True)


async def uploads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers a request once its body has come: chunks, or what ends with "end"."""
    while True:
        head = await read_head(reader)
        await reader.readuntil(b"0\r\n\r\n" if b"chunked" in head else b"end")
        writer.write(OK)


@pytest.mark.parametrize(
    ("fields", "pieces"),
    [
        (("Content-Length: 9",), [b"first ", b"end"]),
        (("Transfer-Encoding: chunked",), [b"6\r\nfirst \r\n", b"3;x\r\nend\r\n", b"0\r\n\r\n"]),
    ],
)
async def test_the_body_of_a_request_is_copied(tapped: Tapped, fields: tuple[str, ...], pieces: list[bytes]) -> None:
    """Where its method is one of those that are mirrored; without its chunks."""
    await tapped.serve(uploads, methods=("POST",))
    wire = await tapped.plane.connect()
    wire.send(get("/order", *fields, method="POST"))
    for piece in pieces:
        await asyncio.sleep(0.005)  # so that pieces travel apart; nothing is waited for
        wire.send(piece)
    assert (await wire.response()).body == b"ok"
    await until(lambda: tapped.got)
    assert (tapped.got[0].method, tapped.got[0].body) == (b"POST", b"first end")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_request_is_given_up(tapped: Tapped, *, chunked: bool) -> None:
    """Its body goes on to the upstream, its credit is there for the next request, and it is counted as dropped."""
    await tapped.serve(uploads, methods=("POST", "GET"))
    wire = await tapped.plane.connect()
    body = b"a" * 200 + b"end"
    if chunked:
        wire.send(get("/", "Transfer-Encoding: chunked", method="POST") + b"cb\r\n" + body + b"\r\n0\r\n\r\n")
    else:
        wire.send(get("/", f"Content-Length: {len(body)}", method="POST") + body)
    assert (await wire.response()).body == b"ok"
    assert not tapped.got
    assert tapped.counts() == (0, 1)
    assert tapped.tap.mirror.credits == 1
    assert not tapped.holds()


async def test_what_is_not_to_be_mirrored_is_not(tapped: Tapped) -> None:
    """Other methods, requests that name a pool, upgrades, those that were mirrored before: without a count, too."""
    await tapped.serve(credit=10)
    for request in (
        get(method="DELETE"),
        get("/", "X-BGProxy-Pool: blue"),
        get("/", "Connection: upgrade", "Upgrade: websocket"),
    ):
        assert (await tapped.plane.ask(request)).body == b"ok"
    assert not tapped.got
    assert tapped.counts() == (0, 0)


@pytest.mark.parametrize(("trusted", "copied"), [((), 1), (("127.0.0.0/8",), 0)])
async def test_what_was_mirrored_already_is_known_by_who_says_so(
    tapped: Tapped, trusted: tuple[str, ...], copied: int
) -> None:
    """A bgproxy before this one, among the trusted proxies, is believed; a client's mark is no reason to leave it out."""
    tapped.plane.context.trusted = Networks(trusted)
    await tapped.serve(credit=10)
    assert (await tapped.plane.ask(get("/", "x-bgproxy-mirror: 1"))).body == b"ok"
    assert tapped.counts() == (copied, 0)
    assert not any(b"bgproxy-mirror" in mirrored.head.lower() for mirrored in tapped.got)


async def test_only_the_live_pool_is_sampled(tapped: Tapped) -> None:
    """A session that is still on the other pool says nothing of the live one."""
    await tapped.serve(pool=1)
    assert (await tapped.plane.ask(get())).body == b"ok"
    assert not tapped.got
    assert tapped.counts() == (0, 0)


async def test_without_a_credit_a_request_is_dropped(tapped: Tapped) -> None:
    """It takes the quick way, and the count says so; a credit of another deployment is none."""
    await tapped.serve(credit=0)
    tapped.credit(5, number=6)
    wire = await tapped.plane.connect()
    for _ in range(3):
        wire.send(get())
        assert (await wire.response()).body == b"ok"
    assert tapped.counts() == (0, 3)
    tapped.credit(1)
    wire.send(get())
    await wire.response()
    assert tapped.counts() == (1, 3)


async def test_a_share_is_a_share(tapped: Tapped, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hundred requests, a fifth of them at 20%, by chance."""
    draws = iter([number / 100 for number in range(100)])
    monkeypatch.setattr(mirror.random, "random", lambda: next(draws))
    await tapped.serve(credit=100, share=20.0)
    wire = await tapped.plane.connect()
    for _ in range(100):
        wire.send(get())
        await wire.response()
    assert tapped.counts() == (20, 0)


@pytest.mark.parametrize("how", ["upstream", "client"])
async def test_what_has_no_whole_answer_is_given_up(tapped: Tapped, how: str) -> None:
    """An upstream that breaks off, a client that leaves: nothing to compare, the credit is back, nothing is held."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(answer(b"Content-Length: 5", body=b"he"))
        await writer.drain()
        if how == "client":
            await reader.read()

    await tapped.serve(script)
    wire = await tapped.plane.connect()
    wire.send(get())
    assert (await wire.head()).status == 200
    if how == "client":
        reset(wire.writer)
    await until(lambda: tapped.counts() == (0, 1))
    assert not tapped.got
    assert tapped.tap.mirror.credits == 1
    assert not tapped.holds()


async def test_an_error_of_our_own_is_not_compared(tapped: Tapped) -> None:
    """The live upstream did not answer: what the idle one would say proves nothing."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)

    await tapped.serve(script)
    assert (await tapped.plane.ask(get())).status == 502
    assert not tapped.got
    assert tapped.counts() == (0, 1)


async def test_a_slow_answer_gives_its_credit_back(tapped: Tapped, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long poll does not hold what others could use; the client gets its answer whenever it comes."""
    go = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await go.wait()
        writer.write(OK)
        await reader.read()

    await tapped.serve(script)
    wire = await tapped.plane.connect()
    wire.send(get())
    await until(lambda: tapped.holds() == 1)
    tapped.tap.sweep(tapped.plane.context.now + mirror.PATIENCE + 1.0)
    assert tapped.tap.mirror.credits == 1
    assert not tapped.holds()
    go.set()
    assert (await wire.response()).body == b"ok"
    assert not tapped.got


@pytest.mark.parametrize("then", ["off", "another", "gone"])
async def test_the_end_of_a_comparison_ends_its_copies(tapped: Tapped, then: str) -> None:
    """In the middle of a request: nothing is told, nothing is held, and the client gets its answer."""
    go = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await go.wait()
        writer.write(OK)
        await reader.read()

    await tapped.serve(script)
    wire = await tapped.plane.connect()
    wire.send(get())
    await until(lambda: tapped.holds() == 1)
    old = tapped.tap.mirror
    if then == "off":
        tapped.plane.change(tapped.spec, mirror=None)
        assert tapped.tap is None
        assert tapped.plane.context.tapped == []
    elif then == "another":
        tapped.mirror(number=8)
        assert tapped.tap.mirror.credits == 0
    else:
        tapped.plane.context.set_services((), (), whole=True)
    assert not old.captures
    go.set()
    assert (await wire.response()).body == b"ok"
    assert not tapped.got


async def test_a_snapshot_in_the_middle_changes_nothing(tapped: Tapped) -> None:
    """Credits and what was noted outlive a change of something else."""
    await tapped.serve(credit=3)
    tapped.spec = tapped.plane.change(tapped.spec, note_recent=True)
    assert tapped.tap.mirror.credits == 3
    wire = await tapped.plane.connect()
    for _ in range(3):
        wire.send(get("/seen"))
        await wire.response()
    assert len(tapped.got) == 3
    seen = tapped.tap.most(5)
    assert seen[0][0] == "/seen"
    tapped.spec = tapped.plane.change(tapped.spec, retries=tapped.spec.retries, expose_pool=True, mirror=None)
    assert tapped.tap.most(5) == seen


async def test_previews_are_not_noted(tapped: Tapped) -> None:
    """What testers ask for says nothing of users."""
    upstream = await tapped.plane.upstream(OK)
    spec = await tapped.plane.serve(upstream, preview=Preview(allow="any"))
    tapped.plane.change(spec, note_recent=True)
    await tapped.plane.ask(get("/test", "X-BGProxy-Pool: blue"))
    assert tapped.tap.most(5) == ()
    await tapped.plane.ask(get("/user"))
    assert tapped.tap.most(5) == (("/user", 1),)


@interpreted_only
async def test_a_body_in_small_pieces_takes_no_more_than_its_size(tapped: Tapped) -> None:
    """Neither a request nor an answer that comes byte by byte."""
    await tapped.serve(body_bytes=MiB, methods=("POST",))
    exchange: Any = SimpleNamespace(started=0.0, capture=None)
    capture = mirror.Capture(tapped.tap.mirror, exchange)
    tracemalloc.start()
    try:
        for number in range(MiB // 8):
            piece = bytes([number % 256, 1])  # as it comes from a socket: an object of its own
            capture.sent(piece)
            capture.came(piece)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(capture.request) == len(capture.answer) == MiB // 4
    assert held < MiB


async def test_memory_is_bounded_by_credits(tapped: Tapped) -> None:
    """A hundred requests under way at once, with two credits: two copies."""
    go = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await go.wait()
        writer.write(OK)

    await tapped.serve(script, credit=2)
    wires = [await tapped.plane.connect() for _ in range(100)]
    for wire in wires:
        wire.send(get())
    await until(lambda: tapped.counts()[1] == 98)
    assert tapped.holds() == 2
    go.set()
    for wire in wires:
        assert (await wire.response()).body == b"ok"
    assert tapped.counts() == (2, 98)
