"""Connections to upstreams over TLS, and with a PROXY header before all else; imported by the first that needs either."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from bgproxy.config.upstream_tls import context_of, explain
from bgproxy.proxy.proxy_protocol import encode

if TYPE_CHECKING:
    from bgproxy.proxy.context import Context
    from bgproxy.proxy.runtime import Upstream
    from bgproxy.proxy.upstream import UpstreamConnection

#: Seconds that an upstream has to say that it, too, has ended TLS, and to take what was written.
_SHUTDOWN: Final = 2.0
#: Bytes that may wait decrypted while reading is paused. So few that the end of the connection, which would take with it what
#: waits, is not met before that has been read (uvloop's SSLProtocol.eof_received).
_WAITING: Final = 1
#: RFC 9209 section 2.3: what stands in our own configuration cannot be used.
_CONFIGURATION: Final = "proxy_configuration_error"


class TlsError(OSError):
    """No connection with TLS could be made: `str()` is for an operator, `error` is RFC 9209's word for it."""

    def __init__(self, text: str, error: str) -> None:
        super().__init__(text)
        self.error = error


async def open_secure(
    context: Context, upstream: Upstream, connection: UpstreamConnection, header: bytes
) -> UpstreamConnection:
    """Connect, send `header` in the clear, shake hands. Raises `OSError`; the caller sets the deadline."""
    tls = upstream.pool.tls
    if tls.trouble:
        raise TlsError(tls.trouble, _CONFIGURATION)
    factory = cast("Callable[[], asyncio.Protocol]", lambda: connection)
    name = upstream.server_name
    try:
        layer = context_of(tls.verify, tls.authorities, tls.chain, tls.secret)
        if header:
            sock = await _introduced(context, upstream, header)
            await context.loop.create_connection(
                factory, sock=sock, ssl=layer, server_hostname=name, ssl_shutdown_timeout=_SHUTDOWN
            )
        else:
            await context.loop.create_connection(
                factory,
                upstream.host,
                upstream.port,
                ssl=layer,
                server_hostname=name,
                ssl_shutdown_timeout=_SHUTDOWN,
            )
        if connection.transport is None:
            raise ConnectionResetError
    except OSError as error:
        text, word = explain(error, name)
        if not word:
            raise
        raise TlsError(text, word) from None
    connection.transport.set_read_buffer_limits(high=_WAITING, low=0)
    return connection


async def _introduced(context: Context, upstream: Upstream, header: bytes) -> socket.socket:
    """A socket that is connected, and on which the header has been sent."""
    sock = socket.socket(socket.AF_INET6 if ":" in upstream.host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await context.loop.sock_connect(sock, (upstream.host, upstream.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await context.loop.sock_sendall(sock, header)
    except BaseException:
        sock.close()
        raise
    return sock


def header_for(upstream: Upstream, client: asyncio.BaseTransport | None) -> bytes:
    """The PROXY header that announces a client to an upstream that wants one."""
    source = client.get_extra_info("peername") if client is not None else None
    destination = client.get_extra_info("sockname") if client is not None else None
    if not isinstance(source, tuple) or not isinstance(destination, tuple):
        return encode(upstream.send_proxy, None, None)
    return encode(upstream.send_proxy, (source[0], source[1]), (destination[0], destination[1]))


def why_lost(error: BaseException, upstream: Upstream) -> tuple[str, str]:
    """Why a connection that stood has ended, if TLS was it: for an operator, and RFC 9209's word; both empty otherwise."""
    return explain(error, upstream.server_name) if upstream.secure else ("", "")
