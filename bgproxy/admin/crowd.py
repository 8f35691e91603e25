"""How many connections the admin API has at a time: who comes always gets in, and who has idled longest makes room.

The API's descriptors are few and its users are people, scripts and Prometheus. Were newcomers refused beyond a limit, anybody
who can connect could lock the operator out by connecting often and saying nothing. So the newcomer is let in and the
oldest connection goes that has no request under way; the oldest of all, if every one has (an event stream that is cut
goes on where it was: Last-Event-ID). At no time are all descriptors in use: the one for the next connection is kept.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable

from aiohttp import web
from aiohttp.web_protocol import RequestHandler


def most(wanted: int) -> int:
    """`admin.connections`, or what a quarter of this process's descriptors is enough for: its checks need some, too."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if files == resource.RLIM_INFINITY else max(min(wanted, files // 4), 1)


class Crowd:
    """Keeps the connections of an aiohttp server below `limit`; `evicted` is told of each that had to go."""

    def __init__(self, server: web.Server, limit: Callable[[], int], evicted: Callable[[], None]) -> None:
        self._server = server
        self._limit = limit
        self._evicted = evicted
        self._ending: set[RequestHandler] = set()  # told to go, and not gone yet
        self._welcome = server.connection_made
        server.connection_made = self._made  # type: ignore[method-assign] # aiohttp has no other way to be told

    def _made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        connections = self._server.connections  # the oldest first
        self._ending.intersection_update(connections)
        present = [each for each in connections if each not in self._ending]
        if len(present) >= self._limit():
            idle = (each for each in present if getattr(each, "_current_request", None) is None)
            oldest = next(idle, present[0])
            self._ending.add(oldest)
            oldest.force_close()
            self._evicted()
        self._welcome(handler, transport)
