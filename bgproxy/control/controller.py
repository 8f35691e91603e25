"""The control plane in one object: what the API, the signals and the supervisor speak to.

It puts the parts together and hands each call to the part whose it is; nothing is decided here.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bgproxy.config.schema import Config
from bgproxy.control.actor import Actor
from bgproxy.control.counters import Counters
from bgproxy.control.draining import Drains
from bgproxy.control.editing import Editor
from bgproxy.control.events import Draft, EventLog
from bgproxy.control.ledger import Hints, Ledger
from bgproxy.control.links import Links, WorkerState
from bgproxy.control.merging import merge, with_slots
from bgproxy.control.publishing import Publisher
from bgproxy.control.registry import Registry
from bgproxy.control.reloading import Reloader
from bgproxy.control.services import Services
from bgproxy.control.state import State
from bgproxy.control.status import Census, Status
from bgproxy.control.store import Store
from bgproxy.control.switching import Switcher, SwitchResult
from bgproxy.control.tallies import Tallies
from bgproxy.control.tasks import Tasks
from bgproxy.control.watching import Watch
from bgproxy.model.snapshot import ProxySpec
from bgproxy.switchboard.messages import ToWorker
from bgproxy.switchboard.wiring import ControllerBirth

__all__ = ["Actor", "Controller", "SwitchResult"]

log = logging.getLogger("bgproxy.controller")


class Controller:
    """Who is live, and everything that is needed to decide it."""

    def __init__(self, birth: ControllerBirth, *, now: Callable[[], float] = time.monotonic) -> None:
        self._birth = birth
        self._config = birth.config
        self._session_key = b""
        self._store = Store(birth.config.state_dir)
        self._registry = Registry()
        self._census = Census(birth.children)
        self._tasks = Tasks()
        self.events = EventLog()
        self.tallies = Tallies()
        self._links = Links(
            birth.board.workers,
            welcome=self._welcome,
            on_failure=lambda message: self._watch.failed(message),  # noqa: PLW0108 - made below
            on_change=self._worker_changed,
            now=now,
        )
        self.counters = Counters(birth.board, self._registry.slot_of, self._links.living)
        self._publisher = Publisher(self._registry, lambda: self._links, self._proxy_spec)
        self._watch = Watch(self._registry, self._publisher, self.events, now=now)
        self._drains = Drains(
            lambda: self._links,
            self.counters,
            lambda drain, drained: self._switcher.drain_ended(drain, drained),  # noqa: PLW0108 - made below
            now,
        )
        self._ledger = Ledger(State(), self._store, self.events, self._hints)
        self._services = Services(
            registry=self._registry,
            board=birth.board,
            counters=self.counters,
            watch=self._watch,
            drains=self._drains,
            tallies=self.tallies,
            now=now,
        )
        self._switcher = Switcher(
            registry=self._registry,
            board=birth.board,
            links=self._links,
            publisher=self._publisher,
            drains=self._drains,
            ledger=self._ledger,
            counters=self.counters,
            events=self.events,
            tallies=self.tallies,
            tasks=self._tasks,
            now=now,
        )
        self._editor = Editor(
            registry=self._registry,
            links=self._links,
            publisher=self._publisher,
            ledger=self._ledger,
            watch=self._watch,
            tasks=self._tasks,
        )
        self._reloader = Reloader(
            config=birth.config,
            source=birth.config_source,
            text=birth.config_text,
            registry=self._registry,
            services=self._services,
            links=self._links,
            publisher=self._publisher,
            ledger=self._ledger,
            events=self.events,
            tasks=self._tasks,
            on_config=self._configured,
        )
        self._status = Status(
            registry=self._registry,
            links=self._links,
            drains=self._drains,
            counters=self.counters,
            census=self._census,
            started_at=time.time(),
        )

    # --- its life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Restore what was in force, put it on the board, and begin to speak to the workers and to check upstreams.

        Raises:
            StateError: the state directory or the state cannot be used; the text names the way on.
            Refused: the configuration has more services than there is room for.
        """
        stored = self._store.open()
        self._session_key = self._store.session_key()
        state = stored or State()
        self.events.restore(state.history, state.last_event)
        former = {name: record.slot for name, record in state.services.items()}
        merged, drafts = merge(self._config, state)
        merged = with_slots(merged, self._slots(merged))
        self._ledger.state = merged
        await self._ledger.change(lambda known: (known, drafts), lambda _: None)
        for draft in drafts:
            log.warning("%s", draft.message, extra={"fields": {"service": draft.service, "pool": draft.pool}})
        self._registry.generation = merged.generation

        self._watch.restore(merged.addresses, merged.upstream_slots)
        self._links.census(self._census.pids)
        again = self._census.controller_restarts > 0  # the workers have gone on meanwhile, by what the board says
        for name, settings in self._config.services.items():
            record = merged.services[name]
            if again and record.slot == former.get(name):
                self._services.resume(name, settings, record)
            else:
                self._services.add(name, settings, record)
        self._watch.on_placed = lambda: None  # hints are written along with the next change
        self._publisher.touch(*self._config.services)
        self._publisher.publish()
        for worker, end in self._birth.links.items():
            self._links.add(worker, self._census.pids.get(worker), end)
        await self._watch.start()
        self.events.emit(Draft(type="started", message="The controller has started.", data={"again": again}))

    def _slots(self, state: State) -> dict[str, int]:
        """A slot for every service of the configuration: the one that it had, if it can be."""
        slots: dict[str, int] = {}
        for name in self._config.services:
            slot = state.services[name].slot
            if slot is not None and self._registry.service_slots.claim(slot):
                slots[name] = slot
        for name in self._config.services:
            if name not in slots:
                slots[name] = self._registry.service_slots.take()
        return slots

    async def stop(self) -> None:
        """End everything; the workers go on. Idempotent."""
        self._publisher.close()
        await self._tasks.close()
        await self._watch.stop()
        await self._drains.close()
        await self._links.close()
        self.events.end()
        self._store.close()

    # --- what the supervisor says -----------------------------------------------------------------------------------

    def link(self, worker: int, pid: int, end: socket.socket) -> None:
        """A new link to a worker."""
        self._links.add(worker, pid, end)

    def lost(self, worker: int) -> None:
        """A worker has died."""
        self._links.lost(worker)

    def census(self, children: dict[str, Any]) -> None:
        """Pids and restart counts, after each change."""
        self._census.update(children)
        self._links.census(self._census.pids)

    # --- looking ----------------------------------------------------------------------------------------------------

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._config

    def status(self) -> dict[str, Any]:
        """The whole, as the API shows it."""
        return self._status.program(self._config)

    def service_status(self, name: str) -> dict[str, Any]:
        """One service; raises `NotFound`."""
        return self._status.service(self._registry.find(name))

    def generation(self, service: str) -> int:
        """The number of a service's last change; raises `NotFound`."""
        return self._registry.find(service).generation

    def ready(self) -> tuple[bool, list[str]]:
        """Whether every worker serves and every live pool has an upstream up; if not, why."""
        return self._status.ready()

    # --- changing ---------------------------------------------------------------------------------------------------

    async def switch(
        self,
        targets: Mapping[str, str | None],
        *,
        actor: Actor,
        force: bool = False,
        wait: str = "switched",
        reason: str = "",
        if_match: int | None = None,
    ) -> list[SwitchResult]:
        """See `Switcher.switch`."""
        results = await self._switcher.switch(
            targets, actor=actor, force=force, wait=wait, reason=reason, if_match=if_match
        )
        self._log_switches(results, actor)
        return results

    async def rollback(
        self,
        service: str,
        *,
        actor: Actor,
        force: bool = False,
        wait: str = "switched",
        reason: str = "",
        if_match: int | None = None,
    ) -> SwitchResult:
        """See `Switcher.rollback`."""
        result = await self._switcher.rollback(
            service, actor=actor, force=force, wait=wait, reason=reason, if_match=if_match
        )
        self._log_switches([result], actor)
        return result

    @staticmethod
    def _log_switches(results: Iterable[SwitchResult], actor: Actor) -> None:
        for result in results:
            if result.switched_in_ms:
                fields = {**result.to_json(), "actor": actor.name}
                log.info("switched", extra={"fields": fields})

    async def set_pool(
        self,
        service: str,
        pool: str,
        *,
        version: str | None,
        upstreams: list[str] | None,
        actor: Actor,
        if_match: int | None = None,
    ) -> dict[str, Any]:
        """See `Editor.set_pool`; the service's status afterwards."""
        await self._editor.set_pool(service, pool, version=version, upstreams=upstreams, actor=actor, if_match=if_match)
        return self.service_status(service)

    async def set_upstream_state(
        self, service: str, pool: str, upstream: str, state: str, *, actor: Actor
    ) -> dict[str, Any]:
        """See `Editor.set_upstream_state`; the service's status afterwards."""
        await self._editor.set_upstream_state(service, pool, upstream, state, actor=actor)
        return self.service_status(service)

    async def reload(self, *, actor: Actor) -> dict[str, Any]:
        """See `Reloader.reload`."""
        outcome = await self._reloader.reload(actor=actor)
        log.info("reloaded", extra={"fields": {**outcome, "actor": actor.name}})
        return outcome

    # --- what the parts ask of the whole ----------------------------------------------------------------------------

    def _configured(self, config: Config) -> None:
        self._config = config

    def _proxy_spec(self) -> ProxySpec:
        config = self._config
        return ProxySpec(config.limits, config.timeouts, config.trusted_proxies, config.access_log, self._session_key)

    def _welcome(self) -> list[ToWorker]:
        return [self._publisher.whole(), *self._drains.notes()]

    def _hints(self) -> Hints:
        return Hints(upstream_slots=self._watch.slots(), addresses=self._watch.addresses())

    def _worker_changed(self, worker: int, state: WorkerState) -> None:
        kind, what = ("worker_started", "serves") if state == "serving" else ("worker_lost", "was lost")
        fields = {"worker": worker}
        log.log(logging.INFO if state == "serving" else logging.WARNING, "worker %s", what, extra={"fields": fields})
        self.events.emit(Draft(type=kind, message=f"Worker {worker} {what}.", data=fields))
