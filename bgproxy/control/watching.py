"""Upstreams as they come and go, rise and fall: names, checks and live failures, brought together in the registry.

Every change of what an upstream is good for goes to the workers (`Publisher`), and is an event.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from bgproxy.config.addresses import is_secure
from bgproxy.config.schema import Service as Settings
from bgproxy.control.discovery import Discovery
from bgproxy.control.doors import BARRED, Doors
from bgproxy.control.events import Draft, EventLog
from bgproxy.control.health import CheckResult, HealthChecks, Judge
from bgproxy.control.passive import Window, most_ejected
from bgproxy.control.places import Place, name_in, places_of
from bgproxy.control.publishing import Publisher
from bgproxy.control.registry import Pool, Registry, Service, Upstream
from bgproxy.errors import Refused
from bgproxy.model.pool import POOLS
from bgproxy.model.upstream import UpstreamEvent, UpstreamState
from bgproxy.switchboard.messages import UpstreamFailed

log = logging.getLogger("bgproxy.health")

#: What a check says before its question, by `send_proxy`: that it is the proxy's own, and nobody's for whom it speaks (LOCAL and
#: UNKNOWN of "The PROXY protocol", sections 2.2 and 2.1).
PRELUDES: Final = {"off": b"", "v1": b"PROXY UNKNOWN\r\n", "v2": b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"}

#: Seconds that a start waits for the first addresses of names: a resolver that is down must not hold up everything else.
FIRST_ADDRESSES: Final = 2.0


class _Watched:
    """One upstream with what is remembered of its checks and failures."""

    def __init__(self, service: Service, pool: Pool, upstream: Upstream) -> None:
        self.service = service
        self.pool = pool
        self.upstream = upstream
        self.judge = Judge(service.settings.health)
        self.window = Window(service.settings.passive)
        self.back: asyncio.TimerHandle | None = None  # the end of its ejection

    def end(self) -> None:
        if self.back is not None:
            self.back.cancel()
            self.back = None


class Watch:
    """Keeps the upstreams of the registry as the world has them. None is placed where one of `doors` is."""

    def __init__(
        self,
        registry: Registry,
        publisher: Publisher,
        events: EventLog,
        *,
        doors: Doors | None = None,
        checks: Callable[[Callable[[str, CheckResult], None]], HealthChecks] = HealthChecks,
        discovery: Callable[[Callable[[str], None]], Discovery] = Discovery,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._publisher = publisher
        self._events = events
        self._doors = doors or Doors()
        self._now = now
        self._checks = checks(self._checked)
        self._discovery = discovery(self._resolved)
        self._watched: dict[str, _Watched] = {}
        self._users: dict[str, set[tuple[str, int]]] = {}  # of a name: services and pools
        self._names: dict[tuple[str, int], set[str]] = {}  # the other way round
        self._last_good: Mapping[str, tuple[str, ...]] = {}  # addresses of names, from a former life
        self._reserved: dict[str, int] = {}  # slots of upstreams, from a former life
        self.on_placed: Callable[[], None] = lambda: (
            None
        )  # other upstreams than before: `addresses` and slots have changed

    # --- its own life -----------------------------------------------------------------------------------------------

    def restore(self, addresses: Mapping[str, tuple[str, ...]], slots: Mapping[str, int]) -> None:
        """Begin with what a former controller knew; before the first `follow`."""
        self._last_good = dict(addresses)
        free = self._registry.upstream_slots
        self._reserved = {key: slot for key, slot in slots.items() if free.claim(slot)}

    async def start(self) -> None:
        """Resolve, wait a little for the first answers, check."""
        await self._discovery.start()
        await self._discovery.settle(FIRST_ADDRESSES)
        for slot in self._reserved.values():
            self._registry.upstream_slots.give_back(slot)
        self._reserved.clear()
        await self._checks.start()

    async def stop(self) -> None:
        """End all of it."""
        for watched in self._watched.values():
            watched.end()
        await self._checks.stop()
        await self._discovery.stop()

    def slots(self) -> dict[str, int]:
        """The slots of all upstreams, for the next life."""
        return {
            hint_key(watched.service, watched.pool, watched.upstream.id): watched.upstream.slot
            for watched in self._watched.values()
        }

    def addresses(self) -> dict[str, tuple[str, ...]]:
        """The last good addresses of all names, for the next life."""
        return {host: found for host in self._users if (found := self._addresses_of(host))}

    # --- which upstreams there are ----------------------------------------------------------------------------------

    def follow(self, service: Service) -> None:
        """The service is new, or its pools have other URLs: have the upstreams that these stand for now."""
        for index, pool in enumerate(service.pools):
            self._use_names(service, index, pool)
            self._place(service, pool)

    def renew(self, service: Service, before: Settings) -> None:
        """The service has other settings: check and eject by the new ones."""
        for watched in self._of(service):
            if service.settings.passive != before.passive:
                watched.window = Window(service.settings.passive)
            if service.settings.health != before.health:
                watched.judge = Judge(service.settings.health)
                self._check(watched)

    def check_anew(self, service: Service, pool: Pool) -> None:
        """The pool's upstreams are spoken to in another way: ask them in that way."""
        for upstream in pool.upstreams:
            self._check(self._watched[_key(service, pool, upstream)])

    def forget(self, service: Service) -> None:
        """The service is gone."""
        for index, pool in enumerate(service.pools):
            pool.urls = ()
            self._use_names(service, index, pool)
            self._place(service, pool)

    def obey(self, service: Service, pool: Pool) -> list[Upstream]:
        """An operator has said other things of the pool's upstreams (`pool.by_hand`); those whose state is another now."""
        changed = []
        for upstream in pool.upstreams:
            if upstream.step(pool.said_of(upstream)):
                changed.append(upstream)
                watched = self._watched[_key(service, pool, upstream)]
                watched.judge.forget()
                if upstream.state in (UpstreamState.MAINT, UpstreamState.CHECKING):
                    upstream.reason = ""
                self._check(watched)
        self._moved(service, pool)
        return changed

    def _use_names(self, service: Service, index: int, pool: Pool) -> None:
        """Watch the names of the pool's URLs, and those of no pool no more."""
        user = (service.name, index)
        wanted = dict(found for url in pool.urls if (found := name_in(url)) is not None)
        for host, port in wanted.items():
            self._users.setdefault(host, set()).add(user)
            self._discovery.watch(host, port)
        for host in self._names.pop(user, set()) - wanted.keys():
            users = self._users[host]
            users.discard(user)
            if not users:
                del self._users[host]
                self._discovery.unwatch(host)
        if wanted:
            self._names[user] = set(wanted)

    def _addresses_of(self, host: str) -> tuple[str, ...]:
        return self._discovery.addresses(host) or self._last_good.get(host, ())

    def _place(self, service: Service, pool: Pool) -> None:
        places: list[Place] = []
        barred: dict[str, None] = {}  # URLs, in their order
        for url in pool.urls:
            for place in places_of(url, self._addresses_of):
                if self._doors.lead_to(place.address):
                    barred[url] = None
                else:
                    places.append(place)

        def take(upstream_id: str) -> int:
            slot = self._reserved.pop(hint_key(service, pool, upstream_id), None)
            return self._registry.upstream_slots.take() if slot is None else slot

        try:
            placed = pool.place(places, take, self._registry.upstream_slots.give_back)
        except Refused as error:
            log.error("%s/%s: %s Its upstreams stay as they were.", service.name, pool.name, error)  # noqa: TRY400
            return
        for upstream in placed.gone:
            key = _key(service, pool, upstream)
            self._checks.unwatch(key)
            self._watched.pop(key).end()
        for upstream in placed.new:
            watched = self._watched[_key(service, pool, upstream)] = _Watched(service, pool, upstream)
            self._check(watched)
        if placed.new or placed.gone:
            self.on_placed()
        self._tell_barred(service, pool, barred)
        pool.unresolved, pool.name_troubles = [(url, BARRED) for url in barred], {}
        for url in pool.urls:
            named = name_in(url)
            if named is None or url in barred:
                continue
            problem = self._discovery.problem(named[0])
            if not self._addresses_of(named[0]):
                pool.unresolved.append((url, problem or f"{named[0]}: not resolved yet"))
            elif problem:
                pool.name_troubles[url] = problem
        self._moved(service, pool)

    @staticmethod
    def _tell_barred(service: Service, pool: Pool, barred: Iterable[str]) -> None:
        for url in barred:
            if (url, BARRED) not in pool.unresolved:
                log.error("%s/%s: %s: %s", service.name, pool.name, url, BARRED)

    def _resolved(self, host: str) -> None:
        """A name has other addresses, or another problem."""
        for name, index in sorted(self._users.get(host, ())):
            service = self._registry.services.get(name)
            if service is not None:
                self._place(service, service.pools[index])

    def _moved(self, service: Service, pool: Pool) -> None:
        """Something of the pool may be different now."""
        pool.refresh()
        self._publisher.touch(service.name)

    def _of(self, service: Service) -> list[_Watched]:
        return [self._watched[_key(service, pool, one)] for pool in service.pools for one in pool.upstreams]

    # --- checks -----------------------------------------------------------------------------------------------------

    def _check(self, watched: _Watched) -> None:
        """Begin its checks, or begin them anew; none in maint."""
        upstream = watched.upstream
        key = _key(watched.service, watched.pool, upstream)
        if upstream.state is UpstreamState.MAINT:
            self._checks.unwatch(key)
            return
        self._checks.watch(
            key,
            url=upstream.url,
            address=upstream.address,
            settings=watched.service.health(),
            fast=lambda: upstream.state is UpstreamState.CHECKING,
            tls=watched.pool.tls if is_secure(upstream.url) else None,
            prelude=PRELUDES[watched.pool.send_proxy],
        )

    def _checked(self, key: str, result: CheckResult) -> None:
        watched = self._watched.get(key)
        if watched is None:
            return
        upstream = watched.upstream
        upstream.check_seconds = result.seconds
        if not result.ok or not upstream.ejected:
            upstream.reason = result.reason
        event = watched.judge.judge(upstream.state, ok=result.ok)
        if event is not None and upstream.step(event):
            self._tell_checked(watched, rose=event is UpstreamEvent.ROSE)
            self._moved(watched.service, watched.pool)

    def _tell_checked(self, watched: _Watched, *, rose: bool) -> None:
        if rose:
            self._tell(watched, "upstream_up", "is up")
        else:
            self._tell(watched, "upstream_down", f"is down: {watched.upstream.reason}")

    # --- live failures ----------------------------------------------------------------------------------------------

    def failed(self, message: UpstreamFailed) -> None:
        """Live requests met failures of an upstream."""
        watched = self._watched.get(f"{message.service}/{POOLS[message.pool]}/{message.upstream}")
        if watched is None or watched.upstream.ejected or watched.upstream.by_hand:
            return
        if not watched.window.failed(self._now(), message.count):
            return
        passive, pool = watched.service.settings.passive, watched.pool
        if sum(upstream.ejected for upstream in pool.upstreams) >= most_ejected(passive, len(pool.upstreams)):
            return
        upstream = watched.upstream
        upstream.ejected = True
        upstream.since = time.time()
        upstream.reason = message.reason
        watched.back = asyncio.get_running_loop().call_later(passive.eject, self._return, watched)
        self._tell(
            watched,
            "upstream_ejected",
            f"is ejected for {passive.eject:g}s: {passive.failures} failures within {passive.within:g}s, the last: {message.reason}",
        )
        self._moved(watched.service, pool)

    def _return(self, watched: _Watched) -> None:
        watched.back = None
        watched.upstream.ejected = False
        watched.upstream.since = time.time()
        if watched.upstream.state is UpstreamState.UP:
            watched.upstream.reason = ""
        self._tell(watched, "upstream_returned", "is back after its ejection")
        self._moved(watched.service, watched.pool)

    # --- telling ----------------------------------------------------------------------------------------------------

    def _tell(self, watched: _Watched, kind: str, what: str) -> None:
        service, pool, upstream = watched.service.name, watched.pool.name, watched.upstream
        message = f"{service}: {upstream.id} of {pool} {what}."
        level = logging.INFO if kind in {"upstream_up", "upstream_returned"} else logging.WARNING
        fields = {"service": service, "pool": pool, "upstream": upstream.id}
        log.log(level, "%s", message, extra={"fields": fields})
        self._events.emit(
            Draft(
                type=kind,
                message=message,
                service=service,
                pool=pool,
                upstream=upstream.id,
                reason=upstream.reason,
            )
        )


def hint_key(service: Service, pool: Pool, upstream_id: str) -> str:
    """What the slot of an upstream stands under in the state."""
    return f"{service.name} {pool.name} {upstream_id}"


def _key(service: Service, pool: Pool, upstream: Upstream) -> str:
    return f"{service.name}/{pool.name}/{upstream.id}"
