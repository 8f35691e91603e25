"""The admin API as a whole: its application, and the server that serves it on sockets that others have bound."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from bgproxy.admin import events, health, history, metrics, openapi, pools, problems, reload, services, status, switches
from bgproxy.admin.auth import Authority
from bgproxy.admin.crowd import Crowd, most
from bgproxy.admin.endpoint import ANSWERS, AUTHORITY, CONTROLLER, Endpoint
from bgproxy.admin.guard import Guard
from bgproxy.admin.idempotency import Answers
from bgproxy.config.schema import Config
from bgproxy.control.controller import Controller

log = logging.getLogger("bgproxy.admin")

#: Every call of the API. What is not here is not served, and what is here is described.
ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    *status.ENDPOINTS,
    *services.ENDPOINTS,
    *switches.ENDPOINTS,
    *pools.ENDPOINTS,
    *history.ENDPOINTS,
    *events.ENDPOINTS,
    *reload.ENDPOINTS,
    *metrics.ENDPOINTS,
    *health.ENDPOINTS,
    *openapi.ENDPOINTS,
)

#: Seconds that answers under way may take at a stop; the calls themselves are never waited for longer.
STOP_WITHIN: Final = 2.0
_BACKLOG: Final = 128


def make_app(controller: Controller, config: Config) -> web.Application:
    """The application.

    Raises:
        StartError: a token cannot be read, or an address beyond this machine has no tokens.
    """
    guard = Guard(config.admin)

    @web.middleware
    async def around(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            guard.check(request)
            return await handler(request)
        except Exception as error:  # noqa: BLE001 - the boundary: no traceback reaches a user
            return problems.of(error).response()

    app = web.Application(middlewares=[around], client_max_size=problems.MAX_BODY)
    app[CONTROLLER] = controller
    app[AUTHORITY] = Authority(lambda: controller.config.admin)
    app[ANSWERS] = Answers()
    app[events.STREAMS] = events.Streams()
    app[metrics.REGISTRY] = metrics.registry(controller)
    app[openapi.DOCUMENT] = openapi.document(ENDPOINTS)
    app.on_response_prepare.append(_sign)
    app.on_shutdown.append(_end_streams)
    for endpoint in ENDPOINTS:
        endpoint.register(app)
    return app


async def _sign(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "bgproxy"  # and not which library of which version


async def _end_streams(app: web.Application) -> None:
    app[events.STREAMS].end()


class AdminServer:
    """Serves the API on listening sockets, TCP and Unix; the sockets stay their owner's."""

    def __init__(self, controller: Controller, config: Config) -> None:
        self._controller = controller
        self._runner = web.AppRunner(
            make_app(controller, config),
            access_log=None,  # changes are in the audit log
            logger=_quiet_logger(),
            shutdown_timeout=STOP_WITHIN,
            keepalive_timeout=75.0,
        )

    async def start(self, sockets: list[socket.socket]) -> None:
        """Accept on all of `sockets`."""
        await self._runner.setup()
        controller = self._controller
        if self._runner.server is not None:
            Crowd(self._runner.server, lambda: most(controller.config.admin.connections), controller.tallies.evicted)
        for sock in sockets:
            site = _UnixSite if sock.family == socket.AF_UNIX else web.SockSite
            await site(self._runner, sock, backlog=_BACKLOG).start()

    async def stop(self) -> None:
        """Stop accepting, end event streams, give the answers under way `STOP_WITHIN` seconds, close all connections."""
        try:
            async with asyncio.timeout(2 * STOP_WITHIN + 1.0):
                await self._runner.cleanup()
        except TimeoutError:
            log.warning("the admin API did not end in time; its connections are cut")


class _UnixSite(web.SockSite):
    """A site on a bound Unix socket: uvloop's `create_server` takes none, and nobody must unlink its path."""

    __slots__ = ()

    async def start(self) -> None:
        await web.BaseSite.start(self)
        assert self._runner.server is not None  # noqa: S101 - the runner was set up, or the line above had raised
        loop = asyncio.get_running_loop()
        # From Python 3.13 on a closed server removes its path, which is the supervisor's to keep for the next controller.
        keep: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        self._server = await loop.create_unix_server(
            self._runner.server, sock=self._sock, backlog=self._backlog, **keep
        )


class _NoRubbish(logging.Filter):
    """Drops what aiohttp logs, with a traceback, when somebody sends bytes that are no HTTP: it got a 400, that is all."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _quiet_logger() -> logging.Logger:
    logger = logging.getLogger("bgproxy.admin.http")
    logger.addFilter(_NoRubbish())
    return logger
