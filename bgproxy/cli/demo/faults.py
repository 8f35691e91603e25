"""What can be wrong with a new version of the shop, one kind each; a deployment is to find it, in the stage named here."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

#: Kinds, what is wrong, and the stage that finds it.
KINDS: Final[dict[str, tuple[str, str]]] = {
    "down": ("nobody listens", "verify"),
    "unhealthy": ("its health check answers 503", "verify"),
    "wrong": ("it has no teapots", "verify: a check"),
    "cold": ("its first answers take 3 s", "verify: a check"),
    "slow": ("it answers one request at a time", "verify: the load"),
    "differs": ("a teapot has another name", "compare"),
    "errors": ("5% of live requests fail", "bake"),
    "late": ("live requests take five times as long", "bake"),
    "crash": ("it dies 20 s after the first live request", "bake"),
}

#: Seconds: how long an answer takes that a database would be asked for, and what the kinds make of it.
WORK: Final = 0.01
_TIMES: Final = 5
_COLD: Final = 3.0
_CRASH: Final = 20.0
#: `slow`: this long for each request, one after the other.
_ALONE: Final = 0.03
#: `errors`: one live request in so many.
_ONE_IN: Final = 20

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Fault:
    """Goes around every request of a shop; "" for a good one. `crash_after` is in seconds."""

    def __init__(self, kind: str = "", *, crash_after: float | None = None) -> None:
        self.kind = kind
        self._alone = asyncio.Lock()
        self._live = 0
        self._warm_at: float | None = None
        if crash_after is None:
            crash_after = float(os.environ.get("BGPROXY_DEMO_CRASH_AFTER", _CRASH))
        self._crash_after = crash_after

    @web.middleware
    async def around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The middleware of the shop's application."""
        if request.path == "/health":
            return web.Response(status=503, text="ill\n") if self.kind == "unhealthy" else await handler(request)
        live = is_live(request)
        if live:
            self._live += 1
            if self.kind == "crash" and self._live == 1:
                asyncio.get_running_loop().call_later(self._crash_after, os._exit, 1)
            if self.kind == "errors" and self._live % _ONE_IN == 0:
                return web.Response(status=500, text="the till is stuck\n")
        if self.kind == "cold":
            await self._warm_up()
        if self.kind == "slow":
            async with self._alone:
                await asyncio.sleep(_ALONE)
        if request.path.startswith("/api/"):
            await asyncio.sleep(WORK * _TIMES if live and self.kind == "late" else WORK)
        return await handler(request)

    async def _warm_up(self) -> None:
        now = time.monotonic()
        if self._warm_at is None:
            self._warm_at = now + _COLD
        await asyncio.sleep(max(self._warm_at - now, 0.0))


def is_live(request: web.Request) -> bool:
    """Whether a user asks: no check, no mirrored request, no preview."""
    agent = request.headers.get("User-Agent", "")
    return not agent.startswith("bgproxy/") and "X-BGProxy-Mirror" not in request.headers
