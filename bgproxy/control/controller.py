"""The controller: the one object that the admin API and the controller's process speak to.

It puts the parts together, starts and stops them in order, and passes every call to the part that does it:

    Switcher     who is live                       Ledger, Store   what is in force is on the disk before
    Editor       pools, states by hand             Registry        what is known of services, pools, upstreams
    Reloader     a new configuration               Publisher       the workers know it too
    Watch        names, checks, live failures      Links           and have said so
    Drains       what is left on old pools         Counters        what the workers count
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from bgproxy.config.schema import Config
from bgproxy.control.actor import Actor
from bgproxy.control.archive import Archive
from bgproxy.control.certificates import Certificates
from bgproxy.control.counters import Counters
from bgproxy.control.deployments.guard import Guard
from bgproxy.control.deployments.notify import Notifier
from bgproxy.control.deployments.runner import Deployments
from bgproxy.control.deployments.stage import Hands, Run
from bgproxy.control.deployments.watcher import Watcher
from bgproxy.control.doors import Doors
from bgproxy.control.draining import Drain, Drained, Drains, last_moment, sessions_stay
from bgproxy.control.editing import Editor
from bgproxy.control.events import Draft, EventLog
from bgproxy.control.ledger import Hints, Ledger
from bgproxy.control.links import Links, WorkerState
from bgproxy.control.merging import log_file_wins, merge, shared, with_slots
from bgproxy.control.places import check_not_admin, checked, preview_urls
from bgproxy.control.publishing import Publisher
from bgproxy.control.registry import Registry, Service
from bgproxy.control.reloading import Reloader, make_service, monotonic
from bgproxy.control.state import State
from bgproxy.control.status import Census, Status
from bgproxy.control.store import Store
from bgproxy.control.switching import Switcher, SwitchResult
from bgproxy.control.tallies import Tallies
from bgproxy.control.tasks import Tasks
from bgproxy.control.watching import Watch
from bgproxy.errors import BgproxyError, Refused, StartError, StateError, Unavailable
from bgproxy.model.deployment import DeploymentState
from bgproxy.model.pool import POOLS, PoolEvent
from bgproxy.model.snapshot import ProxySpec
from bgproxy.switchboard.messages import ToWorker, UndrainPool, UpstreamFailed
from bgproxy.switchboard.wiring import ControllerBirth

__all__ = ["Actor", "Controller", "SwitchResult"]

log = logging.getLogger("bgproxy.controller")

#: Seconds after a change of upstreams that nobody asked for (a name resolves to others) until it is noted on the disk.
NOTE_AFTER: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Parts:
    """What exists once the state is restored."""

    ledger: Ledger
    switcher: Switcher
    editor: Editor
    reloader: Reloader
    deployments: Deployments


class Controller:
    """The control plane of one bgproxy; `now` is CLOCK_MONOTONIC in seconds."""

    def __init__(self, birth: ControllerBirth, *, now: Callable[[], float] = time.monotonic) -> None:
        self.config: Config = birth.config
        self.events = EventLog()
        self.tallies = Tallies()
        self._birth = birth
        self._now = now
        self._board = birth.board
        self._store = Store(birth.config.state_dir)
        self._archive = Archive(birth.config.state_dir)
        self._session_key = b""
        self._registry = Registry()
        self._tasks = Tasks()
        self._census = Census(birth.children)
        self._links = Links(
            birth.board.workers,
            welcome=self._welcome,
            on_failure=self._upstream_failed,
            on_change=self._worker_changed,
            now=now,
        )
        self._links.census(self._census.pids)
        self.counters = Counters(birth.board, self._registry.slot_of, self._links.living)
        self._publisher = Publisher(self._registry, lambda: self._links, self._proxy)
        self._drains = Drains(lambda: self._links, self.counters, self._drain_ended, now)
        self._watch = Watch(self._registry, self._publisher, self.events, doors=Doors(birth.listeners), now=now)
        self._notifier = Notifier()
        self._bake_watcher = Watcher(services=self._registry.services.values, counters=self.counters, now=now)
        self.certificates = Certificates(self.config, self.events, self._publisher.touch)
        self._status = Status(
            registry=self._registry,
            links=self._links,
            drains=self._drains,
            counters=self.counters,
            census=self._census,
            certificates=self.certificates,
            started_at=time.time(),
            share=birth.board.share,
            deployment=self._deployment,
            last_deployment=lambda name: None if self._parts is None else self._parts.deployments.last_of(name),
        )
        self._parts: _Parts | None = None
        self._open = False  # links are opened as they come; before, they wait in `_early`
        self._early: dict[int, tuple[int | None, socket.socket]] = {
            worker: (self._census.pids.get(worker), end) for worker, end in birth.links.items()
        }
        self._note: asyncio.TimerHandle | None = None
        self._were_split: set[int] = set()  # slots of services that a former controller has left in a canary

    # --- its life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Restore the state, have the board say it, then speak to the workers.

        Raises:
            StateError: the state cannot be restored, or not be written the first time; the text names the file, what is wrong,
                and the way on.
            StartError: there are more services than there is room for.
        """
        stored = self._store.open()
        self._session_key = self._store.session_key()
        self._archive.open()
        state = stored or State()
        # A number that is told of is not given again, even if the state was begun anew.
        state = replace(state, last_deployment=max(state.last_deployment, self._archive.last_id))
        self.events.restore(state.history, state.last_event)
        ledger = Ledger(state, self._store, self.events, lambda: Hints(state.upstream_slots, state.addresses))
        merged, drafts = merge(self.config, state)
        try:
            merged, fresh = self._with_slots(merged)
        except Refused as error:
            raise StartError(str(error)) from None
        try:
            await ledger.change(lambda _: (merged, drafts), lambda new: self._restore(new, fresh))
        except StateError as error:
            if stored is None:
                raise
            # What was read is good, and the workers need somebody: go on, though every change is refused like this one.
            log.error("%s The controller goes on by what it has read.", error)  # noqa: TRY400 - the text says it all
            ledger.state = merged
            self._restore(merged, fresh)
        log_file_wins(drafts)
        self._warn_of_empty()
        for line in shared(ledger.state, self.config.services):
            log.error("%s: a switch does not move what it gets; set the upstreams of one pool", line)
        parts = self._parts = self._make_parts(Ledger(ledger.state, self._store, self.events, self._hints))
        await self.certificates.start()
        await self._watch.start()
        self._watch.on_placed = self._note_soon
        self._resume_drains()
        self._open = True
        for worker, (pid, end) in self._early.items():
            self._links.add(worker, pid, end)
        self._early.clear()
        self._bake_watcher.start()
        await parts.deployments.resume()
        self._archive.add(parts.ledger.state.deployments.values())
        restarts = self._census.controller_restarts
        again = f" again, for the {restarts}. time" if restarts else ""
        self.events.emit(Draft(type="started", message=f"The controller has started{again}."))

    async def stop(self) -> None:
        """End in order; the workers go on serving. Idempotent, and fit for one that has not started."""
        if self._note is not None:
            self._note.cancel()
            self._note = None
        if self._parts is not None:
            await self._parts.deployments.stop()
        await self._archive.close()
        await self._notifier.close()
        await self._bake_watcher.stop()
        await self._tasks.close()
        self._open = False
        for _, end in self._early.values():
            end.close()
        self._early.clear()
        await self.certificates.stop()
        await self._watch.stop()
        await self._drains.close()
        self._publisher.close()
        await self._links.close()
        self.events.end()
        self._store.close()

    def _make_parts(self, ledger: Ledger) -> _Parts:
        switcher = Switcher(
            registry=self._registry,
            board=self._board,
            links=self._links,
            publisher=self._publisher,
            drains=self._drains,
            ledger=ledger,
            events=self.events,
            tallies=self.tallies,
            tasks=self._tasks,
            now=self._now,
        )
        editor = Editor(
            registry=self._registry,
            links=self._links,
            publisher=self._publisher,
            ledger=ledger,
            watch=self._watch,
            tasks=self._tasks,
        )
        reloader = Reloader(
            config=self.config,
            config_source=self._birth.config_source,
            config_text=self._birth.config_text,
            take=self._take_config,
            registry=self._registry,
            board=self._board,
            links=self._links,
            publisher=self._publisher,
            drains=self._drains,
            ledger=ledger,
            watch=self._watch,
            counters=self.counters,
            events=self.events,
            tallies=self.tallies,
            tasks=self._tasks,
            now=self._now,
        )
        hands = Hands(
            switcher=switcher,
            editor=editor,
            counters=self.counters,
            drains=self._drains,
            links=self._links,
            publisher=self._publisher,
            environment=self._environment,
            mismatched=self.tallies.mismatched,
            guard=Guard(f"{self.config.state_dir}/commands"),
            watcher=self._bake_watcher,
        )
        deployments = Deployments(
            registry=self._registry,
            ledger=ledger,
            hands=hands,
            preview_urls=lambda _: preview_urls(self.config),
            heard=self._deployment_went_on,
            archive=self._archive,
        )
        switcher.moved = deployments.moved
        reloader.removed = deployments.forget
        reloader.changed = deployments.changed
        return _Parts(ledger, switcher, editor, reloader, deployments)

    @property
    def deployments(self) -> Deployments:
        """The deployments; raises `Unavailable` before the controller has started."""
        return self._running().deployments

    def _deployment(self, service: str) -> dict[str, Any] | None:
        """The deployment of a service that is under way; none before the controller has started."""
        return None if self._parts is None else self._parts.deployments.running(service)

    def _running(self) -> _Parts:
        if self._parts is None:
            raise Unavailable("The controller is still starting; try again in a moment.")
        return self._parts

    # --- restoring --------------------------------------------------------------------------------------------------

    def _with_slots(self, state: State) -> tuple[State, set[str]]:
        """Slots for the services of the file: their former ones, which the workers know, else new ones; and who has a new one."""
        slots: dict[str, int] = {}
        for name in self.config.services:
            slot = state.services[name].slot
            if slot is not None and self._registry.service_slots.claim(slot):
                slots[name] = slot
        fresh = set(self.config.services) - slots.keys()
        for name in sorted(fresh):
            slots[name] = self._registry.service_slots.take()
        return with_slots(state, slots), fresh

    def _restore(self, state: State, fresh: set[str]) -> None:
        """Have the registry and the board as the state says."""
        self._watch.restore(state.addresses, state.upstream_slots)
        self._registry.generation = state.generation
        for name in self.config.services:
            service = make_service(name, self.config, state.services[name])
            self._registry.services[name] = service
            if name in fresh:
                self.counters.begin_service(service.slot)
        self._settle_board(fresh)
        for service in self._registry.services.values():
            self._watch.follow(service)

    def _warn_of_empty(self) -> None:
        """A reload that leaves a live pool without upstreams is refused; a start can only say so."""
        for service in self._registry.services.values():
            pool = service.pools[service.live]
            if not pool.urls and service.pools[1 - service.live].urls:
                log.error(
                    "%s: %s is live and has no upstreams: every request is answered with 503; switch, or set its upstreams",
                    service.name,
                    pool.name,
                )

    def _settle_board(self, fresh: set[str]) -> None:
        """The board says what the disk says, before any worker is told of a slot.

        A former controller may have written a switch down and died before its commit: all services that it was for are
        committed in one instant now. The time of a switch on the board is better than the disk's, which is of another clock.
        """
        services = self._registry.services.values()
        # A share of a former controller's canary is none of this one's: the traffic is whole again.
        self._were_split = {
            s.slot
            for s in services
            if s.name not in fresh and self._board.share(s.slot) and self._board.live(s.slot) == s.live
        }
        behind = {s.slot: s.live for s in services if s.name not in fresh and self._board.routing(s.slot) != s.live}
        if behind:
            self._board.commit(behind, self._now())
        for service in services:
            if service.name in fresh or service.slot in behind or not self._board.switched_at(service.slot):
                at = monotonic(service.switched_at, self._now())
                self._board.settle(service.slot, service.live, at)

    def _resume_drains(self) -> None:
        """Watch what a former controller left draining."""
        for service in self._registry.services.values():
            old, since = service.previous, self._board.switched_at(service.slot)
            if service.slot in self._were_split:
                old, since = 1 - service.live, self._now()
            if old is None or not since or self._now() >= last_moment(since, service):
                continue
            staying = self._now() < since + sessions_stay(service.settings.sessions)
            if staying or any(self.counters.in_flight(service.slot, old)):
                pool = service.pools[old]
                pool.step(PoolEvent.SWITCHED_TO)  # it was
                pool.step(PoolEvent.SWITCHED_AWAY)
                self._drains.begin(service, old, since)

    # --- the workers ------------------------------------------------------------------------------------------------

    def link(self, worker: int, pid: int | None, end: socket.socket) -> None:
        """The supervisor has handed over this end of a link to a worker."""
        if self._open:
            self._links.add(worker, pid, end)
        else:
            former = self._early.pop(worker, None)
            if former is not None:
                former[1].close()
            self._early[worker] = (pid, end)

    def lost(self, worker: int) -> None:
        """A worker has died."""
        early = self._early.pop(worker, None)
        if early is not None:
            early[1].close()
        self._links.lost(worker)

    def census(self, children: dict[str, Any]) -> None:
        """The supervisor says which processes there are."""
        self._census.update(children)
        self._links.census(self._census.pids)

    def _worker_changed(self, worker: int, state: WorkerState) -> None:
        kind, what = ("worker_started", "serves") if state == "serving" else ("worker_lost", "is lost")
        data = {"worker": worker, "pid": self._links.pid(worker)}
        self.events.emit(Draft(type=kind, message=f"Worker {worker} {what}.", data=data))

    def _upstream_failed(self, message: UpstreamFailed) -> None:
        self._watch.failed(message)

    def _drain_ended(self, drain: Drain, drained: Drained) -> None:
        self._running().switcher.drain_ended(drain, drained)

    def _welcome(self) -> Iterator[ToWorker]:
        """What a worker needs first. One that outlived a controller may hold drains that have ended meanwhile."""
        yield self._publisher.whole()
        for service in self._registry.services.values():
            for index in range(len(POOLS)):
                if service.switched_at is not None and self._drains.of(service.name, index) is None:
                    yield UndrainPool(service.name, index)
        yield from self._drains.notes()

    def _proxy(self) -> ProxySpec:
        config = self.config
        return ProxySpec(
            config.limits,
            config.timeouts,
            config.trusted_proxies,
            config.access_log,
            self._session_key,
            certificates=self.certificates.specs(),
            client_cas=self.certificates.authorities(),
        )

    def _take_config(self, config: Config) -> None:
        self.config = config

    # --- hints for the next life ------------------------------------------------------------------------------------

    def _hints(self) -> Hints:
        return Hints(self._watch.slots(), self._watch.addresses())

    def _note_soon(self) -> None:
        """Upstreams have come or gone by themselves: a successor should know, also when no name resolves then."""
        if self._note is None:
            self._note = asyncio.get_running_loop().call_later(NOTE_AFTER, self._note_now)

    def _note_now(self) -> None:
        self._note = None
        self._tasks.start(self._write_note(), name="note the upstreams")

    async def _write_note(self) -> None:
        ledger = self._running().ledger
        hints = self._hints()
        if (hints.upstream_slots, hints.addresses) == (ledger.state.upstream_slots, ledger.state.addresses):
            return
        try:
            await ledger.change(lambda state: (state, ()), lambda _: None)
        except BgproxyError as error:
            log.warning("the upstreams were not noted in the state file: %s", error)

    # --- what is asked for ------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """The whole program, as `GET /v1/status` answers it."""
        return self._status.program(self.config)

    def service_status(self, name: str) -> dict[str, Any]:
        """One service; raises `NotFound`."""
        return self._status.service(self._service(name))

    def generation(self, service: str) -> int:
        """The number of a service's last change; raises `NotFound`."""
        return self._service(service).generation

    def ready(self) -> tuple[bool, list[str]]:
        """Whether every worker serves and every live pool has an upstream up; if not, why."""
        if self._parts is None:
            return False, ["the controller is still starting"]
        return self._status.ready()

    def _service(self, name: str) -> Service:
        return self._registry.find(name)

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
        """Make these pools live in one instant; see `Switcher.switch`."""
        switcher = self._running().switcher
        return await switcher.switch(targets, actor=actor, force=force, wait=wait, reason=reason, if_match=if_match)

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
        """Make the pool live that was so before; see `Switcher.rollback`."""
        switcher = self._running().switcher
        return await switcher.rollback(service, actor=actor, force=force, wait=wait, reason=reason, if_match=if_match)

    async def set_pool(
        self,
        service: str,
        pool: str,
        *,
        version: str | None,
        upstreams: Sequence[str] | None,
        actor: Actor,
        if_match: int | None = None,
    ) -> dict[str, Any]:
        """Change what a pool is made of, and answer with the service's status; see `Editor.set_pool`."""
        if upstreams is not None:
            check_not_admin(checked(upstreams), self.config.admin.listen)
        editor = self._running().editor
        await editor.set_pool(service, pool, version=version, upstreams=upstreams, actor=actor, if_match=if_match)
        return self.service_status(service)

    async def set_upstream_state(
        self, service: str, pool: str, upstream: str, state: str, *, actor: Actor
    ) -> dict[str, Any]:
        """Take an upstream out or back, and answer with the service's status; see `Editor.set_upstream_state`."""
        await self._running().editor.set_upstream_state(service, pool, upstream, state, actor=actor)
        return self.service_status(service)

    async def deploy(
        self,
        service: str,
        *,
        actor: Actor,
        version: str | None = None,
        upstreams: Sequence[str] | None = None,
        strategy: str | None = None,
        reason: str = "",
        key: str = "",
    ) -> dict[str, Any]:
        """Begin a deployment to the idle pool, and answer with it; see `Deployments.start`."""
        if upstreams is not None:
            check_not_admin(checked(upstreams), self.config.admin.listen)
        deployments = self.deployments
        urls = None if upstreams is None else tuple(upstreams)
        record = await deployments.start(
            service, actor=actor, version=version, upstreams=urls, strategy=strategy, reason=reason, key=key
        )
        return deployments.describe(record)

    def _environment(self) -> dict[str, str]:
        """What commands of deployments find, beside what they are told: all of ours but tokens."""
        secrets = {"BGPROXY_TOKEN", *(token.token_env for token in self.config.admin.tokens)}
        return {name: value for name, value in os.environ.items() if name not in secrets}

    def _deployment_went_on(self, run: Run, before: DeploymentState) -> None:
        """A deployment has taken a step."""
        self._notifier.heard(run, before)
        if not run.record.running:
            if (
                self._registry.services.get(run.service.name) is run.service
            ):  # of those that have left nothing is counted
                self.tallies.deployed(run.service.name, run.record.state.value)
            self._archive.add([run.record])

    async def reload(self, *, actor: Actor) -> dict[str, Any]:
        """Read the configuration again, whole or not at all (see `Reloader.reload`), and the listeners' certificates."""
        answer = await self._running().reloader.reload(actor=actor)
        if await self.certificates.look(at_once=True):
            self._publisher.publish()
            try:
                await self._links.acknowledged()
            except Unavailable as error:
                log.warning("certificates were renewed, but not every worker has them yet: %s", error)
        return answer

    async def wait_drained(self, service: str, pool: str) -> dict[str, Any] | None:
        """Wait until the drain of a pool has ended, and tell what became of it; None if there is none."""
        ending = self._drains.ending(self._service(service).name, POOLS.index(pool))
        return (await asyncio.shield(ending)).to_json() if ending is not None else None
