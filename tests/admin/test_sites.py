"""What was no request is answered as everything else is; how sockets are served is in test_app and test_tls."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest
from support.fake_controller import FakeController, config

from bgproxy.admin.app import AdminServer


@pytest.fixture
async def address():
    """The API on a real socket, as the controller serves it."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    controller = FakeController(config())
    server = AdminServer(controller, controller.config)
    await server.start([sock])
    yield sock.getsockname()
    await server.stop()
    sock.close()


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nIf-Match: a\x00b\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_malformed(address, said):
    """400 as problem+json, not signed by a library, and the connection ends."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(said)
    async with asyncio.timeout(5):
        text = await reader.read()
    writer.close()
    head, _, body = text.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert b"Content-Type: application/problem+json" in head
    assert b"Server: bgproxy\r\n" in head
    problem = json.loads(body)
    assert problem["type"] == "urn:bgproxy:problem:malformed"
    assert len(problem["detail"]) < 300
