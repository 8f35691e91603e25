"""Services as they come, change and go: the registry, the board, the checks and the drains, brought along together."""

from __future__ import annotations

import time
from collections.abc import Callable

from bgproxy.config.schema import Service as Settings
from bgproxy.control.counters import Counters
from bgproxy.control.draining import Drains, deadlines, sessions_stay
from bgproxy.control.merging import take_over
from bgproxy.control.registry import Registry, Service
from bgproxy.control.state import ServiceRecord
from bgproxy.control.tallies import Tallies
from bgproxy.control.watching import Watch
from bgproxy.model.pool import PoolEvent
from bgproxy.switchboard.board import Switchboard


class Services:
    """Puts records in force. Nothing here waits or fails: whoever calls has written them down before."""

    def __init__(
        self,
        *,
        registry: Registry,
        board: Switchboard,
        counters: Counters,
        watch: Watch,
        drains: Drains,
        tallies: Tallies,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._board = board
        self._counters = counters
        self._watch = watch
        self._drains = drains
        self._tallies = tallies
        self._now = now

    def add(self, name: str, settings: Settings, record: ServiceRecord) -> Service:
        """A service that no worker knows yet; its record has the slot that it gets."""
        service = self._make(name, settings, record)
        # What is said of sessions after a switch is said in the time that passed since, also over a restart.
        ago = 0.0 if record.switched_at is None else max(time.time() - record.switched_at, 0.0)
        switched_at = 0.0 if record.switched_at is None else max(self._now() - ago, 0.0)
        self._counters.begin_service(service.slot)
        self._board.settle(service.slot, service.live, switched_at)
        self._follow(service)
        return service

    def resume(self, name: str, settings: Settings, record: ServiceRecord) -> Service:
        """A service that the workers have served all along, without a controller: its slot and word are in use.

        Where the word says another pool than the record, a switch had been written down and not committed when the
        former controller died: it is completed.
        """
        service = self._make(name, settings, record)
        if self._board.live(service.slot) != service.live:
            self._board.commit({service.slot: service.live}, self._now())
        self._follow(service)
        self._drain_on(service)
        return service

    def _make(self, name: str, settings: Settings, record: ServiceRecord) -> Service:
        assert record.slot is not None  # noqa: S101 - given before it was written down
        service = Service(name, record.slot, settings)
        service.live = record.live
        service.previous = record.previous
        service.switched_at = record.switched_at
        take_over(service, record)
        self._registry.services[name] = service
        service.pools[service.live].step(PoolEvent.SWITCHED_TO)
        return service

    def _follow(self, service: Service) -> None:
        self._watch.follow(service)
        for pool in service.pools:
            pool.refresh()

    def _drain_on(self, service: Service) -> None:
        """Go on with a drain that the former controller had begun, if its time is not over."""
        if service.previous is None or service.previous == service.live:
            return
        since = self._board.switched_at(service.slot)
        last = max(deadlines(service.settings.drain)) + sessions_stay(service.settings.sessions)
        if since <= 0.0 or self._now() > since + last:
            return
        pool = service.pools[service.previous]
        pool.step(PoolEvent.SWITCHED_TO)
        pool.step(PoolEvent.SWITCHED_AWAY)
        self._drains.begin(service, service.previous, since)

    def renew(self, service: Service, settings: Settings, record: ServiceRecord) -> None:
        """The service has other settings, or its pools are made of other upstreams; who is live stays."""
        before, service.settings = service.settings, settings
        if take_over(service, record):
            self._watch.follow(service)
        if settings != before:
            self._watch.renew(service, before)
        for pool in service.pools:
            self._watch.obey(service, pool)

    def remove(self, service: Service) -> None:
        """The service is gone; what it has in flight ends by itself."""
        for index in range(2):
            self._drains.cancel(service.name, index)
        self._watch.forget(service)
        del self._registry.services[service.name]
        self._registry.service_slots.give_back(service.slot)
        self._tallies.forget(service.name)
