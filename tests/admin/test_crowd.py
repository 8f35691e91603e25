"""The admin API's connections: the newcomer comes in, the one that has idled longest goes."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from support.waiting import eventually_async

from bgproxy.admin.crowd import Crowd, most

LIMIT = 3
GET = b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Api:
    """A server with a crowd; `/wait` answers once `gate` opens."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.evicted = 0
        self.waiting = 0
        self.writers: list[asyncio.StreamWriter] = []

    def count(self) -> None:
        self.evicted += 1

    async def answer(self, request: web.BaseRequest) -> web.Response:
        if request.path == "/wait":
            self.waiting += 1
            await self.gate.wait()
        return web.Response(text="here")

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    async def ask(self, path: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that has had an answer."""
        reader, writer = await self.connect()
        writer.write(GET % path)
        assert (await read(reader)).startswith(b"HTTP/1.1 200")
        return reader, writer

    port: int


async def read(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(5):
        return await reader.read(65536)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    made = Api()
    runner = web.ServerRunner(web.Server(made.answer))
    await runner.setup()
    assert runner.server is not None
    Crowd(runner.server, lambda: LIMIT, made.count)
    sock = socket.create_server(("127.0.0.1", 0))
    made.port = sock.getsockname()[1]
    await web.SockSite(runner, sock).start()
    yield made
    made.gate.set()
    for writer in made.writers:
        writer.close()
    await runner.cleanup()


async def test_the_newcomer_is_answered_and_the_oldest_idle_one_goes(api: Api) -> None:
    """Those that asked and those that never said a word are alike; the others stay."""
    first, _ = await api.ask()
    second, _ = await api.connect()
    third, _ = await api.ask()
    await eventually_async(lambda: api.evicted == 0)
    await api.ask()
    assert await read(first) == b""
    assert api.evicted == 1
    await api.ask()
    assert await read(second) == b""
    assert not third.at_eof()


async def test_who_is_being_answered_stays(api: Api) -> None:
    """As long as there is one that idles."""
    busy, writer = await api.connect()
    writer.write(GET % b"wait")
    await eventually_async(lambda: api.waiting == 1)
    for _ in range(10):
        await api.ask()
    api.gate.set()
    assert (await read(busy)).startswith(b"HTTP/1.1 200")


async def test_where_all_are_busy_the_oldest_goes(api: Api) -> None:
    """Nobody can lock the operator out by being slow."""
    readers: list[Any] = []
    for number in range(LIMIT):
        reader, writer = await api.connect()
        writer.write(GET % b"wait")
        await eventually_async(lambda number=number: api.waiting == number + 1)
        readers.append(reader)
    await api.ask()
    assert await read(readers[0]) == b""


def test_descriptors_bound_it_too(monkeypatch) -> None:
    """A quarter of what the process may have, at the most."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
    assert most(200) == 25
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert most(200) == 200
