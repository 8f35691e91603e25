"""The deployments of a controller: one at a time for a service, each on its way in a `Driver`; what is asked of them, and told.

What an operator does by hand goes first: a rollback, or a forced switch, ends a deployment that was under way.
A start goes on with those that a former controller has left on their way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from bgproxy.config.schema import Deployment as Settings
from bgproxy.control.actor import ITSELF, Actor
from bgproxy.control.archive import Archive
from bgproxy.control.deployments import stages
from bgproxy.control.deployments.driver import Driver, Interrupted, Road
from bgproxy.control.deployments.keeping import kept
from bgproxy.control.deployments.stage import Clock, Hands, Run, WallClock
from bgproxy.control.deployments.telling import because, described, draft_of, said, went
from bgproxy.control.deployments.unwritten import Unwritten
from bgproxy.control.events import Draft
from bgproxy.control.ledger import Ledger
from bgproxy.control.registry import Pool, Registry, Service
from bgproxy.control.state import State
from bgproxy.control.tasks import Tasks
from bgproxy.errors import BgproxyError, Busy, Invalid, NotFound, Refused
from bgproxy.model.deployment import BEFORE_FLIP, DeploymentRecord, DeploymentState, Result, Step
from bgproxy.model.pool import POOLS

log = logging.getLogger("bgproxy.controller")

STRATEGIES: Final = ("all-at-once", "canary", "linear")

_S = DeploymentState


class Deployments:
    """All deployments of a controller. `heard` is told of each transition, for notifications and tallies."""

    def __init__(
        self,
        *,
        registry: Registry,
        ledger: Ledger,
        hands: Hands,
        clock: Clock | None = None,
        preview_urls: Callable[[Service], list[str]] = lambda _: [],
        heard: Callable[[Run, DeploymentState], None] = lambda _run, _before: None,
        table: Mapping[DeploymentState, stages.Entry] = stages.ENTRIES,
        archive: Archive | None = None,
    ) -> None:
        self._registry = registry
        self._ledger = ledger
        self._hands = hands
        self._clock = clock or WallClock()
        self._preview_urls = preview_urls
        self._heard = heard
        self._archive = archive or Archive("")
        self._drivers: dict[str, Driver] = {}  # by service
        self._tasks: set[asyncio.Task[None]] = set()
        self._unwritten = Unwritten(ledger, self._clock)
        self._writes = Tasks()
        self._road = Road(
            ledger=ledger,
            writes=self._writes,
            unwritten=self._unwritten,
            table=table,
            heard=heard,
            over=self._over,
        )

    # --- its life ---------------------------------------------------------------------------------------------------

    async def resume(self) -> None:
        """Go on with what a former controller left running; services that have left the file lose theirs."""
        running = [record for record in self._ledger.state.deployments.values() if record.running]
        latest = {record.service: record for record in sorted(running, key=lambda record: record.id)}
        for record in running:
            service = self._registry.services.get(record.service)
            later = latest[record.service].id
            if service is None:
                await self._end_orphan(record, "the service is not in the configuration any more")
            elif record.id != later:  # its end came while the disk took nothing
                await self._end_orphan(record, f"deployment {later} came after it; how it ended was not written down")
            else:
                self._launch(record, service, resumed=True)

    async def stop(self) -> None:
        """Leave them as they are: the next controller goes on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._unwritten.stop()
        await self._writes.close()

    def _launch(self, record: DeploymentRecord, service: Service, *, resumed: bool) -> Run:
        run = Run(
            record,
            service,
            self._settings(record, service),
            self._hands,
            clock=self._clock,
            preview_urls=lambda: self._preview_urls(service),
            remember=self._save,
        )
        driver = self._drivers[service.name] = Driver(run, self._road)
        # The rest of the controller is told what may not be changed by hand meanwhile.
        service.deployment = record.id
        service.deploying = run.target
        name = f"deployment {record.id} of {service.name}"
        task = asyncio.get_running_loop().create_task(driver.drive(resumed=resumed), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return run

    @staticmethod
    def _settings(record: DeploymentRecord, service: Service) -> Settings:
        settings = service.settings.deployment
        strategy = replace(settings.strategy, type=record.strategy)  # type: ignore[arg-type] # one of STRATEGIES
        return replace(settings, strategy=strategy)

    # --- what is asked for ------------------------------------------------------------------------------------------

    async def start(
        self,
        name: str,
        *,
        actor: Actor,
        version: str | None = None,
        upstreams: tuple[str, ...] | None = None,
        strategy: str | None = None,
        reason: str = "",
        key: str = "",
    ) -> DeploymentRecord:
        """Begin a deployment to the idle pool; `key` is what `begun_under` finds it by, also after a restart.

        Raises:
            NotFound, Invalid: there is no such service or strategy, or the pool cannot be set so.
            Busy: a deployment, or another change, of the service runs.
            Refused: the idle pool has no upstreams, and none were given.
            Unavailable, StateError: the disk did not take it.
        """
        service = self._registry.find(name)
        target = service.pools[1 - service.live]
        self._check_free(service, target)
        if strategy is not None and strategy not in STRATEGIES:
            raise Invalid(f"strategy: {strategy!r} is not allowed; it is {', '.join(STRATEGIES)}.")
        if version is not None or upstreams is not None:
            upstreams = self._hands.editor.check_pool(service, 1 - service.live, version, upstreams)
        if not (target.urls if upstreams is None else upstreams):
            raise Refused(
                f"{name}: {target.name} is idle and has no upstreams; name them (bgproxy deploy --upstream URL), or set the pool."
            )

        def make(state: State) -> tuple[State, list[Draft]]:
            self._check_free(service, target)  # others have changed things while this one waited for its turn
            record = DeploymentRecord(
                id=state.last_deployment + 1,
                service=name,
                target=target.name,
                version=target.version if version is None else version,
                upstreams=upstreams,
                strategy=strategy or service.settings.deployment.strategy.type,
                reason=reason,
                actor=actor.to_json(),
                steps=(Step(state=_S.QUEUED.value, at=self._clock.time(), by=actor.name, why=reason),),
                memory={"key": key} if key else {},
            )
            after = replace(state, last_deployment=record.id)
            return kept(after, record), [draft_of(record, actor, reason)]

        run = await self._ledger.change(make, lambda state: self._begun(state, service))
        return run.record

    def _begun(self, state: State, service: Service) -> Run:
        record = state.deployments[state.last_deployment]
        run = self._launch(record, service, resumed=False)
        self._heard(run, _S.QUEUED)
        return run

    def _check_free(self, service: Service, target: Pool) -> None:
        """Raise if nothing can be deployed to this pool now: somebody else is at it, or it is not idle, or not there, any more."""
        if self._registry.find(service.name) is not service:
            raise Busy(f"{service.name} was changed by a reload just now; look again.")
        driver = self._drivers.get(service.name)
        if driver is not None:
            record = driver.run.record
            raise Busy(
                f"{service.name}: deployment {record.id} is {said(record.state)}; "
                f"one at a time (bgproxy abort {record.id} ends it)."
            )
        if service.coming is not None or target is service.pools[service.live]:
            raise Busy(f"{service.name} is switched just now, so {target.name} is not idle; look again.")

    async def approve(self, number: int, *, actor: Actor, reason: str = "") -> dict[str, Any]:
        """Say yes to one that waits for it; raises `NotFound`, `Refused`."""
        driver = self._running(number)
        run = driver.run
        if driver.interrupted is not None:
            raise Refused(f"Deployment {number} is about to end: {driver.interrupted}.")
        if not run.waits:
            raise Refused(f"Deployment {number} is {said(run.record.state)} and does not wait for an approval.")
        if run.approved.is_set():
            return self.describe(run.record)  # once is enough
        run.approval = (actor, f"approved by {actor.name}{because(reason)}")
        run.keep(
            Result(
                stage=run.record.state.value,
                name="approval",
                ok=True,
                found=run.approval[1],
            )
        )
        run.approved.set()
        return self.describe(run.record)

    async def abort(self, number: int, *, actor: Actor, reason: str = "") -> dict[str, Any]:
        """End one: before the switch nothing has happened; in it, and in the bake, it is rolled back; later it only stops here.

        Raises `NotFound`, `Refused`.
        """
        driver = self._running(number)
        if driver.run.record.state is _S.ROLLING_BACK:
            raise Refused(f"Deployment {number} is being rolled back already.")
        driver.interrupt(Interrupted(actor, f"aborted by {actor.name}{because(reason)}"))
        return self.describe(driver.run.record)

    def _running(self, number: int) -> Driver:
        for driver in self._drivers.values():
            if driver.run.record.id == number:
                return driver
        record = self._known().get(number) or self._archive.get(number)
        if record is not None:
            raise Refused(f"Deployment {number} has ended: it {went(record.state)}.")
        raise NotFound(f"There is no deployment {number}.")

    def get(self, number: int) -> dict[str, Any]:
        """One deployment as the API answers it; raises `NotFound`."""
        for driver in self._drivers.values():
            if driver.run.record.id == number:
                return self.describe(driver.run.record)
        record = self._known().get(number) or self._archive.get(number)
        if record is None:
            raise NotFound(f"There is no deployment {number}.")
        return self.describe(record)

    def listing(self, service: str, most: int = 1000) -> list[dict[str, Any]]:
        """Those of a service that are known, the latest last; at most so many."""
        known = {record.id: self.get(record.id) for record in self._known().values() if record.service == service}
        former = {r.id: self.describe(r) for r in self._archive.of(service, most) if r.id not in known}
        return [deployment for _, deployment in sorted({**former, **known}.items())][-most:]

    def _known(self) -> dict[int, DeploymentRecord]:
        """All that are kept, by id, as they stand."""
        return {**self._ledger.state.deployments, **self._unwritten.records}

    def begun_under(self, service: str, actor: Actor, key: str) -> dict[str, Any] | None:
        """The deployment of a service that somebody has begun with this key already."""
        for record in self._ledger.state.deployments.values():
            mine = record.service == service and record.actor.get("name") == actor.name
            if key and mine and record.memory.get("key") == key:
                return self.get(record.id)
        return None

    def running(self, service: str) -> dict[str, Any] | None:
        """The deployment of a service that is under way."""
        driver = self._drivers.get(service)
        return None if driver is None else self.describe(driver.run.record)

    def last_of(self, service: str) -> dict[str, Any] | None:
        """The latest deployment of a service that has ended."""
        known = self._ledger.state.deployments.values()
        ended = [record for record in known if record.service == service and not record.running]
        return described(max(ended, key=lambda record: record.id), None) if ended else None

    def describe(self, record: DeploymentRecord) -> dict[str, Any]:
        """As the API answers it."""
        driver = self._drivers.get(record.service)
        return described(record, driver.run if driver is not None and driver.run.record.id == record.id else None)

    # --- what comes from elsewhere ----------------------------------------------------------------------------------

    def moved(self, service: Service, actor: Actor, reason: str) -> None:
        """Who is live was changed; if not by the deployment itself, it is over."""
        driver = self._drivers.get(service.name)
        if driver is None or actor == driver.run.actor:
            return
        record = driver.run.record
        # In a canary taken back the old pool was live all the time.
        back = record.state is _S.SWITCHING and POOLS[service.live] != record.target
        what = "given all traffic" if back else "made live"
        why = f"{POOLS[service.live]} was {what} by {actor.name}{because(reason)}"
        driver.interrupt(Interrupted(actor, why, moved=True))

    def changed(self, service: Service, actor: Actor) -> None:
        """A reload has given other upstreams to the pool that is deployed to, and that is not live yet: what was proven is gone."""
        driver = self._drivers.get(service.name)
        if driver is not None:
            why = f"{driver.run.record.target} got other upstreams by a reload ({actor.name}), which nothing has proven; deploy again"
            driver.interrupt(Interrupted(actor, why))

    def forget(self, service: Service) -> None:
        """The service has left the configuration."""
        driver = self._drivers.get(service.name)
        if driver is not None:
            driver.interrupt(Interrupted(ITSELF, "the service has left the configuration", gone=True))

    async def _end_orphan(self, record: DeploymentRecord, why: str) -> None:
        """Nothing can be done for it any more."""
        await self._hands.guard.end_left(record.id)
        state = _S.ABORTED if record.state in BEFORE_FLIP else _S.FAILED
        step = Step(state=state.value, at=self._clock.time(), by=ITSELF.name, why=why)
        after = replace(record, state=state, steps=(*record.steps, step))
        try:
            await self._ledger.change(lambda now: (kept(now, after), [draft_of(after, ITSELF, why)]), lambda _: None)
        except BgproxyError as error:
            log.warning("deployment %d: %s", record.id, error)
            self._unwritten.add(after, draft_of(after, ITSELF, why))

    async def _save(self, run: Run) -> None:
        record = run.record
        change = self._ledger.change(lambda now: (kept(now, record), ()), lambda _: None)
        await self._writes.whole(change, f"deployment {record.id} is to remember")

    def _over(self, driver: Driver) -> None:
        service = driver.run.service
        if self._drivers.get(service.name) is driver:
            del self._drivers[service.name]
            service.deployment = service.deploying = None
