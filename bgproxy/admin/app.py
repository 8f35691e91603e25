"""The admin API as a whole: its application, and the server that serves it on sockets that others have bound."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from bgproxy.admin import (
    deployments,
    events,
    health,
    history,
    metrics,
    openapi,
    pools,
    problems,
    reload,
    services,
    status,
    switches,
)
from bgproxy.admin.auth import Authority
from bgproxy.admin.crowd import Crowd, most
from bgproxy.admin.endpoint import ANSWERS, AUTHORITY, CONTROLLER, Endpoint, audit_record
from bgproxy.admin.guard import Guard
from bgproxy.admin.idempotency import Answers
from bgproxy.admin.sites import Site
from bgproxy.admin.tls import Certificate
from bgproxy.config.schema import Config
from bgproxy.control.controller import Controller

log = logging.getLogger("bgproxy.admin")

#: Every call of the API. What is not here is not served, and what is here is described.
ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    *status.ENDPOINTS,
    *services.ENDPOINTS,
    *switches.ENDPOINTS,
    *pools.ENDPOINTS,
    *deployments.ENDPOINTS,
    *history.ENDPOINTS,
    *events.ENDPOINTS,
    *reload.ENDPOINTS,
    *metrics.ENDPOINTS,
    *health.ENDPOINTS,
    *openapi.ENDPOINTS,
)

#: Seconds that answers under way may take at a stop; the calls themselves are never waited for longer.
STOP_WITHIN: Final = 2.0
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


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
            _admit(guard, request)
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


def _admit(guard: Guard, request: web.Request) -> None:
    """Raise `Problem` for a request that a web page may have sent; a change is in the audit log all the same."""
    try:
        guard.check(request)
    except problems.Problem as problem:
        if request.method not in _READING:
            audit_record(request).write(problem.slug, problem.kind.status, problem.detail)
        raise


async def _sign(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "bgproxy"  # and not which library of which version


async def _end_streams(app: web.Application) -> None:
    app[events.STREAMS].end()


class AdminServer:
    """Serves the API on listening sockets, TCP (with TLS, if the configuration has it) and Unix; they stay their owner's.

    Raises:
        StartError: as `make_app`, or the certificate cannot be used.
    """

    def __init__(self, controller: Controller, config: Config) -> None:
        self._controller = controller
        self._certificate = Certificate(lambda: controller.config.admin.tls) if config.admin.tls.cert else None
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
            certificate = None if sock.family == socket.AF_UNIX else self._certificate
            site = Site(
                self._runner,
                sock,
                certificate,
                handshakes=lambda: most(controller.config.admin.connections) // 2,
                evicted=controller.tallies.evicted,
            )
            await site.start()

    async def stop(self) -> None:
        """Stop accepting, end event streams, give the answers under way `STOP_WITHIN` seconds, close all connections."""
        try:
            async with asyncio.timeout(2 * STOP_WITHIN + 1.0):
                await self._runner.cleanup()
        except TimeoutError:
            log.warning("the admin API did not end in time; its connections are cut")


class _NoRubbish(logging.Filter):
    """Drops what aiohttp logs, with a traceback, when somebody sends bytes that are no HTTP: it got a 400, that is all."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _quiet_logger() -> logging.Logger:
    logger = logging.getLogger("bgproxy.admin.http")
    logger.addFilter(_NoRubbish())
    return logger
