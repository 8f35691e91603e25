"""An upstream that takes nothing but the letter of RFC 9112, and bgproxy's data plane before it.

What reaches it is read by two parsers that bgproxy knows nothing of: support.strict and h11. Each answer names the target
of the request that it is for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import h11
from support.dataplane import DataPlane, get
from support.strict import IncompleteError, Message, NotStrictError, read_request

DATED = b"HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 00:00:00 GMT\r\n"


def own_answer(request: Message) -> bytes:
    """200, with the request's target as the body."""
    body = request.start[1]
    head = DATED + b"Content-Length: %d\r\n\r\n" % len(body)
    return head if request.start[0] == b"HEAD" else head + body


class Witness:
    """The script of an upstream: it reads requests strictly, keeps them, and answers each."""

    def __init__(self, answer: Callable[[Message], bytes] | bytes = own_answer) -> None:
        self.answer = answer if callable(answer) else lambda _: answer
        self.requests: list[Message] = []
        self.raw: list[bytes] = []  # of each request
        self.unfinished: list[bytes] = []  # what came of requests whose connection ended before they did
        self.faults: list[str] = []
        self.received = 0  # bytes

    def forget(self) -> None:
        """Begin anew, for another case."""
        self.requests, self.raw, self.unfinished, self.faults = [], [], [], []

    @property
    def last(self) -> Message:
        return self.requests[-1]

    async def script(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b""
        while True:
            if b"\r\n\r\n" in data:
                try:
                    request = read_request(data)
                    reread(data[: request.end])
                except IncompleteError:
                    pass
                except (NotStrictError, h11.RemoteProtocolError) as error:
                    self.faults.append(f"{error}: {data!r}")
                    return
                else:
                    self.requests.append(request)
                    self.raw.append(data[: request.end])
                    data = data[request.end :]
                    writer.write(self.answer(request))
                    continue
            more = await reader.read(65536)
            if not more:
                if data:
                    self.unfinished.append(data)
                return
            data += more
            self.received += len(more)


def reread(raw: bytes) -> None:
    """One whole request, to h11 as well. Raises `h11.RemoteProtocolError`."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(raw)
    while not isinstance(event := server.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            raise h11.RemoteProtocolError("h11 waits for more than was forwarded")
    if server.trailing_data[0]:
        raise h11.RemoteProtocolError("h11 finds something behind the request")


class Front:
    """bgproxy before one witness."""

    def __init__(self, plane: DataPlane, witness: Witness) -> None:
        self.plane = plane
        self.witness = witness

    async def ask(self, data: bytes) -> SimpleNamespace:
        """The answer to one request on a connection of its own."""
        return await self.plane.ask(data)

    async def forwarded(self, data: bytes) -> Message:
        """What the upstream is sent of one request, which is answered in its name."""
        before = len(self.witness.requests)
        answer = await self.plane.ask(data)
        assert answer.status == 200, (data, answer.raw, answer.body)
        assert len(self.witness.requests) == before + 1, data
        if not data.startswith(b"HEAD"):
            assert answer.body == self.witness.last.start[1]
        return self.witness.last

    async def refused(self, data: bytes, *statuses: int) -> SimpleNamespace:
        """Our own answer to what must not be forwarded: the connection ends, and the next one is as it should be."""
        before = len(self.witness.requests)
        wire = await self.plane.connect()
        wire.send(data)
        answer = await wire.response()
        assert answer.status in statuses, (data, answer.raw)
        assert answer.get("proxy-status", "").startswith("bgproxy; error="), answer.raw
        assert answer.get("connection") == "close", data
        assert await wire.ended() == b"", data
        wire.close()
        assert len(self.witness.requests) == before, data
        await self.serves_on()
        return answer

    async def serves_on(self) -> None:
        """A GET on a fresh connection gets its own answer."""
        answer = await self.plane.ask(get("/fresh"))
        assert (answer.status, answer.body) == (200, b"/fresh")


@contextlib.asynccontextmanager
async def front(answer: Callable[[Message], bytes] | bytes = own_answer, **settings: Any) -> AsyncIterator[Front]:
    """A data plane with one witness in its live pool. At the end nothing may have reached that which is not strict."""
    async with DataPlane(**settings) as plane:
        witness = Witness(answer)
        await plane.serve(await plane.upstream(witness.script))
        yield Front(plane, witness)
    assert witness.faults == []


@contextlib.asynccontextmanager
async def before(script: Any, **settings: Any) -> AsyncIterator[DataPlane]:
    """A data plane before an upstream that runs a script, or answers with the bytes given."""
    async with DataPlane(**settings) as plane:
        await plane.serve(await plane.upstream(script))
        yield plane


def request(*lines: bytes, line: bytes = b"GET / HTTP/1.1", body: bytes = b"") -> bytes:
    """A request to shop.test with these field lines."""
    return b"\r\n".join([line, b"Host: shop.test", *lines, b"", body])
