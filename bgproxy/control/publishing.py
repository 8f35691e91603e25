"""What the workers know, kept equal to what the controller knows.

Whatever changes in one turn of the loop goes out as one snapshot, and only the services whose specs are different now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bgproxy.control.links import Links
from bgproxy.control.registry import Registry
from bgproxy.model.snapshot import ProxySpec, ServiceSpec
from bgproxy.switchboard.messages import Snapshot


class Publisher:
    """Sends snapshots. `proxy` gives what holds for all services."""

    def __init__(self, registry: Registry, links: Callable[[], Links], proxy: Callable[[], ProxySpec]) -> None:
        self._registry = registry
        self._links = links
        self._proxy = proxy
        self._known: dict[str, ServiceSpec] = {}  # as the workers have it, or will by what is under way
        self._known_proxy: ProxySpec | None = None
        self._touched: set[str] = set()
        self._due: asyncio.Handle | None = None

    def touch(self, *services: str) -> None:
        """These may have changed, come or gone: the workers are told within this turn of the loop."""
        self._touched.update(services)
        if self._due is None:
            self._due = asyncio.get_running_loop().call_soon(self.publish)

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
