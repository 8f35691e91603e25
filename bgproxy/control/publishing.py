"""What the workers know, kept equal to what the controller knows.

Whatever changes in one turn of the loop goes out as one snapshot, and only the services whose specs are different now. A
worker has some work with each snapshot; when one change follows the other, as at a start with thousands of upstreams,
they are gathered for a moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from bgproxy.control.links import Links
from bgproxy.control.registry import Registry
from bgproxy.model.snapshot import ProxySpec, ServiceSpec
from bgproxy.switchboard.messages import Snapshot

#: Seconds between two snapshots that nobody waits for.
GATHER: Final = 0.05


class Publisher:
    """Sends snapshots. `proxy` gives what holds for all services; `now` is CLOCK_MONOTONIC in seconds."""

    def __init__(
        self,
        registry: Registry,
        links: Callable[[], Links],
        proxy: Callable[[], ProxySpec],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._links = links
        self._proxy = proxy
        self._known: dict[str, ServiceSpec] = {}  # as the workers have it, or will by what is under way
        self._known_proxy: ProxySpec | None = None
        self._touched: set[str] = set()
        self._now = now
        self._due: asyncio.Handle | None = None
        self._gather_until = 0.0

    def touch(self, *services: str) -> None:
        """These may have changed, come or gone: the workers are told within this turn of the loop, or `GATHER` after the last time."""
        self._touched.update(services)
        if self._due is None:
            wait = self._gather_until - self._now()
            loop = asyncio.get_running_loop()
            self._due = loop.call_soon(self._tell) if wait <= 0 else loop.call_later(wait, self._tell)

    def _tell(self) -> None:
        self._gather_until = self._now() + GATHER
        self.publish()

    def publish(self) -> None:
        """Tell them now."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        changed: list[ServiceSpec] = []
        removed: list[str] = []
        for name in sorted(self._touched):
            service = self._registry.services.get(name)
            if service is None:
                if self._known.pop(name, None) is not None:
                    removed.append(name)
            elif (spec := service.spec()) != self._known.get(name):
                self._known[name] = spec
                changed.append(spec)
        self._touched.clear()
        proxy: ProxySpec | None = self._proxy()
        if proxy == self._known_proxy:
            proxy = None
        else:
            self._known_proxy = proxy
        if changed or removed or proxy is not None:
            links = self._links()
            links.publish(Snapshot(links.number(), False, tuple(changed), tuple(removed), proxy))

    def whole(self) -> Snapshot:
        """All of it, for a worker that has nothing yet. The others are brought to the same before."""
        self._touched.update(self._registry.services.keys() - self._known.keys())
        self.publish()
        return Snapshot(self._links().number(), True, tuple(self._known.values()), proxy=self._known_proxy)

    def close(self) -> None:
        """Publish nothing more."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
