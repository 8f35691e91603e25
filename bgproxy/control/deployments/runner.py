"""Runs deployments: one at a time for a service, stage by stage through the table of `bgproxy.model.deployment`.

Every transition is on the disk, with its event, before the stage that it leads to begins. So a restart knows where it was:

    queued, verifying, comparing, warming, awaiting_approval    the stage begins anew: nothing that it does touches users
    provisioning                           begins anew where it only sets the pool; a command may be half done: failed
    switching                              goes on to the bake if the pool is live; begins anew if nothing has moved;
                                           traffic that was split is whole again (by the start), and it is rolled back
    baking, draining, retiring             the stage begins anew; the bake with the figures from before the switch
    rolling_back                           is completed

Not with a pool that the file has given other upstreams meanwhile: nothing has proven those. Nor does a reload leave a deployment
running that it does this to.

What an operator does by hand goes first: a rollback, or a forced switch, ends a deployment that was under way. An end is told by
where the traffic is when it is written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from bgproxy.config.schema import Deployment as Settings
from bgproxy.config.units import format_duration
from bgproxy.control.actor import ITSELF, Actor
from bgproxy.control.archive import Archive
from bgproxy.control.deployments import stages
from bgproxy.control.deployments.first_checks import first_checks
from bgproxy.control.deployments.keeping import kept
from bgproxy.control.deployments.stage import Clock, Halted, Hands, NotApproved, Run, WallClock
from bgproxy.control.deployments.telling import because, described, draft_of, said, success, went
from bgproxy.control.deployments.unwritten import Unwritten
from bgproxy.control.events import Draft
from bgproxy.control.ledger import Ledger
from bgproxy.control.registry import Pool, Registry, Service
from bgproxy.control.state import State
from bgproxy.errors import BgproxyError, Busy, Invalid, NotFound, Refused
from bgproxy.model.deployment import (
    AFTER_FLIP,
    BEFORE_FLIP,
    DEPLOYMENT_TABLE,
    STAGES,
    DeploymentEvent,
    DeploymentRecord,
    DeploymentState,
    Result,
    Step,
)
from bgproxy.model.pool import POOLS

log = logging.getLogger("bgproxy.controller")

STRATEGIES: Final = ("all-at-once", "canary", "linear")

_S, _E = DeploymentState, DeploymentEvent
_ROW: Final = (_S.QUEUED, *(state for state, _ in STAGES))
#: What was proven must still be there in these, and users not yet.
_PROVEN: Final = frozenset({*BEFORE_FLIP, _S.SWITCHING}) - {_S.QUEUED, _S.PROVISIONING}


class _Interrupted(Exception):  # noqa: N818 - says what it was
    """Somebody has ended the deployment from outside."""

    def __init__(self, actor: Actor, why: str, *, moved: bool = False, gone: bool = False) -> None:
        super().__init__(why)
        self.actor = actor
        self.moved = moved  # the traffic, and not by the deployment
        self.gone = gone  # there is no traffic, and no service, any more


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
        self._table = table
        self._archive = archive or Archive("")
        self._runs: dict[str, Run] = {}  # by service
        self._tasks: set[asyncio.Task[None]] = set()
        self._stages: dict[str, asyncio.Task[None]] = {}
        self._interrupts: dict[str, _Interrupted] = {}
        self._unwritten = Unwritten(ledger, self._clock)

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
        self._runs[service.name] = run
        self._mark(run)
        name = f"deployment {record.id} of {service.name}"
        task = asyncio.get_running_loop().create_task(self._drive(run, resumed=resumed), name=name)
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
        run = self._runs.get(service.name)
        if run is not None:
            raise Busy(
                f"{service.name}: deployment {run.record.id} is {said(run.record.state)}; "
                f"one at a time (bgproxy abort {run.record.id} ends it)."
            )
        if service.coming is not None or target is service.pools[service.live]:
            raise Busy(f"{service.name} is switched just now, so {target.name} is not idle; look again.")

    async def approve(self, number: int, *, actor: Actor, reason: str = "") -> dict[str, Any]:
        """Say yes to one that waits for it; raises `NotFound`, `Refused`."""
        run = self._running(number)
        interrupt = self._interrupts.get(run.service.name)
        if interrupt is not None:
            raise Refused(f"Deployment {number} is about to end: {interrupt}.")
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
        run = self._running(number)
        if run.record.state is _S.ROLLING_BACK:
            raise Refused(f"Deployment {number} is being rolled back already.")
        self._interrupt(run, _Interrupted(actor, f"aborted by {actor.name}{because(reason)}"))
        return self.describe(run.record)

    def _running(self, number: int) -> Run:
        for run in self._runs.values():
            if run.record.id == number:
                return run
        record = self._known().get(number) or self._archive.get(number)
        if record is not None:
            raise Refused(f"Deployment {number} has ended: it {went(record.state)}.")
        raise NotFound(f"There is no deployment {number}.")

    def get(self, number: int) -> dict[str, Any]:
        """One deployment as the API answers it; raises `NotFound`."""
        for run in self._runs.values():
            if run.record.id == number:
                return self.describe(run.record)
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
        run = self._runs.get(service)
        return None if run is None else self.describe(run.record)

    def last_of(self, service: str) -> dict[str, Any] | None:
        """The latest deployment of a service that has ended."""
        known = self._ledger.state.deployments.values()
        ended = [record for record in known if record.service == service and not record.running]
        return described(max(ended, key=lambda record: record.id), None) if ended else None

    def describe(self, record: DeploymentRecord) -> dict[str, Any]:
        """As the API answers it."""
        run = self._runs.get(record.service)
        return described(record, run if run is not None and run.record.id == record.id else None)

    # --- what comes from elsewhere ----------------------------------------------------------------------------------

    def moved(self, service: Service, actor: Actor, reason: str) -> None:
        """Who is live was changed; if not by the deployment itself, it is over."""
        run = self._runs.get(service.name)
        if run is None or actor == run.actor:
            return
        # In a canary taken back the old pool was live all the time.
        back = run.record.state is _S.SWITCHING and POOLS[service.live] != run.record.target
        what = "given all traffic" if back else "made live"
        why = f"{POOLS[service.live]} was {what} by {actor.name}{because(reason)}"
        self._interrupt(run, _Interrupted(actor, why, moved=True))

    def changed(self, service: Service, actor: Actor) -> None:
        """A reload has given other upstreams to the pool that is deployed to, and that is not live yet: what was proven is gone."""
        run = self._runs.get(service.name)
        if run is not None:
            why = f"{run.record.target} got other upstreams by a reload ({actor.name}), which nothing has proven; deploy again"
            self._interrupt(run, _Interrupted(actor, why))

    def forget(self, service: Service) -> None:
        """The service has left the configuration."""
        run = self._runs.get(service.name)
        if run is not None:
            self._interrupt(run, _Interrupted(ITSELF, "the service has left the configuration", gone=True))

    def _heed(self, run: Run) -> None:
        """Raise what has come from elsewhere, if something has."""
        interrupt = self._interrupts.pop(run.service.name, None)
        if interrupt is not None:
            raise interrupt

    def _interrupt(self, run: Run, interrupt: _Interrupted) -> None:
        name = run.service.name
        self._interrupts.setdefault(name, interrupt)
        stage = self._stages.get(name)
        if stage is not None:
            stage.cancel()

    # --- running ----------------------------------------------------------------------------------------------------

    async def _drive(self, run: Run, *, resumed: bool) -> None:
        try:
            if resumed:
                await self._end_left(run)
                await first_checks(run)
                self._heed(run)
                await self._go_on(run)
            await self._stages_of(run)
            await self._step(run, _E.SUCCEED, ITSELF, success(run), heeding=True)
        except _Interrupted as interrupt:
            await self._end(run, interrupt.actor, str(interrupt), interrupt)
        except Halted as halted:
            await self._end(run, ITSELF, str(halted), halted)
        except BgproxyError as error:
            await self._end(run, ITSELF, str(error), error)
        except Exception as error:
            log.exception("deployment %d", run.record.id)
            await self._end(run, ITSELF, f"a fault of bgproxy: {error!r}", error)
        finally:
            self._unmark(run)

    async def _end_left(self, run: Run) -> None:
        """A controller that was killed may have left a command running: it must not run beside its own repetition."""
        for ended, found in await self._hands.guard.end_left(run.record.id):
            run.keep(Result(stage=run.record.state.value, name="left running", ok=ended, found=found))

    async def _go_on(self, run: Run) -> None:
        """What a restart has found half done; see the top of this file."""
        state = run.record.state
        live = POOLS[run.service.live] == run.record.target
        log.info("deployment %d goes on after a restart", run.record.id, extra={"fields": {"state": state.value}})
        if state is _S.PROVISIONING and run.record.memory.get("provision") == "running":
            raise Halted("bgproxy was restarted while the provisioning ran; see what became of it, then deploy again")
        if state is _S.ROLLING_BACK:
            raise Halted(run.record.steps[-1].why)
        urls = list(run.idle.urls)
        if state in _PROVEN and not live and urls != run.record.memory.get("pool", urls):
            raise _Interrupted(
                ITSELF, f"{run.record.target} got other upstreams by the file, which nothing has proven; deploy again"
            )
        if state in BEFORE_FLIP and live:
            raise _Interrupted(ITSELF, f"{run.record.target} was made live by other means", moved=True)
        if state is _S.SWITCHING and not live and run.settings.strategy.type != "all-at-once":
            raise Halted("bgproxy was restarted while the traffic was split")
        if state in AFTER_FLIP and state is not _S.SWITCHING and not live:
            raise _Interrupted(ITSELF, f"{run.old.name} is live again", moved=True)

    async def _stages_of(self, run: Run) -> None:
        """The present stage, if it is one, and all that follow and are configured."""
        at = _ROW.index(run.record.state)
        entered = at > 0  # a restart: the stage is entered already
        for state, event in STAGES[max(at - 1, 0) :]:
            if state is _S.SUCCEEDED:
                return
            entry = self._table[state]
            if not entered:
                if not entry.configured(run):
                    continue
                (by, why), run.approval = run.approval or (ITSELF, ""), None
                await self._step(run, event, by, why, heeding=True)
            entered = False
            if state is _S.SWITCHING and POOLS[run.service.live] == run.record.target:
                continue  # a restart found it switched
            await self._stage(run, entry)

    async def _stage(self, run: Run, entry: stages.Entry) -> None:
        name = run.service.name
        self._heed(run)
        run.show("")
        stage = self._stages[name] = asyncio.ensure_future(entry.stage(run))
        limit = entry.limit(run)
        try:
            async with asyncio.timeout(limit) as timer:
                await stage
        except TimeoutError:
            if not timer.expired():
                raise
            raise Halted(
                f"it was {said(run.record.state)} for longer than {format_duration(round(limit, 3))}"
            ) from None
        except asyncio.CancelledError:
            self._heed(run)
            raise
        finally:
            del self._stages[name]
            if not stage.done():
                stage.cancel()
                await asyncio.wait({stage})
        self._heed(run)

    # --- its end ----------------------------------------------------------------------------------------------------

    async def _end(self, run: Run, actor: Actor, why: str, cause: Exception) -> None:
        """It cannot go on, or is not to: by where it stands, and by why."""
        details = tuple(cause.details) if isinstance(cause, Halted | Refused) else ()
        said_already = any(result.details == details for result in run.record.results)
        if details and not said_already:
            run.keep(Result(stage=run.record.state.value, name="cause", ok=False, found=why, details=details))
        state = run.record.state
        interrupt = cause if isinstance(cause, _Interrupted) else None
        moved = interrupt is not None and interrupt.moved
        live = POOLS[run.service.live] == run.record.target
        if state in (_S.DRAINING, _S.RETIRING) and interrupt is not None and (live or not moved):
            await self._succeed(run, actor, f"it is live; what was left was called off: {why}")
        elif state in BEFORE_FLIP or (state is _S.SWITCHING and moved and live):
            aborted = interrupt is not None or isinstance(cause, NotApproved)
            await self._step(run, _E.ABORT if aborted else _E.FAIL, actor, why)
        elif state in (_S.DRAINING, _S.RETIRING) and interrupt is None:
            # The new version has proven itself: that an old pool could not be retired is no reason to go back to it.
            run.keep(Result(stage=state.value, name=said(state), ok=False, found=why))
            await self._succeed(run, ITSELF, f"{success(run)}, but {why}")
        elif interrupt is not None and interrupt.gone:
            await self._step(run, _E.FAIL, actor, why)
        else:
            await self._back(run, actor, why, done=moved and not live)

    async def _succeed(self, run: Run, actor: Actor, why: str) -> None:
        """Unless somebody goes back before that is on the disk."""
        try:
            await self._step(run, _E.SUCCEED, actor, why, heeding=True)
        except _Interrupted as interrupt:
            await self._end(run, interrupt.actor, str(interrupt), interrupt)

    async def _back(self, run: Run, actor: Actor, why: str, *, done: bool) -> None:
        if run.record.state is not _S.ROLLING_BACK:
            await self._step(run, _E.ROLL_BACK, actor, why)
        if not done:
            try:
                await self._table[_S.ROLLING_BACK].stage(run)
            except Exception as error:
                if not isinstance(error, Halted | BgproxyError):
                    log.exception("deployment %d", run.record.id)
                details = tuple(error.details) if isinstance(error, Halted | Refused) else ()
                run.keep(
                    Result(stage=_S.ROLLING_BACK.value, name="rollback", ok=False, found=str(error), details=details)
                )
                stays = f"{POOLS[run.service.live]} stays live"
                await self._step(run, _E.FAIL, ITSELF, f"{why}; and it could not be rolled back: {error} ({stays})")
                return
        try:
            await self._step(run, _E.ROLLED_BACK, actor, why, heeding=True)
        except _Interrupted as interrupt:
            if POOLS[run.service.live] == run.record.target:  # somebody has gone forward meanwhile
                await self._step(run, _E.FAIL, interrupt.actor, f"{why}; then {interrupt}")
            else:
                await self._step(run, _E.ROLLED_BACK, actor, why)

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

    # --- transitions ------------------------------------------------------------------------------------------------

    async def _step(self, run: Run, event: DeploymentEvent, actor: Actor, why: str, *, heeding: bool = False) -> None:
        """Take an event: on the disk, with its event, then in memory. `heeding`: not if somebody has ended the deployment meanwhile.

        Raises:
            _Interrupted: somebody has, and it was to be heeded.
            StateError, Unavailable: the disk did not take it. Of an end, and of the way back, that is only logged: they are
                gone all the same; an end is written as soon as the disk takes it.
        """
        before = run.record.state
        state = DEPLOYMENT_TABLE.next(before, event)
        step = Step(state=state.value, at=self._clock.time(), by=actor.name, why=why)
        proven = {"pool": list(run.idle.urls)} if state in _PROVEN else {}
        memory = {**run.record.memory, **proven}
        after = replace(run.record, state=state, steps=(*run.record.steps, step), memory=memory)

        def put(_: State) -> None:
            run.record = after
            # At once: whoever sees that it has ended may begin the next one.
            if after.running:
                self._mark(run)
            else:
                self._unmark(run)

        def make(now: State) -> tuple[State, list[Draft]]:
            if heeding:
                self._heed(run)
            return kept(now, after), [draft_of(after, actor, why)]

        change = self._ledger.change(make, put)
        try:
            await _whole(change)
        except BgproxyError as error:
            if after.running and event is not _E.ROLL_BACK:
                raise
            log.error("deployment %d: %s", after.id, error)  # noqa: TRY400 - the text says it all
            put(self._ledger.state)
            if not after.running:
                self._unwritten.add(after, draft_of(after, actor, why))
        fields = {"service": after.service, "state": state.value, "by": actor.name, **({"why": why} if why else {})}
        log.info("deployment %d", after.id, extra={"fields": fields})
        self._heard(run, before)

    async def _save(self, run: Run) -> None:
        record = run.record
        await _whole(self._ledger.change(lambda now: (kept(now, record), ()), lambda _: None))

    def _mark(self, run: Run) -> None:
        """Tell the rest of the controller what may not be changed by hand meanwhile."""
        run.service.deployment = run.record.id
        run.service.deploying = run.target

    def _unmark(self, run: Run) -> None:
        name = run.service.name
        if self._runs.get(name) is run:
            del self._runs[name]
            self._interrupts.pop(name, None)
            run.service.deployment = run.service.deploying = None


async def _whole(work: Awaitable[Any]) -> None:
    """Await a write of the state to its end, even if this task is cancelled meanwhile: half a write is none."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
