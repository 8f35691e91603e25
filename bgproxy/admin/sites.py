"""How the admin API is served on one bound socket, TCP, TLS or Unix, in the ways in which aiohttp's own sites do not.

They unlink Unix sockets, which are the supervisor's to keep; they wait for any number of TLS handshakes, a minute each; and what is no HTTP
gets an answer in plain text that names the library.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from bgproxy.admin import problems
from bgproxy.admin.handshakes import Handshakes
from bgproxy.admin.problems import Problem
from bgproxy.admin.tls import Certificate

_BACKLOG: Final = 128
_LONGEST_REASON: Final = 200  # characters of what a parser has to say


class Site(web.SockSite):
    """A site on a bound socket, with TLS if there is a certificate: then `handshakes` says how many at a time."""

    __slots__ = ("_certificate", "_evicted", "_handshakes", "_most")

    def __init__(
        self,
        runner: web.BaseRunner,
        sock: socket.socket,
        certificate: Certificate | None = None,
        *,
        handshakes: Callable[[], int] = lambda: 100,
        evicted: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(runner, sock, backlog=_BACKLOG)
        self._certificate = certificate
        self._most = handshakes
        self._evicted = evicted
        self._handshakes: Handshakes | None = None

    async def start(self) -> None:
        """Accept from now on."""
        await web.BaseSite.start(self)
        server = self._runner.server
        assert server is not None  # noqa: S101 - the runner was set up, or the line above had raised
        loop = asyncio.get_running_loop()

        def protocol() -> web.RequestHandler:
            made = server()
            made.__class__ = _Handler  # aiohttp has no other way to say which class it is to be
            return made

        if self._certificate is not None:
            self._handshakes = Handshakes(
                self._sock, self._certificate.context, protocol, most=self._most, evicted=self._evicted
            )
            self._handshakes.start()
        elif self._sock.family == socket.AF_UNIX:
            # From Python 3.13 on a closed server removes its path, which is the supervisor's to keep for the next controller.
            keep: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
            self._server = await loop.create_unix_server(protocol, sock=self._sock, backlog=self._backlog, **keep)
        else:
            self._server = await loop.create_server(protocol, sock=self._sock, backlog=self._backlog)

    async def stop(self) -> None:
        """Accept no more."""
        if self._handshakes is not None:
            await self._handshakes.close()
        await super().stop()


class _Handler(web.RequestHandler):
    """The protocol of a connection: what never became a request is answered as everything else is."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to bytes that are no request."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        if status < 500:
            reason = " ".join((message or "").split())[:_LONGEST_REASON]
            problem = Problem("malformed", f"This is no request: {reason or 'it cannot be read'}.")
        else:
            problem = problems.of(exc if isinstance(exc, Exception) else RuntimeError(message))
        response = problem.response()
        response.headers["Server"] = "bgproxy"
        response.force_close()
        return response
