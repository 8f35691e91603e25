"""One deployment on its way: stage by stage through the table of `bgproxy.model.deployment`, to its end.

Every transition is on the disk, with its event, before the stage that it leads to begins. So a restart knows where it was:

    queued, verifying, comparing, warming, awaiting_approval    the stage begins anew: nothing that it does touches users
    provisioning                           begins anew where it only sets the pool; a command may be half done: failed
    switching                              goes on to the bake if the pool is live; begins anew if nothing has moved;
                                           traffic that was split is whole again (by the start), and it is rolled back
    baking, draining, retiring             the stage begins anew; the bake with the figures from before the switch
    rolling_back                           is completed

Not with a pool that the file has given other upstreams meanwhile: nothing has proven those. Nor does a reload leave a deployment
running that it does this to.

An end is told by where the traffic is when it is written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from bgproxy.config.units import format_duration
from bgproxy.control.actor import ITSELF, Actor
from bgproxy.control.deployments import stages
from bgproxy.control.deployments.first_checks import first_checks
from bgproxy.control.deployments.keeping import kept
from bgproxy.control.deployments.stage import Halted, NotApproved, Run
from bgproxy.control.deployments.telling import draft_of, said, success
from bgproxy.control.deployments.unwritten import Unwritten
from bgproxy.control.events import Draft
from bgproxy.control.ledger import Ledger
from bgproxy.control.state import State
from bgproxy.control.tasks import Tasks
from bgproxy.errors import BgproxyError, Refused
from bgproxy.model.deployment import (
    AFTER_FLIP,
    BEFORE_FLIP,
    DEPLOYMENT_TABLE,
    STAGES,
    DeploymentEvent,
    DeploymentState,
    Result,
    Step,
)
from bgproxy.model.pool import POOLS

log = logging.getLogger("bgproxy.controller")

_S, _E = DeploymentState, DeploymentEvent
_ROW: Final = (_S.QUEUED, *(state for state, _ in STAGES))
#: What was proven must still be there in these, and users not yet.
_PROVEN: Final = frozenset({*BEFORE_FLIP, _S.SWITCHING}) - {_S.QUEUED, _S.PROVISIONING}


class Interrupted(Exception):  # noqa: N818 - says what it was
    """Somebody has ended the deployment from outside."""

    def __init__(self, actor: Actor, why: str, *, moved: bool = False, gone: bool = False) -> None:
        super().__init__(why)
        self.actor = actor
        self.moved = moved  # the traffic, and not by the deployment
        self.gone = gone  # there is no traffic, and no service, any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Road:
    """What all deployments of a controller have in common on their way."""

    ledger: Ledger
    writes: Tasks  # to the disk, that are under way
    unwritten: Unwritten
    table: Mapping[DeploymentState, stages.Entry]
    heard: Callable[[Run, DeploymentState], None]  # told of each transition, and of the state before it
    over: Callable[[Driver], None]  # at once with its end, however that comes: the next one may begin


class Driver:
    """Steps one deployment through its stages; `drive` returns when it is over, and when it is cancelled, to be gone on with."""

    def __init__(self, run: Run, road: Road) -> None:
        self.run = run
        self.interrupted: Interrupted | None = None  # and nobody has heeded it yet
        self._road = road
        self._task: asyncio.Task[None] | None = None  # of the stage

    def interrupt(self, interrupt: Interrupted) -> None:
        """End it from outside; who comes first has said why."""
        if self.interrupted is None:
            self.interrupted = interrupt
        if self._task is not None:
            self._task.cancel()

    async def drive(self, *, resumed: bool) -> None:
        """All the way; `resumed`: a former controller has begun it."""
        run = self.run
        try:
            if resumed:
                await self._end_left()
                await first_checks(run)
                self._heed()
                await self._go_on()
            await self._stages()
            await self._step(_E.SUCCEED, ITSELF, success(run), heeding=True)
        except Interrupted as interrupt:
            await self._end(interrupt.actor, str(interrupt), interrupt)
        except Halted as halted:
            await self._end(ITSELF, str(halted), halted)
        except BgproxyError as error:
            await self._end(ITSELF, str(error), error)
        except Exception as error:
            log.exception("deployment %d", run.record.id)
            await self._end(ITSELF, f"a fault of bgproxy: {error!r}", error)
        finally:
            self._road.over(self)

    async def _end_left(self) -> None:
        """A controller that was killed may have left a command running: it must not run beside its own repetition."""
        for ended, found in await self.run.hands.guard.end_left(self.run.record.id):
            self.run.keep(Result(stage=self.run.record.state.value, name="left running", ok=ended, found=found))

    async def _go_on(self) -> None:
        """What a restart has found half done; see the top of this file."""
        run = self.run
        state = run.record.state
        live = POOLS[run.service.live] == run.record.target
        log.info("deployment %d goes on after a restart", run.record.id, extra={"fields": {"state": state.value}})
        if state is _S.PROVISIONING and run.record.memory.get("provision") == "running":
            raise Halted("bgproxy was restarted while the provisioning ran; see what became of it, then deploy again")
        if state is _S.ROLLING_BACK:
            raise Halted(run.record.steps[-1].why)
        urls = list(run.idle.urls)
        if state in _PROVEN and not live and urls != run.record.memory.get("pool", urls):
            raise Interrupted(
                ITSELF, f"{run.record.target} got other upstreams by the file, which nothing has proven; deploy again"
            )
        if state in BEFORE_FLIP and live:
            raise Interrupted(ITSELF, f"{run.record.target} was made live by other means", moved=True)
        if state is _S.SWITCHING and not live and run.settings.strategy.type != "all-at-once":
            raise Halted("bgproxy was restarted while the traffic was split")
        if state in AFTER_FLIP and state is not _S.SWITCHING and not live:
            raise Interrupted(ITSELF, f"{run.old.name} is live again", moved=True)

    async def _stages(self) -> None:
        """The present stage, if it is one, and all that follow and are configured."""
        run = self.run
        at = _ROW.index(run.record.state)
        entered = at > 0  # a restart: the stage is entered already
        for state, event in STAGES[max(at - 1, 0) :]:
            if state is _S.SUCCEEDED:
                return
            entry = self._road.table[state]
            if not entered:
                if not entry.configured(run):
                    continue
                (by, why), run.approval = run.approval or (ITSELF, ""), None
                await self._step(event, by, why, heeding=True)
            entered = False
            if state is _S.SWITCHING and POOLS[run.service.live] == run.record.target:
                continue  # a restart found it switched
            await self._stage(entry)

    async def _stage(self, entry: stages.Entry) -> None:
        run = self.run
        self._heed()
        run.show("")
        stage = self._task = asyncio.ensure_future(entry.stage(run))
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
            self._heed()
            raise
        finally:
            self._task = None
            if not stage.done():
                stage.cancel()
                await asyncio.wait({stage})
        self._heed()

    def _heed(self) -> None:
        """Raise what has come from elsewhere, if something has."""
        interrupt, self.interrupted = self.interrupted, None
        if interrupt is not None:
            raise interrupt

    # --- its end ----------------------------------------------------------------------------------------------------

    async def _end(self, actor: Actor, why: str, cause: Exception) -> None:
        """It cannot go on, or is not to: by where it stands, and by why."""
        run = self.run
        details = tuple(cause.details) if isinstance(cause, Halted | Refused) else ()
        said_already = any(result.details == details for result in run.record.results)
        if details and not said_already:
            run.keep(Result(stage=run.record.state.value, name="cause", ok=False, found=why, details=details))
        state = run.record.state
        interrupt = cause if isinstance(cause, Interrupted) else None
        moved = interrupt is not None and interrupt.moved
        live = POOLS[run.service.live] == run.record.target
        if state in (_S.DRAINING, _S.RETIRING) and interrupt is not None and (live or not moved):
            await self._succeed(actor, f"it is live; what was left was called off: {why}")
        elif state in BEFORE_FLIP or (state is _S.SWITCHING and moved and live):
            aborted = interrupt is not None or isinstance(cause, NotApproved)
            await self._step(_E.ABORT if aborted else _E.FAIL, actor, why)
        elif state in (_S.DRAINING, _S.RETIRING) and interrupt is None:
            # The new version has proven itself: that an old pool could not be retired is no reason to go back to it.
            run.keep(Result(stage=state.value, name=said(state), ok=False, found=why))
            await self._succeed(ITSELF, f"{success(run)}, but {why}")
        elif interrupt is not None and interrupt.gone:
            await self._step(_E.FAIL, actor, why)
        else:
            await self._back(actor, why, done=moved and not live)

    async def _succeed(self, actor: Actor, why: str) -> None:
        """Unless somebody goes back before that is on the disk."""
        try:
            await self._step(_E.SUCCEED, actor, why, heeding=True)
        except Interrupted as interrupt:
            await self._end(interrupt.actor, str(interrupt), interrupt)

    async def _back(self, actor: Actor, why: str, *, done: bool) -> None:
        run = self.run
        if run.record.state is not _S.ROLLING_BACK:
            await self._step(_E.ROLL_BACK, actor, why)
        if not done:
            try:
                await self._road.table[_S.ROLLING_BACK].stage(run)
            except Exception as error:
                if not isinstance(error, Halted | BgproxyError):
                    log.exception("deployment %d", run.record.id)
                details = tuple(error.details) if isinstance(error, Halted | Refused) else ()
                run.keep(
                    Result(stage=_S.ROLLING_BACK.value, name="rollback", ok=False, found=str(error), details=details)
                )
                stays = f"{POOLS[run.service.live]} stays live"
                await self._step(_E.FAIL, ITSELF, f"{why}; and it could not be rolled back: {error} ({stays})")
                return
        try:
            await self._step(_E.ROLLED_BACK, actor, why, heeding=True)
        except Interrupted as interrupt:
            if POOLS[run.service.live] == run.record.target:  # somebody has gone forward meanwhile
                await self._step(_E.FAIL, interrupt.actor, f"{why}; then {interrupt}")
            else:
                await self._step(_E.ROLLED_BACK, actor, why)

    # --- transitions ------------------------------------------------------------------------------------------------

    async def _step(self, event: DeploymentEvent, actor: Actor, why: str, *, heeding: bool = False) -> None:
        """Take an event: on the disk, with its event, then in memory. `heeding`: not if somebody has ended the deployment meanwhile.

        Raises:
            Interrupted: somebody has, and it was to be heeded.
            StateError, Unavailable: the disk did not take it. Of an end, and of the way back, that is only logged: they are
                gone all the same; an end is written as soon as the disk takes it.
        """
        run, ledger = self.run, self._road.ledger
        before = run.record.state
        state = DEPLOYMENT_TABLE.next(before, event)
        step = Step(state=state.value, at=run.clock.time(), by=actor.name, why=why)
        proven = {"pool": list(run.idle.urls)} if state in _PROVEN else {}
        memory = {**run.record.memory, **proven}
        after = replace(run.record, state=state, steps=(*run.record.steps, step), memory=memory)

        def put(_: State) -> None:
            run.record = after
            if not after.running:
                self._road.over(self)

        def make(now: State) -> tuple[State, list[Draft]]:
            if heeding:
                self._heed()
            return kept(now, after), [draft_of(after, actor, why)]

        try:
            await self._road.writes.whole(ledger.change(make, put), f"deployment {after.id} is {state.value}")
        except BgproxyError as error:
            if after.running and event is not _E.ROLL_BACK:
                raise
            log.error("deployment %d: %s", after.id, error)  # noqa: TRY400 - the text says it all
            put(ledger.state)
            if not after.running:
                self._road.unwritten.add(after, draft_of(after, actor, why))
        fields = {"service": after.service, "state": state.value, "by": actor.name, **({"why": why} if why else {})}
        log.info("deployment %d", after.id, extra={"fields": fields})
        self._road.heard(run, before)
