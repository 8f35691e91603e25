"""Handshakes with the admin API: the newcomer comes in, the oldest that is not done goes, and descriptors are left."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.certificates import Authority
from support.waiting import eventually_async

from bgproxy.admin import handshakes
from bgproxy.admin.handshakes import Handshakes

LIMIT = 3


class Hello(asyncio.Protocol):
    """Says hello to who has shaken hands."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")
        transport.close()


class Port:
    """A socket with handshakes, and who came to it."""

    def __init__(self, authority: Authority, folder) -> None:
        files = authority.issue(folder, "localhost")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(files.cert, files.key)
        self.client = authority.client_context()
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.evicted = 0
        self.handshakes = Handshakes(self.sock, lambda: self.context, Hello, most=lambda: LIMIT, evicted=self._count)
        self.silent: list[socket.socket] = []

    def _count(self) -> None:
        self.evicted += 1

    def say_nothing(self, count: int) -> None:
        for _ in range(count):
            self.silent.append(socket.create_connection(self.sock.getsockname(), timeout=5))

    async def hello(self) -> bytes:
        address, port = self.sock.getsockname()
        reader, writer = await asyncio.open_connection(address, port, ssl=self.client, server_hostname="localhost")
        async with asyncio.timeout(5):
            said = await reader.read()
        writer.close()
        return said


def ended(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        while sock.recv(4096):
            continue
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
async def port(tmp_path) -> AsyncIterator[Port]:
    made = Port(Authority(), tmp_path)
    made.handshakes.start()
    yield made
    await made.handshakes.close()
    await made.handshakes.close()
    for sock in made.silent:
        sock.close()
    made.sock.close()


async def test_who_shakes_hands_is_served(port: Port) -> None:
    """One after the other; nobody has to go for it."""
    for _ in range(2 * LIMIT):
        assert await port.hello() == b"hello"
    assert port.evicted == 0


async def test_silent_ones_make_room(port: Port) -> None:
    """The oldest first; descriptors are given back, and an operator is served at once."""
    files = descriptors()
    port.say_nothing(40)
    await eventually_async(lambda: port.evicted == 40 - LIMIT)
    assert await port.hello() == b"hello"
    await eventually_async(lambda: sum(map(ended, port.silent)) >= 40 - LIMIT)
    assert not ended(port.silent[-1])
    await eventually_async(lambda: descriptors() <= files + 40 + LIMIT)


async def test_rubbish_ends_its_own_connection_only(port: Port, caplog) -> None:
    """It is nothing for the log."""
    port.say_nothing(1)
    port.silent[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
    await eventually_async(lambda: ended(port.silent[0]))
    assert await port.hello() == b"hello"
    assert caplog.records == []


async def test_without_a_descriptor_it_pauses_and_goes_on(port: Port, monkeypatch, caplog) -> None:
    """One line in the log, no loop without end, and whoever waited is accepted then."""
    monkeypatch.setattr(handshakes, "PAUSE", 0.01)
    real = socket.socket.accept
    failures = [2]

    class Poor:
        def __getattr__(self, name: str):
            return getattr(port.sock, name)

        def accept(self):
            if failures[0]:
                failures[0] -= 1
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return real(port.sock)

    port.handshakes._sock = Poor()  # type: ignore[assignment]
    assert await port.hello() == b"hello"
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


async def test_the_end_ends_handshakes_that_have_begun(tmp_path) -> None:
    """Nothing is left of them: no task, no descriptor."""
    port = Port(Authority(), tmp_path)
    port.handshakes.start()
    port.say_nothing(LIMIT)
    await eventually_async(lambda: len(port.handshakes._tasks) == LIMIT)
    await port.handshakes.close()
    await eventually_async(lambda: all(map(ended, port.silent)))
    assert not [task for task in asyncio.all_tasks() if "TLS handshake" in task.get_name()]
    for sock in port.silent:
        sock.close()
    port.sock.close()
