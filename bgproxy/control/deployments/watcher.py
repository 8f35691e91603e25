"""What the live pool of each service did lately, so that a bake knows how it was just before the switch.

A deployment may have no stage before the switch in which that could be measured; so the counters of every service that bakes are
sampled all the time. Seldom, a few services in one stretch, and little is kept: a thousand services must cost next to nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from bgproxy.control.counters import Counters
from bgproxy.control.deployments.figures import EMPTY, Sample, Window, sample
from bgproxy.control.registry import Service
from bgproxy.errors import NotFound
from bgproxy.model.pool import POOLS

#: Seconds that "before" goes back.
SPAN: Final = 300.0

#: Seconds between two rounds; a service's live pool is sampled when it has just become so, and then every so often.
EVERY: Final = 5.0
SAMPLED: Final = 30.0

#: Services that are sampled in one stretch.
AT_ONCE: Final = 20


class _Watched:
    """The samples of the pool that is live."""

    def __init__(self, slot: int, live: int) -> None:
        self.slot = slot
        self.live = live
        self.samples: deque[Sample] = deque()


class Watcher:
    """Samples the live pools of `services`. Owned by the controller; `now` is CLOCK_MONOTONIC in seconds."""

    def __init__(
        self,
        *,
        services: Callable[[], Iterable[Service]],
        counters: Counters,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._services = services
        self._counters = counters
        self._now = now
        self._sleep = sleep
        self._watched: dict[str, _Watched] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="figures of the live pools")

    async def stop(self) -> None:
        """End; idempotent, and fit for one that has not started."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def before(self, service: Service) -> Window:
        """What the live pool did in the last five minutes, or since it became live; up to this very moment."""
        watched = self._watched.get(service.name)
        if watched is None or not watched.samples or (watched.slot, watched.live) != (service.slot, service.live):
            return EMPTY
        now = self._sample(service)
        return Window.between(next((s for s in watched.samples if s.at >= now.at - SPAN), now), now)

    async def look(self) -> None:
        """One round: of all services those whose time it is."""
        now = self._now()
        services = {service.name: service for service in self._services() if service.settings.deployment.bake}
        for name in self._watched.keys() - services.keys():
            del self._watched[name]
        sampled = 0
        for service in services.values():
            if not self._due(service, now):
                continue
            try:
                self._take(service, now)
            except NotFound:  # it has left the configuration in the middle of this round
                continue
            sampled += 1
            if sampled % AT_ONCE == 0:
                await asyncio.sleep(0)

    def _due(self, service: Service, now: float) -> bool:
        watched = self._watched.get(service.name)
        if watched is None or (watched.slot, watched.live) != (service.slot, service.live):
            self._watched[service.name] = _Watched(service.slot, service.live)
            return True
        return not watched.samples or now - watched.samples[-1].at >= SAMPLED

    def _take(self, service: Service, now: float) -> None:
        samples = self._watched[service.name].samples
        samples.append(self._sample(service))
        while samples[0].at < now - SPAN:
            samples.popleft()

    def _sample(self, service: Service) -> Sample:
        counts = self._counters.pool(service.name, POOLS[service.live])
        return sample(counts, self._now(), tcp=service.tcp)

    async def _watch(self) -> None:
        while True:
            await self.look()
            await self._sleep(EVERY)
