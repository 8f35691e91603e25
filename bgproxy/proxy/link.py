"""A worker's end of the link to the controller: snapshots and drains in, acknowledgements and failures out."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING, Any, cast

from bgproxy.proxy.accesslog import AccessLog
from bgproxy.proxy.dial import warm
from bgproxy.switchboard import messages

if TYPE_CHECKING:
    from bgproxy.proxy.context import Context
    from bgproxy.proxy.runtime import Pool, Upstream

log = logging.getLogger("bgproxy.worker")


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
        self._send(messages.Hello(self._context.index, os.getpid()))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the reason changes nothing
        """The controller has gone."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Bytes from the controller."""
        for message in self._decoder.feed(data):
            self._take(message)

    def _send(self, message: messages.ToController) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(messages.encode(message))

    def _take(self, message: Any) -> None:
        context = self._context
        if isinstance(message, messages.Snapshot):
            if message.proxy is not None:
                context.set_proxy(message.proxy)
                self._set_access_log(message.proxy.access_log)
            context.set_services(message.services, message.removed, whole=message.whole)
            self._routed.set()
            self._send(messages.Ack(message.number))
        elif isinstance(message, messages.Flush):
            context.flush()
            self._send(messages.Ack(message.number))
        elif isinstance(message, messages.DrainPool):
            pool = self._pool(message.service, message.pool)
            if pool is not None:
                pool.draining_since = message.since
                for upstream in pool.upstreams:
                    context.close_idle(upstream)
        elif isinstance(message, messages.UndrainPool):
            pool = self._pool(message.service, message.pool)
            if pool is not None:
                pool.draining_since = -1.0
        elif isinstance(message, messages.Warm):
            pool = self._pool(message.service, message.pool)
            for upstream in pool.ready if pool is not None else []:
                task = context.loop.create_task(warm(context, upstream, message.connections), name="warm")
                context.own(task)

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
                self._send(failure)
            self._failures.clear()
