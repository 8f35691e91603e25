"""Names of upstreams to addresses, again and again, without holding up anything.

A name that stops resolving keeps the addresses that it had last: a resolver that is down takes no pool down with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

from bgproxy.control.threads import in_thread

log = logging.getLogger("bgproxy.discovery")

#: Seconds between two resolutions of a name: how late a scaled service is noticed.
INTERVAL: Final = 5.0
#: Seconds that a resolver has; glibc alone would wait for several times that.
DEADLINE: Final = 5.0

Resolve = Callable[[str, int], Awaitable[tuple[str, ...]]]


async def resolve_name(host: str, port: int) -> tuple[str, ...]:
    """The addresses of a name as the system knows them (getaddrinfo(3)), sorted. Raises `OSError`."""
    found = await in_thread(f"resolve {host}", lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    return tuple(sorted({str(entry[4][0]) for entry in found}))


class _Name:
    """One watched name."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.addresses: tuple[str, ...] = ()
        self.problem = ""
        self.tried = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.asking: asyncio.Future[tuple[str, ...]] | None = None  # may go on for longer than the deadline

    def end(self) -> list[asyncio.Future[Any]]:
        """Cancel what is under way; returns it."""
        under_way = [future for future in (self.task, self.asking) if future is not None]
        for future in under_way:
            future.cancel()
        return under_way


class Discovery:
    """Watches names; `on_change(host)` is called when the addresses of one have changed, or its problem has."""

    def __init__(
        self,
        on_change: Callable[[str], None],
        *,
        interval: float = INTERVAL,
        deadline: float = DEADLINE,
        resolve: Resolve = resolve_name,
    ) -> None:
        self._on_change = on_change
        self._interval = interval
        self._deadline = deadline
        self._resolve = resolve
        self._names: dict[str, _Name] = {}
        self._ended: list[asyncio.Future[Any]] = []
        self._running = False

    async def start(self) -> None:
        """Begin to resolve what is watched."""
        self._running = True
        for host in self._names:
            self._begin(host)

    async def stop(self) -> None:
        """End all resolutions."""
        self._running = False
        ended, self._ended = self._ended, []
        for name in self._names.values():
            ended += name.end()
        await asyncio.gather(*ended, return_exceptions=True)

    def watch(self, host: str, port: int) -> None:
        """Keep a name resolved; watching it twice changes nothing."""
        if host not in self._names:
            self._names[host] = _Name(port)
            if self._running:
                self._begin(host)

    def unwatch(self, host: str) -> None:
        """Forget a name."""
        name = self._names.pop(host, None)
        if name is not None:
            self._ended = [future for future in self._ended if not future.done()] + name.end()

    def addresses(self, host: str) -> tuple[str, ...]:
        """The addresses of a name, sorted; empty while it has never resolved."""
        name = self._names.get(host)
        return name.addresses if name is not None else ()

    def problem(self, host: str) -> str:
        """Why the last resolution failed; "" if it did not."""
        name = self._names.get(host)
        return name.problem if name is not None else ""

    async def settle(self, within: float = DEADLINE) -> None:
        """Wait until every watched name has been tried once, `within` seconds at the most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                for name in list(self._names.values()):
                    await name.tried.wait()

    def _begin(self, host: str) -> None:
        self._names[host].task = asyncio.get_running_loop().create_task(self._keep(host), name=f"resolve {host}")

    async def _keep(self, host: str) -> None:
        name = self._names[host]
        while True:
            before = (name.addresses, name.problem)
            await self._once(host, name)
            if (name.addresses, name.problem) != before:
                self._tell(host, name)
            name.tried.set()
            await asyncio.sleep(self._interval)

    async def _once(self, host: str, name: _Name) -> None:
        # One that is still being asked is not asked again: each time would leave another thread hanging.
        asking = name.asking
        if asking is None:
            asking = name.asking = asyncio.ensure_future(self._resolve(host, name.port))
        await asyncio.wait({asking}, timeout=self._deadline)
        if not asking.done():
            name.problem = f"{host}: the resolver did not answer within {self._deadline:g}s"
            return
        name.asking = None
        try:
            addresses = asking.result()
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            name.problem = f"{host}: name does not resolve ({reason})"
        else:
            name.problem = "" if addresses else f"{host}: name has no address"
            name.addresses = addresses or name.addresses

    def _tell(self, host: str, name: _Name) -> None:
        if name.problem:
            log.warning("%s", name.problem, extra={"fields": {"kept": list(name.addresses)}})
        try:
            self._on_change(host)
        except Exception:  # the watch must go on, or the pool would keep these addresses for ever
            log.exception("a change of the addresses of a name was lost", extra={"fields": {"name": host}})
