"""Upstreams that speak TLS, for tests: scripted ones on the test's loop, and `Backend`s in threads."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path
from typing import Any

from support.backends import Backend
from support.certificates import Authority, Files
from support.dataplane import DataPlane, ScriptedUpstream, answering

from bgproxy.model.snapshot import PoolSpec, TlsSpec, UpstreamSpec


def server_context(own: Files, clients: Authority | None = None) -> ssl.SSLContext:
    """What an upstream uses; with `clients` it asks for a certificate of that authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.cert, own.key)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=clients.root.pem().decode())
    return context


class TlsUpstream(ScriptedUpstream):
    """A scripted upstream behind TLS; `asked` are the names that it was asked for (SNI)."""

    def __init__(self, script: Any, context: ssl.SSLContext) -> None:
        super().__init__(script)
        self.context = context
        self.asked: list[str | None] = []
        context.sni_callback = lambda _layer, name, _context: self.asked.append(name)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.context)
        self.port = self._server.sockets[0].getsockname()[1]


async def tls_upstream(plane: DataPlane, script: Any, context: ssl.SSLContext) -> TlsUpstream:
    """Start one for a data plane; a response in bytes is a script that answers with it."""
    holder: list[ScriptedUpstream] = []
    upstream = TlsUpstream(answering(script, holder) if isinstance(script, bytes) else script, context)
    holder.append(upstream)
    await upstream.start()
    plane.upstreams.append(upstream)
    return upstream


def secure(port: int, host: str = "app.test", slot: int = 0) -> UpstreamSpec:
    """The spec of `https://HOST:PORT`, which is on the loopback."""
    return UpstreamSpec(f"{host}:{port}", slot, f"https://{host}:{port}", ("127.0.0.1", port), usable=True)


async def serve(
    plane: DataPlane, *upstreams: UpstreamSpec, tls: TlsSpec, send_proxy: Any = "off", **rules: Any
) -> None:
    """Take a snapshot whose blue pool is spoken to so."""
    spec = await plane.serve(list(upstreams), **rules)
    blue = PoolSpec("blue", "", spec.pools[0].upstreams, tls, send_proxy)
    plane.change(spec, pools=(blue, spec.pools[1]))


class TlsBackend(Backend):
    """A `Backend` behind TLS; `context` may be another one at any time, and holds for the connections from then on.

    With `lines`, each connection begins with a PROXY line in the clear, which is kept there.
    """

    def __init__(
        self, pool: str, context: ssl.SSLContext, host: str = "127.0.0.1", *, lines: list[bytes] | None = None
    ) -> None:
        super().__init__(pool)
        self.lines = lines
        self.context = context
        self.url = f"https://{host}:{self.port}"

    def _serve(self, sock: socket.socket) -> None:
        try:
            if self.lines is not None:
                line = b""
                while not line.endswith(b"\n"):
                    line += sock.recv(1)
                self.lines.append(line)
            wrapped = self.context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=True)
        except OSError:
            with self._lock:
                self.open.discard(sock)
            sock.close()
            return
        with self._lock:
            self.open.discard(sock)
            self.open.add(wrapped)
        try:
            super()._serve(wrapped)
        finally:
            with contextlib.suppress(OSError):
                wrapped.close()


def issue(folder: Path, *names: str, **options: Any) -> tuple[Authority, Files]:
    """An authority, and a certificate of it."""
    authority = Authority()
    return authority, authority.issue(folder, *(names or ("app.test",)), **options)


def contents(own: Files) -> tuple[bytes, bytes]:
    """Of the certificate with its chain, and of the key."""
    return Path(own.cert).read_bytes(), Path(own.key).read_bytes()
