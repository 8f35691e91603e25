"""What the controller knows of services, pools and upstreams at this moment; the specs for the workers are made of it.

Nothing here waits or writes: whoever changes something has written it down before (`bgproxy.control.ledger`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from bgproxy.config.addresses import is_secure
from bgproxy.config.schema import MAX_SERVICES, Health, SendProxy
from bgproxy.config.schema import Service as Settings
from bgproxy.control.places import Place
from bgproxy.control.slots import Slots
from bgproxy.errors import Busy, NotFound
from bgproxy.model.pool import POOL_TABLE, POOLS, PoolEvent, PoolState
from bgproxy.model.snapshot import MirrorSpec, PoolSpec, ServiceSpec, TlsSpec, UpstreamSpec
from bgproxy.model.upstream import UPSTREAM_TABLE, UpstreamEvent, UpstreamState
from bgproxy.switchboard.layout import MAX_UPSTREAMS

_BY_HAND = (UpstreamState.DRAINING, UpstreamState.MAINT)
_BY_HAND_EVENTS = {"draining": UpstreamEvent.DRAIN, "maint": UpstreamEvent.MAINT}


class Upstream:
    """One place that a pool's requests can be sent to, and what it is good for."""

    def __init__(self, place: Place, slot: int) -> None:
        self.id = place.id
        self.url = place.url
        self.address = place.address
        self.slot = slot
        self.state: UpstreamState = UPSTREAM_TABLE.initial
        self.since = time.time()  # of the state, or of its ejection
        self.reason = ""  # of the last failed check or the ejection; empty when all is well
        self.check_seconds: float | None = None  # of the last check
        self.ejected = False

    def __repr__(self) -> str:
        return f"<Upstream {self.id} {self.state.value}{' ejected' if self.ejected else ''}>"

    @property
    def family(self) -> str:
        """Of its address: "4", "6", or "" for a socket's path."""
        return "" if isinstance(self.address, str) else "6" if ":" in self.address[0] else "4"

    @property
    def by_hand(self) -> bool:
        """Whether an operator has taken it out."""
        return self.state in _BY_HAND

    @property
    def is_up(self) -> bool:
        """Whether it is known to be good."""
        return self.state is UpstreamState.UP and not self.ejected

    def step(self, event: UpstreamEvent) -> bool:
        """Take an event if the table has it for this state; whether the state is another now."""
        if not UPSTREAM_TABLE.allows(self.state, event):
            return False
        before, self.state = self.state, UPSTREAM_TABLE.next(self.state, event)
        if self.state is not before:
            self.since = time.time()
        return self.state is not before

    def usable(self, *, live: bool) -> bool:
        """Whether new requests may go to it. One that is not checked yet may be used where somebody relies on it."""
        if self.ejected:
            return False
        return self.state is UpstreamState.UP or (live and self.state is UpstreamState.CHECKING)

    def trouble(self) -> str:
        """Why it is not up, for an operator; empty when it is, or is out by hand."""
        if self.is_up or self.by_hand:
            return ""
        if self.ejected:
            return f"{self.id}: ejected: {self.reason}"
        if self.state is UpstreamState.CHECKING:
            return f"{self.id}: still being checked{f', {self.reason}' if self.reason else ''}"
        return f"{self.id}: {self.reason or 'down'}"


class Placed(NamedTuple):
    """What a new list of places changed."""

    new: list[Upstream]
    gone: list[Upstream]


class Pool:
    """One of the two pools of a service."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.version = ""
        self.urls: tuple[str, ...] = ()
        self.tls = TlsSpec()
        self.send_proxy: SendProxy = "off"
        self.by_hand: Mapping[str, str] = {}  # URL or upstream id -> "draining" or "maint"
        self.upstreams: list[Upstream] = []
        self.unresolved: list[tuple[str, str]] = []  # URLs without an address, and why
        self.name_troubles: dict[str, str] = {}  # URLs whose addresses are the last good ones, and why
        self.state: PoolState = POOL_TABLE.initial

    def __repr__(self) -> str:
        return f"<Pool {self.name} {self.state.value} {self.upstreams}>"

    def step(self, event: PoolEvent) -> None:
        """Take an event; raises `IllegalTransition`."""
        self.state = POOL_TABLE.next(self.state, event)

    @property
    def healthy(self) -> bool:
        """Whether it is fit to be live: one upstream at least is up, and all that are not out by hand are."""
        return any(upstream.is_up for upstream in self.upstreams) and not self.troubles()

    def is_fit(self, enough: float) -> bool:
        """Whether so many per cent of its upstreams are up, those apart that are out by hand; 100 is `healthy`."""
        up = sum(upstream.is_up for upstream in self.upstreams)
        return up > 0 and 100.0 * up >= enough * (up + len(self.troubles()))

    @property
    def has_one_up(self) -> bool:
        """Whether it can answer at all."""
        return any(upstream.is_up for upstream in self.upstreams)

    def troubles(self) -> list[str]:
        """One line for each upstream that is not up and should be."""
        spare = self._spare_families()
        lines = [
            trouble
            for upstream in self.upstreams
            if (upstream.url, upstream.family) not in spare and (trouble := upstream.trouble())
        ]
        return lines + [f"{url}: {reason}" for url, reason in self.unresolved]

    def _spare_families(self) -> set[tuple[str, str]]:
        """Of names with IPv4 and IPv6 addresses, the family that nobody answers on, while somebody does on the other.

        `localhost` is both on most machines, and many a server listens on one alone: that is no trouble.
        """
        up = {(upstream.url, upstream.family) for upstream in self.upstreams if upstream.is_up}
        return {(url, "6" if family == "4" else "4") for url, family in up} - up

    def refresh(self) -> None:
        """Let the state follow the health, where it depends on that."""
        if self.state is PoolState.IDLE and self.healthy:
            self.step(PoolEvent.BECAME_FIT)
        elif self.state is PoolState.STANDBY and not self.healthy:
            self.step(PoolEvent.BECAME_UNFIT)

    def find(self, named: str) -> list[Upstream]:
        """The upstream with this id, or those of this URL, or with this address as its id begins."""
        return [
            upstream
            for upstream in self.upstreams
            if named in (upstream.id, upstream.url) or upstream.id.startswith(f"{named}~")
        ]

    def said_of(self, upstream: Upstream) -> UpstreamEvent:
        """What an operator has said of it: of this very one, or of all of its URL."""
        word = self.by_hand.get(upstream.id) or self.by_hand.get(upstream.url) or ""
        return _BY_HAND_EVENTS.get(word, UpstreamEvent.READY)

    def place(self, places: Iterable[Place], take: Callable[[str], int], give_back: Callable[[int], None]) -> Placed:
        """Have an upstream for each place: those that are known stay as they are. `take` has the slot for an id.

        Raises:
            Refused: there is no slot left; nothing was changed.
        """
        # With TLS and without it, one address is two upstreams: what is known of the one says nothing of the other.
        former = {upstream.id: upstream for upstream in self.upstreams}
        wanted = {place.id: place for place in places}
        known = {
            upstream_id: upstream
            for upstream_id, upstream in former.items()
            if upstream_id not in wanted or is_secure(upstream.url) == is_secure(wanted[upstream_id].url)
        }
        fresh: dict[str, Upstream] = {}
        try:
            for place in wanted.values():
                if place.id not in known:
                    fresh[place.id] = Upstream(place, take(place.id))
        except Exception:
            for upstream in fresh.values():
                give_back(upstream.slot)
            raise
        for upstream in fresh.values():
            upstream.step(self.said_of(upstream))
        for upstream_id, upstream in known.items():
            if upstream_id in wanted:
                upstream.url = wanted[upstream_id].url  # may be written in another way
        self.upstreams = [known.get(upstream_id) or fresh[upstream_id] for upstream_id in wanted]
        gone = [
            upstream for upstream_id, upstream in former.items() if upstream_id not in wanted or upstream_id in fresh
        ]
        for upstream in gone:
            give_back(upstream.slot)
        return Placed(list(fresh.values()), gone)

    def spec(self, *, live: bool) -> PoolSpec:
        """As the workers get it."""
        upstreams = tuple(
            UpstreamSpec(upstream.id, upstream.slot, upstream.url, upstream.address, upstream.usable(live=live))
            for upstream in self.upstreams
        )
        return PoolSpec(self.name, self.version, upstreams, self.tls, self.send_proxy)


class Service:
    """A service: settings, both pools, and who is live."""

    def __init__(self, name: str, slot: int, settings: Settings, *, tcp: bool = False) -> None:
        self.name = name
        self.tcp = tcp  # a listener in mode tcp leads to it
        self.slot = slot
        self.settings = settings
        self.pools = (Pool(POOLS[0]), Pool(POOLS[1]))
        self.live = 0
        self.previous: int | None = None
        self.coming: int | None = None  # a switch to it is being prepared
        self.generation = 0
        self.switched_at: float | None = None  # seconds since 1970
        self.deployment: int | None = None  # the number of the one that is under way
        self.deploying: int | None = None  # the pool that it is to make live
        self.mirror: MirrorSpec | None = None  # while it compares
        self.changing = ""  # what runs just now, such as "a switch to green"; one change at a time

    def __repr__(self) -> str:
        return f"<Service {self.name} live={POOLS[self.live]} generation={self.generation}>"

    @property
    def unproven(self) -> int | None:
        """The pool that a deployment under way is to make live, where it is not: nobody is to be sent there, or change it, meanwhile."""
        return self.deploying if self.deploying != self.live else None

    def equip(self, tls: tuple[TlsSpec, TlsSpec]) -> list[Pool]:
        """Have the pools spoken to as `tls` and the settings say; those for which that is another way than before."""
        changed = []
        for pool, found, settings in zip(
            self.pools, tls, (self.settings.pools.blue, self.settings.pools.green), strict=True
        ):
            if (pool.tls, pool.send_proxy) != (found, settings.send_proxy):
                pool.tls, pool.send_proxy = found, settings.send_proxy
                changed.append(pool)
        return changed

    def spec(self) -> ServiceSpec:
        """As the workers get it."""
        settings = self.settings
        warm = settings.deployment.warm
        blue, green = (pool.spec(live=index in (self.live, self.coming)) for index, pool in enumerate(self.pools))
        return ServiceSpec(
            name=self.name,
            slot=self.slot,
            hosts=settings.match.hosts,
            path=settings.match.path,
            pools=(blue, green),
            balance=settings.balance,
            retries=settings.retries,
            sessions=settings.sessions,
            preview=settings.preview,
            drain=settings.drain,
            expose_pool=settings.expose_pool,
            canary_by=settings.deployment.strategy.sticky,
            tcp=self.tcp,
            mirror=self.mirror,
            note_recent=not self.tcp and warm is not None and warm.paths == "recent",
        )

    def health(self) -> Health:
        """How its upstreams are checked, with a type that is not `auto`."""
        health = self.settings.health
        return health if health.type != "auto" else replace(health, type="tcp" if self.tcp else "http")


class Registry:
    """All services, the generation of the whole, and the slots."""

    def __init__(self) -> None:
        self.services: dict[str, Service] = {}
        self.generation = 0
        self.service_slots = Slots(MAX_SERVICES, "services")
        self.upstream_slots = Slots(MAX_UPSTREAMS, "upstreams")

    def find(self, name: str) -> Service:
        """A service by its name; raises `NotFound`."""
        service = self.services.get(name)
        if service is None:
            known = ", ".join(sorted(self.services)[:20]) or "none"
            raise NotFound(f"There is no service {name!r}; known: {known}.")
        return service

    def slot_of(self, name: str) -> int:
        """Where a service's word and cells are; raises `NotFound`."""
        return self.find(name).slot

    def claim(self, services: Iterable[Service], what: str) -> None:
        """Begin a change of all of these; raises `Busy`, and begins none, when one of them is being changed."""
        claimed = list(services)
        for service in claimed:
            if service.changing:
                raise Busy(f"{service.name}: {service.changing} is under way; nothing was changed.")
        for service in claimed:
            service.changing = what

    def release(self, services: Iterable[Service]) -> None:
        """The change has ended, in whatever way."""
        for service in services:
            service.changing = ""
