"""A worker process: its loop, its listeners, its leash, and its end."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
from typing import TYPE_CHECKING, Any, Final, cast

import uvloop

from bgproxy.config.schema import Listen
from bgproxy.proxy import descriptors
from bgproxy.proxy.client import ClientConnection
from bgproxy.proxy.context import SWEEP, Context
from bgproxy.proxy.heads import Listener
from bgproxy.proxy.introduced import IntroducedServer
from bgproxy.proxy.link import Link
from bgproxy.proxy.tcp import TcpClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from bgproxy.switchboard.messages import ToController
    from bgproxy.switchboard.wiring import WorkerBirth

log = logging.getLogger("bgproxy.worker")

_SESSION_MINUTE: Final = 60.0
#: Seconds for which a stopping worker still accepts, so that connections that wait in its sockets are served.
_LAST_ACCEPTS: Final = 0.05


def run(birth: WorkerBirth) -> int:
    """Serve until SIGTERM, or until the supervisor has gone; returns the exit status."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Worker(birth).main())


class Worker:
    """One worker."""

    def __init__(self, birth: WorkerBirth) -> None:
        self._birth = birth
        self._listens = birth.listens or [Listen(address="")] * len(birth.listeners)
        self._stop = asyncio.Event()
        self._routed = asyncio.Event()
        self._servers: list[asyncio.Server | IntroducedServer] = []
        self._link: Link | None = None
        self._links: set[asyncio.Task[None]] = set()

    async def main(self) -> int:
        """Wait for a snapshot, serve, and drain at the end."""
        loop = asyncio.get_running_loop()
        birth = self._birth
        context = self._context = Context(loop, birth.board, birth.index, birth.workers)
        context.failed = self._failed
        context.tell = self._say
        if any(listen.tls is not None for listen in self._listens):
            from bgproxy.proxy.tls import CLIENT_CERT_NAMES, Tls  # noqa: PLC0415 - `ssl` is for those who use it

            context.tls = Tls(context, self._listens)
            if any(listen.tls is not None and listen.tls.client_ca is not None for listen in self._listens):
                # Through whichever listener: an upstream cannot tell which one a request came by (RFC 9440 section 2.4).
                context.remove_names(CLIENT_CERT_NAMES)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)  # the controller's business
        loop.add_signal_handler(signal.SIGUSR1, self._reopen_logs)
        birth.leash.setblocking(False)
        loop.add_reader(birth.leash.fileno(), self._on_leash)
        sweeper = loop.create_task(self._sweep(context), name="sweep")
        self._link = await Link.open(context, self._routed, birth.link)
        stop = loop.create_task(self._stop.wait(), name="stop")
        routed = loop.create_task(self._routed.wait(), name="routed")
        await asyncio.wait({stop, routed}, return_when=asyncio.FIRST_COMPLETED)
        routed.cancel()
        if not self._stop.is_set():
            await self._listen(context)
            self._tell({"serving": True})
            await stop
        await self._drain(context)
        sweeper.cancel()
        for task in [*context.tasks, *self._links]:
            task.cancel()
        await asyncio.gather(sweeper, stop, routed, *context.tasks, *self._links, return_exceptions=True)
        if context.access_log is not None:
            context.access_log.close()
        return 0

    # --- serving ----------------------------------------------------------------------------------------------------

    async def _listen(self, context: Context) -> None:
        loop = context.loop
        backlog = self._reckon(context)
        for listener, listen in zip(self._birth.listeners, self._listens, strict=True):
            listener.setblocking(False)
            factory = self._protocol(context, listen, _about(listener, listen))
            tls = self._tls_options(context, listen)
            # A descriptor of our own: closing the server must not close the one that a successor may need.
            own = socket.socket(listener.family, listener.type, fileno=os.dup(listener.fileno()))
            server: asyncio.Server | IntroducedServer
            if listen.proxy_protocol == "on":
                own.listen(backlog)
                server = IntroducedServer(context, own, factory, tls)
                server.start()
            elif listener.family == socket.AF_UNIX:
                server = await loop.create_unix_server(factory, sock=own, backlog=backlog, **tls)
            else:
                server = await loop.create_server(factory, sock=own, backlog=backlog, **tls)
            self._servers.append(server)

    def _protocol(self, context: Context, listen: Listen, about: Listener) -> Callable[[], asyncio.Protocol]:
        """What makes the protocol of a connection that was accepted."""
        made = _factory(context, about) if listen.mode == "http" else _tcp_factory(context, listen.service or "")
        factory = cast("Callable[[], asyncio.Protocol]", made)
        return factory if listen.tls is None else context.tls.counting(factory, listen)

    def _tls_options(self, context: Context, listen: Listen) -> dict[str, Any]:
        """What a server needs to know for TLS. Its handshake may take as long as a head (`timeouts.header`)."""
        if listen.tls is None:
            return {}
        from bgproxy.proxy.tls import SHUTDOWN  # noqa: PLC0415 - only where a listener has TLS

        within = {"ssl_handshake_timeout": context.timeouts.header, "ssl_shutdown_timeout": SHUTDOWN}
        return {"ssl": context.tls.context_of(listen), **within}

    def _reckon(self, context: Context) -> int:
        """Have no more connections than there are descriptors for; how many may wait at each listener."""
        share = -(-context.limits.connections // context.workers)
        count, backlog = descriptors.divide(
            descriptors.allowed(), descriptors.in_use(), share, len(self._birth.listeners)
        )
        context.set_descriptors(count)
        return backlog

    async def _sweep(self, context: Context) -> None:
        minute = context.now + _SESSION_MINUTE
        while True:
            await asyncio.sleep(SWEEP)
            context.sweep()
            for server in self._servers:
                if isinstance(server, IntroducedServer):
                    server.sweep(context.now)
            if self._link is not None:
                self._link.flush()
            if context.now >= minute:
                minute = context.now + _SESSION_MINUTE
                context.age_sessions()

    def _failed(self, upstream: object, reason: str) -> None:
        if self._link is not None:
            self._link.failed(upstream, reason)  # type: ignore[arg-type] # compiled code calls with its own class

    def _say(self, message: ToController) -> None:
        if self._link is not None:
            self._link.say(message)

    def _reopen_logs(self) -> None:
        if self._context.access_log is not None:
            try:
                self._context.access_log.reopen()
            except OSError as error:
                log.error("access log: %s; the old file is kept open", error.strerror)  # noqa: TRY400

    # --- the leash --------------------------------------------------------------------------------------------------

    def _on_leash(self) -> None:
        """The supervisor hands down a new link, or has gone."""
        leash = self._birth.leash
        try:
            data, descriptors, _, _ = socket.recv_fds(leash, 65536, 16)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        loop = self._context.loop
        for descriptor in descriptors:
            end = socket.socket(fileno=descriptor)
            task = loop.create_task(self._relink(end), name="relink")
            self._links.add(task)
            task.add_done_callback(self._links.discard)
        if not data:
            loop.remove_reader(leash.fileno())
            self._stop.set()

    async def _relink(self, end: socket.socket) -> None:
        self._link = await Link.open(self._context, self._routed, end)

    def _tell(self, message: dict[str, object]) -> None:
        try:
            self._birth.leash.send(json.dumps(message).encode() + b"\n")
        except OSError:
            log.warning("the supervisor does not take messages")

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _drain(self, context: Context) -> None:
        """Stop accepting, end what is idle, let the rest end by `timeouts.shutdown`, and cut what is left."""
        loop = context.loop
        deadline = loop.time() + context.timeouts.shutdown
        context.stopping = True
        await asyncio.sleep(_LAST_ACCEPTS)
        for server in self._servers:
            server.close()
        for listener in self._birth.listeners:
            listener.close()  # the last copy: from now on the kernel refuses connections instead of queueing them
        for client in list(context.clients):
            client.retire()
        for server_connection in list(context.servers):
            # One that was made a moment ago has no exchange yet either, but a request that waits for it.
            if server_connection in server_connection.upstream.idle:
                server_connection.close()
        while (context.clients or context.streams) and loop.time() < deadline:
            await asyncio.sleep(SWEEP / 4)
        for client in list(context.clients):
            client.closed_because = "stopping"
            client.abort()
        for stream in list(context.streams):
            stream.cut("stopping")
        await asyncio.sleep(0)
        context.flush()


def _about(listener: socket.socket, listen: Listen) -> Listener:
    unix = listener.family == socket.AF_UNIX
    port = 0 if unix else listener.getsockname()[1]
    tls = listen.tls
    return Listener(
        port,
        unix=unix,
        tls=tls is not None,
        hsts=None if tls is None else tls.hsts,
        redirect=listen.redirect,
        client_certificates=tls is not None and tls.client_ca is not None,
    )


def _factory(context: Context, listener: Listener) -> Callable[[], ClientConnection]:
    return lambda: ClientConnection(context, listener)


def _tcp_factory(context: Context, service: str) -> Callable[[], TcpClient]:
    return lambda: TcpClient(context, service)
