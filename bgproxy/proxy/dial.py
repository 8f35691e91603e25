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

from bgproxy.proxy.upstream import UpstreamConnection

if TYPE_CHECKING:
    from bgproxy.proxy.context import Context
    from bgproxy.proxy.exchange import Exchange
    from bgproxy.proxy.runtime import Upstream


#: No connection could be opened because this process, or this machine, lacks something: no fault of the upstream's.
_OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


async def dial(exchange: Exchange, upstream: Upstream) -> None:
    """Connect for a request within `timeouts.connect`; it is told how that ended."""
    context = exchange.context
    limit = context.timeouts.connect
    if not context.make_server_room():
        exchange.no_descriptor()
        return
    try:
        async with asyncio.timeout(limit):
            server = await open_connection(exchange.context, upstream)
    except TimeoutError:
        exchange.unreachable(upstream, f"no connection within {limit:g}s", timed_out=True)
    except OSError as error:
        if error.errno in _OURS:
            exchange.no_descriptor()
            return
        reason = (error.strerror or str(error) or type(error).__name__).lower()
        exchange.unreachable(upstream, reason, timed_out=False)
    else:
        exchange.connected(upstream, server)


async def warm(context: Context, upstream: Upstream, connections: int) -> None:
    """Open idle connections ahead of a switch, until there are `connections` of them; failures are left alone."""
    for _ in range(connections - len(upstream.idle)):
        if len(context.servers) >= context.max_servers:
            return
        try:
            async with asyncio.timeout(context.timeouts.connect):
                (await open_connection(context, upstream)).release()
        except (OSError, TimeoutError):
            return


async def open_connection(context: Context, upstream: Upstream) -> UpstreamConnection:
    """Connect to an upstream. Raises `OSError`; the caller sets the deadline."""
    connection = UpstreamConnection(context, upstream)
    loop = context.loop
    factory = cast("Callable[[], asyncio.Protocol]", lambda: connection)
    if upstream.path:
        await loop.create_unix_connection(factory, upstream.path)
    else:
        await loop.create_connection(factory, upstream.host, upstream.port)
    return connection
