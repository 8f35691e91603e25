"""The server: on sockets that others have bound, TCP and Unix, and gone when it is told to."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import stat
import time

import pytest
import uvloop
from support.fake_controller import FakeController, config

from bgproxy.admin import app as app_module
from bgproxy.admin.app import AdminServer

DEADLINE = 5.0


def tcp() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


def unix(path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


async def ask(address, request: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to raw bytes."""
    async with asyncio.timeout(DEADLINE):
        opened = (
            asyncio.open_connection(*address) if isinstance(address, tuple) else asyncio.open_unix_connection(address)
        )
        reader, writer = await opened
        writer.write(request)
        text = await reader.read()
        writer.close()
    head, _, body = text.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def get(path: str, host: str = "localhost") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


def post(path: str) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_it_serves_on_tcp_and_unix_sockets_of_others(tmp_path, factory):
    """Both at once, on either loop; the path of the Unix socket stays when the server goes."""

    async def scenario():
        controller = FakeController(config())
        server = AdminServer(controller, controller.config)
        sockets = [tcp(), unix(tmp_path / "admin.sock")]
        address = sockets[0].getsockname()
        await server.start(sockets)
        try:
            assert (await ask(address, get("/v1/status")))[0] == 200
            status, body = await ask(str(tmp_path / "admin.sock"), get("/v1/status", "whatever"))
            assert (status, json.loads(body)["program"]) == (200, "bgproxy")
            assert (await ask(address, get("/v1/status", "whatever")))[0] == 403
            assert (await ask(str(tmp_path / "admin.sock"), post("/v1/reload")))[0] == 200
        finally:
            await server.stop()
        assert stat.S_ISSOCK((tmp_path / "admin.sock").stat().st_mode)
        for sock in sockets:
            sock.close()
        return controller.calls[0][1]["actor"].address

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(scenario()) == f"unix:uid={os.getuid()},pid={os.getpid()}"


async def test_it_can_be_served_again_by_a_successor(tmp_path):
    """The sockets are the supervisor's: a controller that is started anew gets duplicates of the same ones."""
    sockets = [tcp(), unix(tmp_path / "admin.sock")]
    for _ in range(2):
        controller = FakeController(config())
        server = AdminServer(controller, controller.config)
        await server.start([sock.dup() for sock in sockets])
        assert (await ask(sockets[0].getsockname(), get("/healthz")))[0] == 200
        assert (await ask(str(tmp_path / "admin.sock"), get("/healthz")))[0] == 200
        await server.stop()
    for sock in sockets:
        sock.close()


async def test_a_stop_ends_streams_and_waits_only_so_long_for_answers(monkeypatch):
    """An event stream ends at once; a switch that waits for its drain is cut when the time is over."""
    monkeypatch.setattr(app_module, "STOP_WITHIN", 0.1)
    controller = FakeController(config())
    controller.gate = asyncio.Event()
    server = AdminServer(controller, controller.config)
    sock = tcp()
    address = sock.getsockname()
    await server.start([sock])
    stream = asyncio.create_task(ask(address, get("/v1/events")))
    waiting = asyncio.create_task(ask(address, post("/v1/services/shop/switch")))
    await asyncio.wait_for(controller.held.wait(), DEADLINE)
    async with asyncio.timeout(DEADLINE):
        while not controller.events.followers:
            await asyncio.sleep(0.001)
    began = time.monotonic()
    await server.stop()
    assert time.monotonic() - began < 2.0
    assert (await stream)[0] == 200
    with pytest.raises((IndexError, ConnectionError)):
        await waiting
    assert controller.events.followers == 0


async def test_a_stop_without_a_start_is_fine():
    """Closing is idempotent."""
    controller = FakeController(config())
    server = AdminServer(controller, controller.config)
    await server.stop()
    await server.stop()


async def test_rubbish_gets_400_and_no_traceback_in_the_log(caplog):
    """Bytes that are no HTTP are their sender's affair."""
    caplog.set_level(logging.INFO)
    controller = FakeController(config())
    server = AdminServer(controller, controller.config)
    sock = tcp()
    address = sock.getsockname()
    await server.start([sock])
    try:
        for rubbish in (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n"):
            status, body = await ask(address, rubbish)
            assert status == 400
            assert b"Traceback" not in body
    finally:
        await server.stop()
    assert caplog.records == []


async def test_the_server_does_not_say_which_library_it_is(api):
    """No version of anything in the headers."""
    for path in ("/healthz", "/nothing"):
        async with api.get(path) as answer:
            assert answer.headers["Server"] == "bgproxy"
