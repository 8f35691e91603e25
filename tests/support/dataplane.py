"""A data plane within the test: a worker's context, its listener and scripted upstreams, on the test's own loop.

No process and no controller: the test itself says what the snapshot is and who is live, so that it can look at every
object in between. Sockets are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Self

from bgproxy.config import schema
from bgproxy.model.snapshot import PoolSpec, ProxySpec, ServiceSpec, UpstreamSpec
from bgproxy.proxy.client import ClientConnection
from bgproxy.proxy.context import Context
from bgproxy.proxy.heads import Listener
from bgproxy.switchboard.board import Switchboard

PATIENCE = 5.0
KEY = bytes(32)


class ScriptedUpstream:
    """An upstream whose connections run a coroutine of the test's: `script(reader, writer)`."""

    def __init__(self, script: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        self.script = script
        self.connections = 0
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self.script(reader, writer)
        self._tasks.discard(task)
        with contextlib.suppress(ConnectionError, RuntimeError):
            writer.close()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def read_head(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)


def answering(response: bytes, upstream: list[ScriptedUpstream] | None = None) -> Any:
    """A script: every request without a body gets this response, on one connection."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if upstream:
                upstream[0].heads.append(head)
            writer.write(response)

    return script


OK = b"HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 00:00:00 GMT\r\nContent-Length: 2\r\n\r\nok"


class DataPlane:
    """One service, `shop`, with scripted upstreams in both pools."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.board = Switchboard(1)
        self.upstreams: list[ScriptedUpstream] = []
        self.failures: list[tuple[str, str]] = []
        self.port = 0
        self.clients: list[ClientConnection] = []
        self.wires: list[Wire] = []
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self.board.settle(0, 0)
        self.context = Context(loop, self.board, 0, 1)
        self.context.failed = lambda upstream, reason: self.failures.append((upstream.id, reason))
        self.context.set_proxy(
            ProxySpec(
                limits=self.settings.pop("limits", schema.Limits()),
                timeouts=self.settings.pop("timeouts", schema.Timeouts()),
                trusted_proxies=self.settings.pop("trusted_proxies", ()),
                access_log="off",
                session_key=KEY,
            )
        )
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.listen(64)
        self.port = sock.getsockname()[1]
        self.listener = Listener(self.port, unix=False)
        self._server = await loop.create_server(self._client, sock=sock)  # type: ignore[type-var]
        self._sweeper = loop.create_task(self._sweep())
        return self

    def _client(self) -> Any:
        client = ClientConnection(self.context, self.listener)
        self.clients.append(client)
        return client

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(0.02)
            self.context.sweep()

    async def __aexit__(self, *_: object) -> None:
        assert self._sweeper is not None
        self._sweeper.cancel()
        await asyncio.gather(self._sweeper, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        for wire in self.wires:
            wire.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(PATIENCE):  # a test that failed may have left what nobody reads
                    await wire.writer.wait_closed()
            wire.writer.transport.abort()
        for client in list(self.context.clients):
            client.abort()
        for server in list(self.context.servers):
            server.close()
        for task in list(self.context.tasks):
            task.cancel()
        await asyncio.gather(*self.context.tasks, return_exceptions=True)
        for upstream in self.upstreams:
            await upstream.stop()
        await asyncio.sleep(0)

    async def upstream(self, script: Any) -> ScriptedUpstream:
        """Start a scripted upstream; a response in bytes is a script that answers with it."""
        holder: list[ScriptedUpstream] = []
        upstream = ScriptedUpstream(answering(script, holder) if isinstance(script, bytes) else script)
        holder.append(upstream)
        await upstream.start()
        self.upstreams.append(upstream)
        return upstream

    async def serve(self, blue: Any = (), green: Any = (), **rules: Any) -> ServiceSpec:
        """Take a snapshot with these upstreams (ScriptedUpstream, a port, or an UpstreamSpec) and rules."""
        spec = ServiceSpec(
            name=rules.pop("name", "shop"),
            slot=rules.pop("slot", 0),
            hosts=rules.pop("hosts", ()),
            path=rules.pop("path", "/"),
            pools=(pool_spec("blue", blue, 0), pool_spec("green", green, 100)),
            balance=rules.pop("balance", "least_requests"),
            retries=schema.Retries(attempts=rules.pop("retries", 1)),
            sessions=rules.pop("sessions", schema.Sessions()),
            preview=rules.pop("preview", schema.Preview()),
            drain=rules.pop("drain", schema.Drain()),
            expose_pool=rules.pop("expose_pool", False),
        )
        assert not rules, rules
        self.context.set_services((spec,), (), whole=True)
        return spec

    def change(self, spec: ServiceSpec, **changes: Any) -> ServiceSpec:
        spec = replace(spec, **changes)
        self.context.set_services((spec,), (), whole=True)
        return spec

    def switch(self, pool: int, *, drain: bool = True) -> None:
        """What the controller does: commit, then tell of the drain."""
        self.board.commit({0: pool})
        if drain:
            service = self.context.services["shop"]
            service.pools[pool].draining_since = -1.0
            old = service.pools[1 - pool]
            old.draining_since = asyncio.get_running_loop().time()
            for upstream in old.upstreams:
                self.context.close_idle(upstream)

    @property
    def blue(self) -> Any:
        return self.context.services["shop"].pools[0]

    @property
    def green(self) -> Any:
        return self.context.services["shop"].pools[1]

    async def connect(self) -> Wire:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 26)
        wire = Wire(reader, writer)
        self.wires.append(wire)
        return wire

    async def ask(self, data: bytes) -> SimpleNamespace:
        """One request on a connection of its own."""
        wire = await self.connect()
        try:
            wire.send(data)
            return await wire.response(head_only=data.startswith(b"HEAD"))
        finally:
            wire.close()


def pool_spec(name: str, upstreams: Any, slot: int, version: str = "") -> PoolSpec:
    specs = []
    for number, upstream in enumerate(upstreams if isinstance(upstreams, list | tuple) else [upstreams]):
        if isinstance(upstream, UpstreamSpec):
            specs.append(upstream)
            continue
        port = upstream if isinstance(upstream, int) else upstream.port
        url = f"http://127.0.0.1:{port}"
        specs.append(UpstreamSpec(f"127.0.0.1:{port}", slot + number, url, ("127.0.0.1", port), usable=True))
    return PoolSpec(name, version, tuple(specs))


class Wire:
    """A client's connection, raw."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> SimpleNamespace:
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE)
        lines = raw[:-4].split(b"\r\n")
        headers = [
            (name.lower().decode(), value.strip().decode("latin-1"))
            for name, _, value in (line.partition(b":") for line in lines[1:])
        ]
        return SimpleNamespace(
            status=int(lines[0].split()[1]), raw=raw, headers=headers, get=dict(headers).get, body=b""
        )

    async def response(self, *, head_only: bool = False) -> SimpleNamespace:
        """A whole response, by its framing; `.closed` when the body ended with the connection."""
        response = await self.head()
        response.closed = False
        if head_only or response.status in (204, 304) or response.status < 200:
            return response
        if response.get("transfer-encoding") == "chunked":
            response.trailers = []
            while size := int((await self.line()).split(b";")[0], 16):
                response.body += await asyncio.wait_for(self.reader.readexactly(size), PATIENCE)
                assert await self.line() == b""
            while line := await self.line():
                response.trailers.append(line)
        elif response.get("content-length") is not None:
            length = int(response.get("content-length"))
            response.body = await asyncio.wait_for(self.reader.readexactly(length), PATIENCE)
        else:
            response.body = await asyncio.wait_for(self.reader.read(), PATIENCE)
            response.closed = True
        return response

    async def line(self) -> bytes:
        return (await asyncio.wait_for(self.reader.readuntil(b"\r\n"), PATIENCE))[:-2]

    async def ended(self) -> bytes:
        """What comes until the connection ends."""
        return await asyncio.wait_for(self.reader.read(), PATIENCE)

    def close(self) -> None:
        self.writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with RST, as a client does that is gone for good."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def until(condition: Callable[[], Any], within: float = PATIENCE) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.002)


def get(target: str = "/", *headers: str, version: str = "HTTP/1.1", method: str = "GET") -> bytes:
    lines = [f"{method} {target} {version}", "Host: shop.test", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
