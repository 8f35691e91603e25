"""Connecting to upstreams: all that a worker awaits for a request, and therefore never compiled.

When a coroutine of mypyc's is cancelled, or what it awaits fails, it passes the exception on by the three arguments of
`throw` that CPython 3.12 and later warn of (mypyc issue 1214). Where warnings are errors, that warning would take the
place of the exception, and the request would wait for ever. So no compiled module awaits anything.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from bgproxy.proxy.tcp import Stream, TcpServer
from bgproxy.proxy.upstream import UpstreamConnection

if TYPE_CHECKING:
    from bgproxy.proxy.context import Context
    from bgproxy.proxy.exchange import Exchange
    from bgproxy.proxy.runtime import Upstream


#: No connection could be opened because this process, or this machine, lacks something: no fault of the upstream's.
_OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
#: What takes its time, too.
_TLS: Final = ", TLS included,"


async def dial(exchange: Exchange, upstream: Upstream) -> None:
    """Connect for a request within `timeouts.connect`; it is told how that ended."""
    context = exchange.context
    limit = context.timeouts.connect
    if not context.make_server_room():
        exchange.no_descriptor()
        return
    try:
        async with asyncio.timeout(limit):
            server = await open_connection(context, upstream, exchange.client.transport)
    except TimeoutError:
        exchange.unreachable(
            upstream, f"no connection{_TLS if upstream.secure else ''} within {limit:g}s", timed_out=True
        )
    except OSError as error:
        if error.errno in _OURS:
            exchange.no_descriptor()
            return
        word = getattr(error, "error", "")  # of a `TlsError`
        reason = str(error) if word else (error.strerror or str(error) or type(error).__name__).lower()
        exchange.unreachable(upstream, reason, timed_out=False, error=word or "connection_refused")
    else:
        exchange.connected(upstream, server)


async def warm(context: Context, upstream: Upstream, connections: int) -> None:
    """Open idle connections ahead of a switch, until there are `connections` of them; failures are left alone."""
    if not upstream.keeps:  # each begins with the address of the client that it is for
        return
    for _ in range(connections - len(upstream.idle)):
        if len(context.servers) >= context.max_servers:
            return
        try:
            async with asyncio.timeout(context.timeouts.connect):
                server = await open_connection(context, upstream)
        except (OSError, TimeoutError):
            return
        if server.usable():  # it may have ended in the moment between
            server.release()


async def open_connection(
    context: Context, upstream: Upstream, client: asyncio.BaseTransport | None = None
) -> UpstreamConnection:
    """Connect to an upstream, for a client where there is one. Raises `OSError`; the caller sets the deadline."""
    connection = UpstreamConnection(context, upstream)
    header = b""
    if upstream.send_proxy != "off" or upstream.secure:
        from bgproxy.proxy.upstream_tls import header_for, open_secure  # noqa: PLC0415 - for who needs it

        if upstream.send_proxy != "off":
            header = header_for(upstream, client)
        if upstream.secure:
            return await open_secure(context, upstream, connection, header)
    loop = context.loop
    factory = cast("Callable[[], asyncio.Protocol]", lambda: connection)
    if upstream.path:
        await loop.create_unix_connection(factory, upstream.path)
    else:
        await loop.create_connection(factory, upstream.host, upstream.port)
    if header:
        connection.write(header)
    return connection


async def dial_stream(stream: Stream, upstream: Upstream) -> None:
    """Connect for a connection in mode tcp within `timeouts.connect`. It begins with the connection itself: see `TcpServer`."""
    context = stream.context
    limit = context.timeouts.connect
    if not context.make_server_room():
        stream.no_descriptor()
        return
    prelude = b""
    if upstream.send_proxy != "off":
        from bgproxy.proxy.upstream_tls import header_for  # noqa: PLC0415 - for who needs it

        prelude = header_for(upstream, stream.client.transport)
    factory = cast("Callable[[], asyncio.Protocol]", lambda: TcpServer(stream, upstream, prelude))
    try:
        async with asyncio.timeout(limit):
            if upstream.path:
                await context.loop.create_unix_connection(factory, upstream.path)
            else:
                await context.loop.create_connection(factory, upstream.host, upstream.port)
    except TimeoutError:
        stream.unreachable(upstream, f"no connection within {limit:g}s")
    except OSError as error:
        if error.errno in _OURS:
            stream.no_descriptor()
            return
        stream.unreachable(upstream, (error.strerror or str(error) or type(error).__name__).lower())
