"""A worker's end of the link to the controller: snapshots and drains in, acknowledgements and failures out."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING, Any, Final, cast

from bgproxy.model.classes import REQUESTS
from bgproxy.proxy.accesslog import AccessLog
from bgproxy.proxy.dial import warm
from bgproxy.switchboard import messages

if TYPE_CHECKING:
    from bgproxy.proxy.context import Context
    from bgproxy.proxy.runtime import Pool, Upstream

log = logging.getLogger("bgproxy.worker")

#: Connections that are opened ahead to one upstream at most; so many that nobody need wait for them; and seconds for which
#: one that was used is taken to be needed.
_MOST_WARM: Final = 64
_FEW: Final = 4
_LATELY: Final = 1.0
#: Idle connections to a pool that is live no more which are closed in one stretch, and seconds between two of those.
_CLOSED_AT_ONCE: Final = 8
_CLOSING_PAUSE: Final = 0.005


class Link(asyncio.Protocol):
    """The link; when it ends the worker goes on serving with what it knows, and waits for a new one."""

    def __init__(self, context: Context, routed: asyncio.Event) -> None:
        self._context = context
        self._routed = routed  # set once a first snapshot is in force
        self._decoder = messages.Decoder()
        self._transport: asyncio.WriteTransport | None = None
        self._failures: dict[str, messages.UpstreamFailed] = {}

    @classmethod
    async def open(cls, context: Context, routed: asyncio.Event, end: socket.socket) -> Link:
        """Speak over a link that the supervisor has handed down."""
        end.setblocking(False)
        _, link = await context.loop.create_unix_connection(lambda: cls(context, routed), sock=end)
        return link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say who we are."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's does not inherit from it
        for service in self._context.tapped:
            if service.tap is not None:
                service.tap.relinked()
        self.say(messages.Hello(self._context.index, os.getpid()))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the reason changes nothing
        """The controller has gone."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Bytes from the controller."""
        for message in self._decoder.feed(data):
            self._take(message)

    def say(self, message: messages.ToController) -> None:
        """Tell the controller, if there is one."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(messages.encode(message))

    def _take(self, message: Any) -> None:
        context = self._context
        if isinstance(message, messages.Snapshot):
            if message.proxy is not None:
                if context.tls is not None:
                    context.tls.take(message.proxy)
                context.set_proxy(message.proxy)
                self._set_access_log(message.proxy.access_log)
            context.set_services(message.services, message.removed, whole=message.whole)
            self._routed.set()
            self.say(messages.Ack(message.number))
        elif isinstance(message, messages.Flush):
            context.flush()
            self.say(messages.Ack(message.number))
        elif isinstance(message, messages.DrainPool):
            pool = self._pool(message.service, message.pool)
            if pool is not None:
                pool.draining_since = message.since
                context.own(context.loop.create_task(_close_idle(context, pool), name="close idle"))
        elif isinstance(message, messages.UndrainPool):
            pool = self._pool(message.service, message.pool)
            if pool is not None:
                pool.draining_since = -1.0
        elif isinstance(message, messages.MirrorCredit):
            known = context.services.get(message.service)
            if known is not None and known.tap is not None:
                known.tap.credit(message.number, message.count)
        elif isinstance(message, messages.AskRecent):
            known = context.services.get(message.service)
            targets = () if known is None or known.tap is None else known.tap.most(message.limit)
            self.say(messages.Recent(message.number, message.service, targets))
        elif isinstance(message, messages.Warm):
            context.own(context.loop.create_task(self._warm(message), name="warm"))

    async def _warm(self, message: messages.Warm) -> None:
        """One connection after the other to an upstream, so that requests are served in between."""
        context = self._context
        opening = []
        most = 0
        for service, index in message.pools:
            pool = self._pool(service, index)
            if pool is None or pool.service.tcp or not pool.ready:
                continue
            if pool.draining_since >= 0.0:  # one that drains keeps no connection
                continue
            needed = _used_lately(context, pool.service.pools[context.board.live(pool.service.slot)])
            share = min(max(-(-needed // len(pool.ready)), 1), _MOST_WARM)
            most = max(most, share)
            opening += [warm(context, upstream, share) for upstream in pool.ready]
        done = messages.Ack(message.number)
        if most <= _FEW:
            self.say(done)
        await asyncio.gather(*opening)
        if most > _FEW:
            self.say(done)

    def _pool(self, service: str, pool: int) -> Pool | None:
        known = self._context.services.get(service)
        return known.pools[pool] if known is not None else None

    def _set_access_log(self, where: str) -> None:
        context = self._context
        current = context.access_log
        if current is not None and current.where != where:
            current.close()
            context.access_log = None
        if where != "off" and context.access_log is None:
            try:
                context.access_log = AccessLog(where)
            except OSError as error:
                log.error("access log: %s: %s; requests are not logged", where, error.strerror)  # noqa: TRY400

    def failed(self, upstream: Upstream, reason: str) -> None:
        """Tell the controller of a failure: the first at once, those that follow within a sweep together."""
        known = self._failures.get(upstream.id)
        count = 1 if known is None else known.count + 1
        service, pool = upstream.pool.service.name, upstream.pool.index
        self._failures[upstream.id] = messages.UpstreamFailed(upstream.id, service, pool, count, reason)

    def flush(self) -> None:
        """Send the failures that have gathered; called by every sweep."""
        if self._failures:
            for failure in self._failures.values():
                self.say(failure)
            self._failures.clear()


def _used_lately(context: Context, pool: Pool) -> int:
    """How many connections the requests to a pool needed at a time, within about a second."""
    since = context.now + context.timeouts.upstream_idle - _LATELY
    count = pool.in_flight[REQUESTS]
    for upstream in pool.upstreams:
        for connection in reversed(upstream.idle):  # the most lately used last
            if connection.deadline < since:
                break
            count += 1
    return count


async def _close_idle(context: Context, pool: Pool) -> None:
    """Close what is idle now, a few at a time, since requests would wait for all of it; until the pool is live again."""
    idle = [connection for upstream in pool.upstreams for connection in upstream.idle]
    for start in range(0, len(idle), _CLOSED_AT_ONCE):
        for connection in idle[start : start + _CLOSED_AT_ONCE]:
            if connection in connection.upstream.idle:
                connection.upstream.idle.remove(connection)
                connection.close()
        await asyncio.sleep(_CLOSING_PAUSE)
        if context.board.live(pool.service.slot) == pool.index:
            return
