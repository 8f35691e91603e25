"""A new configuration, whole or not at all: services come, go and change in one step, without a connection lost."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from bgproxy.config import source
from bgproxy.config.schema import Config, Listen
from bgproxy.control.actor import Actor
from bgproxy.control.counters import Counters
from bgproxy.control.draining import Drains
from bgproxy.control.events import Draft, EventLog
from bgproxy.control.ledger import Ledger
from bgproxy.control.links import Links
from bgproxy.control.merging import check_apart, check_live_pools, log_file_wins, merge, pools_of, take_over, with_slots
from bgproxy.control.publishing import Publisher
from bgproxy.control.registry import Registry, Service
from bgproxy.control.state import ServiceRecord, State
from bgproxy.control.tallies import Tallies
from bgproxy.control.tasks import Tasks
from bgproxy.control.upstream_files import Both, all_of, both_of
from bgproxy.control.watching import Watch
from bgproxy.errors import BgproxyError, Busy, ConfigError, Refused, Unavailable
from bgproxy.model.pool import POOLS, PoolEvent
from bgproxy.switchboard.board import Switchboard

log = logging.getLogger("bgproxy.controller")

#: What only a restart can change, because the supervisor has made it before anything else: keys and their values.
_BY_RESTART: Final[tuple[tuple[str, Callable[[Config], object]], ...]] = (
    ("listen", lambda config: config.listen),
    ("workers", lambda config: config.workers),
    ("admin.listen", lambda config: config.admin.listen),
    ("admin.tls", lambda config: "on" if config.admin.tls.cert else "off"),
    ("state_dir", lambda config: config.state_dir),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """What a new configuration changes."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]  # services
    program: bool  # something that holds for all services

    @classmethod
    def between(cls, old: Config, new: Config, renewed: Container[str] = ()) -> Difference:
        """Compare two configurations; services in the order of the files. Those in `renewed` differ in what their files hold."""
        return cls(
            added=tuple(name for name in new.services if name not in old.services),
            removed=tuple(name for name in old.services if name not in new.services),
            changed=tuple(
                name
                for name, found in new.services.items()
                if name in old.services and (found != old.services[name] or name in renewed)
            ),
            program=program_wide(old) != program_wide(new),
        )

    def to_json(self) -> dict[str, Any]:
        """For the event and the answer."""
        return {
            "added": list(self.added),
            "removed": list(self.removed),
            "changed": list(self.changed),
            "program": self.program,
        }

    def sentence(self) -> str:
        """For people."""
        parts = [
            f"{len(names)} {what} ({', '.join(names[:10])}{', ...' if len(names) > 10 else ''})"
            for what, names in (("added", self.added), ("removed", self.removed), ("changed", self.changed))
            if names
        ]
        if self.program:
            parts.append("settings of the whole program changed")
        return f"The configuration was reloaded: {'; '.join(parts) or 'nothing in it is different'}."


def program_wide(config: Config) -> tuple[object, ...]:
    """What holds for all services and can be changed by a reload."""
    return (config.limits, config.timeouts, config.trusted_proxies, config.access_log, config.admin)


def check_reloadable(old: Config, new: Config) -> None:
    """Raise `Refused`, naming each, if something differs that only a restart can change."""
    different = [
        f"{name} is {_written(get(new))}, and runs as {_written(get(old))}"
        for name, get in _BY_RESTART
        if get(old) != get(new)
    ]
    if different:
        names = ", ".join(name for name, get in _BY_RESTART if get(old) != get(new))
        raise Refused(f"Only a restart can change {names}; nothing of the new configuration was taken.", different)


def _written(value: object) -> str:
    return ", ".join(map(_one, value)) if isinstance(value, tuple) else str(value)


def _one(value: object) -> str:
    """An item of a list; of a listener, all that is not the default."""
    if not isinstance(value, Listen):
        return str(value)
    plain = asdict(Listen(address=value.address))
    other = {name: found for name, found in asdict(value).items() if found != plain[name]}
    return f"{value} {json.dumps(other)}" if other else str(value)


class Reloader:
    """Takes new configurations. `take` is called with each, in the moment in which it is in force."""

    def __init__(
        self,
        *,
        config: Config,
        config_source: str | None,
        config_text: str | None,
        take: Callable[[Config], None],
        registry: Registry,
        board: Switchboard,
        links: Links,
        publisher: Publisher,
        drains: Drains,
        ledger: Ledger,
        watch: Watch,
        counters: Counters,
        events: EventLog,
        tallies: Tallies,
        tasks: Tasks,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._source = config_source
        self._text = config_text
        self._take = take
        self._registry = registry
        self._board = board
        self._links = links
        self._publisher = publisher
        self._drains = drains
        self._ledger = ledger
        self._watch = watch
        self._counters = counters
        self._events = events
        self._tallies = tallies
        self._tasks = tasks
        self._now = now
        self._reloading = False
        #: Told of each service that has left the configuration.
        self.removed: Callable[[Service], None] = lambda _: None
        #: Told of each service in which the pool that a deployment has not made live yet got other upstreams, and of who reloads.
        self.changed: Callable[[Service, Actor], None] = lambda _service, _actor: None

    async def reload(self, *, actor: Actor) -> dict[str, Any]:
        """Read the configuration again and put it in force.

        Raises:
            ConfigError: it has mistakes; they are all in there.
            Busy, Refused: it cannot be taken as things stand.
            Unavailable, StateError: a worker or the disk did not do its part.
        """
        if self._reloading:
            raise Busy("A reload is under way already.")
        self._reloading = True
        return await asyncio.shield(self._tasks.start(self._reload(actor), name="reload"))

    async def _reload(self, actor: Actor) -> dict[str, Any]:
        try:
            config = await source.load_async(self._source, self._text)
            return await self._apply(config, actor)
        except BgproxyError as error:
            self._tell_refused(error, actor)
            raise
        finally:
            self._reloading = False

    def _tell_refused(self, error: BgproxyError, actor: Actor) -> None:
        details = [str(mistake) for mistake in error.mistakes] if isinstance(error, ConfigError) else []
        why = f"{len(details)} mistakes" if len(details) > 1 else str(error)
        message = f"The new configuration was refused, nothing was changed: {why}"
        self._events.emit(Draft(type="reload_refused", message=message, actor=actor, data={"details": details}))

    async def _apply(self, config: Config, actor: Actor) -> dict[str, Any]:
        check_reloadable(self._config, config)
        tls = await asyncio.to_thread(all_of, config)
        difference = Difference.between(self._config, config, self._renewed(tls))
        claimed = list(self._registry.services.values())
        self._registry.claim(claimed, "a reload")
        taken: dict[str, int] = {}
        won: list[Draft] = []
        try:
            self._check_room(config)
            self._publisher.publish()
            await self._links.acknowledged()
            for name in difference.added:
                taken[name] = self._registry.service_slots.take()

            def make(state: State) -> tuple[State, Sequence[Draft]]:
                new, drafts = merge(config, state, difference.changed)
                check_live_pools(config, state, new)
                check_apart(config, state, new)
                won.extend(drafts)
                told = Draft(
                    type="reloaded",
                    message=difference.sentence(),
                    actor=actor,
                    data={**difference.to_json(), "generation": new.generation},
                )
                return with_slots(new, taken), [*drafts, told]

            await self._ledger.change(make, lambda state: self._put(config, difference, tls, state, actor))
            taken.clear()
            log_file_wins(won)
        finally:
            for slot in taken.values():
                self._registry.service_slots.give_back(slot)
            self._registry.release(claimed)
        try:
            await self._links.acknowledged()
        except Unavailable as error:
            log.warning("reloaded, but not every worker has it yet: %s", error)
        return {
            "message": difference.sentence(),
            "generation": self._registry.generation,
            **difference.to_json(),
        }

    def _renewed(self, tls: Mapping[str, Both]) -> set[str]:
        """The services of which a certificate, a key or an authority is another now; raises `Refused` if one cannot be used."""
        if troubles := [f"{name}: {spec.trouble}" for name, both in tls.items() for spec in both if spec.trouble]:
            raise Refused(
                "What upstreams are to be verified with, or shown, cannot be used; nothing was changed.", troubles
            )
        known = self._registry.services
        return {
            name
            for name, both in tls.items()
            if name in known and tuple(pool.tls for pool in known[name].pools) != both
        }

    def _check_room(self, config: Config) -> None:
        """Raise `Refused` if the upstreams of the file cannot all have a slot, names counting once."""
        known = {
            (name, url) for name, found in self._registry.services.items() for pool in found.pools for url in pool.urls
        }
        wanted = {
            (name, url)
            for name, settings in config.services.items()
            for pool in pools_of(settings)
            for url in pool.upstreams
        }
        room = self._registry.upstream_slots.free
        if len(wanted - known) > room:
            raise Refused(f"There is room for {room} more upstreams only; {len(wanted - known)} would be new.")

    def _put(self, config: Config, difference: Difference, tls: Mapping[str, Both], state: State, actor: Actor) -> None:
        """The disk has it: put it in force. Nothing here waits, and the workers get it as one snapshot."""
        registry = self._registry
        registry.generation = state.generation
        for name in difference.removed:
            self._remove(registry.services.pop(name))
        for name, settings in config.services.items():
            record = state.services[name]
            service = registry.services.get(name)
            if service is None:
                service = registry.services[name] = make_service(name, config, record, tls[name])
                self._counters.begin_service(service.slot)
                # Before the first snapshot that names it: a worker that knows a service reads its word.
                self._board.settle(service.slot, service.live, monotonic(record.switched_at, self._now()))
                self._watch.follow(service)
                continue
            before, service.settings = service.settings, settings
            unproven = None if service.unproven is None else service.pools[service.unproven]
            urls = () if unproven is None else unproven.urls
            if take_over(service, record):
                self._watch.follow(service)
            if unproven is not None and unproven.urls != urls:
                self.changed(service, actor)
            for pool in service.pools:
                self._watch.obey(service, pool)
            self._watch.renew(service, before)
            for pool in service.equip(tls[name]):
                self._watch.check_anew(service, pool)
        registry.services = {name: registry.services[name] for name in config.services}
        self._config = config
        self._take(config)
        self._publisher.touch(*config.services, *difference.removed)
        self._publisher.publish()

    def _remove(self, service: Service) -> None:
        for index in range(len(POOLS)):
            self._drains.cancel(service.name, index)
        self._watch.forget(service)
        self.removed(service)
        self._tallies.forget(service.name)
        self._registry.service_slots.give_back(service.slot)


def make_service(name: str, config: Config, record: ServiceRecord, tls: Both | None = None) -> Service:
    """A service as the file and its record say; its upstreams come with `Watch.follow`. Without `tls`, files are read here."""
    if record.slot is None:
        raise AssertionError(f"{name} has no slot")
    service = Service(name, record.slot, config.services[name], tcp=name in config.tcp_services())
    service.equip(tls or _read_at_start(name, config))
    take_over(service, record)
    service.live, service.previous, service.switched_at = record.live, record.previous, record.switched_at
    service.pools[service.live].step(PoolEvent.SWITCHED_TO)
    return service


def _read_at_start(name: str, config: Config) -> Both:
    """A reload can be refused; a start has to go on, and who needs what cannot be read is told so."""
    both = both_of(config.services[name])
    for pool, tls in zip(POOLS, both, strict=True):
        if tls.trouble:
            log.error("%s: no https:// upstream of %s can be reached: %s", name, pool, tls.trouble)
    return both


def monotonic(unix: float | None, now: float) -> float:
    """A moment in seconds since 1970 as one of CLOCK_MONOTONIC, of which `now` is the present one; 0.0 if never or before it began."""
    return 0.0 if unix is None else max(now - max(time.time() - unix, 0.0), 0.0)
