"""Active checks: a GET to every upstream, now and again, and what it says for an operator."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from bgproxy import __version__
from bgproxy.config.schema import Health
from bgproxy.config.statuses import parse_statuses
from bgproxy.model.snapshot import Address
from bgproxy.model.upstream import UPSTREAM_TABLE, UpstreamEvent, UpstreamState

#: Seconds between two checks of an upstream that has not been checked `rise` times yet: a start need not be slow.
FAST: Final = 0.2

log = logging.getLogger("bgproxy.health")

_HEADERS: Final = {"User-Agent": f"bgproxy-health/{__version__}", "Accept": "*/*"}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check: whether it was good, why not, and how long it took (seconds)."""

    ok: bool
    reason: str
    seconds: float


class Judge:
    """Counts results in a row: `rise` good ones make an upstream rise, `fall` bad ones make it fall."""

    def __init__(self, settings: Health) -> None:
        self.settings = settings
        self._good = 0
        self._bad = 0

    def judge(self, state: UpstreamState, *, ok: bool) -> UpstreamEvent | None:
        """The event that this result makes of the row, where the table has one for `state`."""
        if ok:
            self._good, self._bad = self._good + 1, 0
            event = UpstreamEvent.ROSE if self._good >= self.settings.rise else None
        else:
            self._good, self._bad = 0, self._bad + 1
            event = UpstreamEvent.FELL if self._bad >= self.settings.fall else None
        return event if event is not None and UPSTREAM_TABLE.allows(state, event) else None

    def forget(self) -> None:
        """Count anew."""
        self._good = self._bad = 0


async def check(session: aiohttp.ClientSession, url: URL, settings: Health) -> CheckResult:
    """One GET of the check's path; never raises for anything that an upstream can do.

    The head of the answer decides, and the connection is closed with it: a body may be large, or never end.
    """
    started = time.monotonic()

    def bad(reason: str) -> CheckResult:
        return CheckResult(ok=False, reason=reason, seconds=time.monotonic() - started)

    try:
        async with (
            asyncio.timeout(settings.timeout),
            session.get(url, headers=_HEADERS, allow_redirects=False) as answer,
        ):
            status = answer.status
    except TimeoutError:
        return bad(f"no answer within {settings.timeout:g}s")
    except aiohttp.ClientConnectorError as error:
        return bad(_words(error.os_error))
    except aiohttp.ServerDisconnectedError:
        return bad("connection closed before it answered")
    except aiohttp.ClientResponseError as error:
        return bad(f"not an HTTP answer: {error.message.splitlines()[0] if error.message else error}")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return bad(_words(error))
    if not any(status in expected for expected in parse_statuses(settings.expect)):
        return bad(f"status {status}, expected {settings.expect}")
    return CheckResult(ok=True, reason="", seconds=time.monotonic() - started)


def _words(error: Exception) -> str:
    """The system's words for an error, whichever event loop has dressed it up."""
    number = error.errno if isinstance(error, OSError) else None
    if number is not None and number > 0:
        return os.strerror(number).lower()
    return str(error).splitlines()[0].lower() if str(error) else type(error).__name__


class HealthChecks:
    """One task an upstream; `on_result(key, result)` is called after every check."""

    def __init__(self, on_result: Callable[[str, CheckResult], None]) -> None:
        self._on_result = on_result
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ended: set[asyncio.Task[None]] = set()
        self._watched: dict[str, tuple[str, Address, Health, Callable[[], bool]]] = {}
        self._running = False

    async def start(self) -> None:
        """Begin to check what is watched."""
        self._running = True
        for key in self._watched:
            self._begin(key)

    async def stop(self) -> None:
        """End all checks."""
        self._running = False
        tasks = [*self._tasks.values(), *self._ended]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def watch(self, key: str, *, url: str, address: Address, settings: Health, fast: Callable[[], bool]) -> None:
        """Check an upstream from now on; `fast()` says whether it is still to be judged for the first time."""
        self.unwatch(key)
        self._watched[key] = (url, address, settings, fast)
        if self._running:
            self._begin(key)

    def unwatch(self, key: str) -> None:
        """Check it no more."""
        self._watched.pop(key, None)
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()
            self._ended.add(task)
            task.add_done_callback(self._ended.discard)

    def _begin(self, key: str) -> None:
        self._tasks[key] = asyncio.get_running_loop().create_task(self._keep(key), name=f"health {key}")

    async def _keep(self, key: str) -> None:
        url, address, settings, fast = self._watched[key]
        loop = asyncio.get_running_loop()
        async with _session(address) as session:
            # As it is written: what is escaped in the file stays so.
            host = "localhost" if isinstance(address, str) else urlsplit(url).netloc
            where = URL(f"http://{host}{settings.path}", encoded=True)
            due = loop.time()
            while True:
                result = await check(session, where, settings)
                try:
                    self._on_result(key, result)
                except Exception:  # the checks must go on, or the upstream would be forgotten
                    log.exception("a result of a health check was lost", extra={"fields": {"upstream": key}})
                # From due time to due time, so that the interval does not grow by what a check takes.
                due = max(due + (min(settings.interval, FAST) if fast() else settings.interval), loop.time())
                await asyncio.sleep(due - loop.time())


def _session(address: Address) -> aiohttp.ClientSession:
    """A session whose every connection goes to `address`, a new one for each check: it tests accepting, too."""
    connector: aiohttp.BaseConnector
    if isinstance(address, str):
        connector = aiohttp.UnixConnector(path=address, force_close=True)
    else:
        connector = aiohttp.TCPConnector(force_close=True, resolver=_Fixed(address), use_dns_cache=False)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),  # each check is a stranger
        timeout=aiohttp.ClientTimeout(),
        auto_decompress=False,
    )


class _Fixed(aiohttp.abc.AbstractResolver):
    """Names resolve to the one address that is checked."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: int = 0,  # noqa: ARG002 - the address decides
    ) -> list[aiohttp.abc.ResolveResult]:
        """The address, whatever the name."""
        where, port = self._address
        kind = socket.AF_INET6 if ":" in where else socket.AF_INET
        return [
            {"hostname": host, "host": where, "port": port, "family": kind, "proto": 0, "flags": socket.AI_NUMERICHOST}
        ]

    async def close(self) -> None:
        """Nothing to close."""
