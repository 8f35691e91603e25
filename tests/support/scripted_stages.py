"""A runner of deployments whose stages do what a test says, in the control room."""

from __future__ import annotations

import asyncio

from support.control_room import ALICE, ControlRoom
from support.waiting import eventually_async

from bgproxy.control.deployments import stages
from bgproxy.control.deployments.driver import Driver
from bgproxy.control.deployments.runner import Deployments
from bgproxy.control.deployments.stage import Run
from bgproxy.model.deployment import STAGES
from bgproxy.model.deployment import DeploymentState as State


class Script:
    """Stages that do what the test says: pass, wait, or fail; the two that move traffic do that first."""

    def __init__(self) -> None:
        self.skipped: set[State] = set()
        self.waits: set[State] = set()
        self.fails: dict[State, Exception] = {}
        self.limits: dict[State, float] = {}
        self.begun: list[State] = []
        self.cancelled: list[State] = []

    def table(self) -> dict[State, stages.Entry]:
        states = [*(state for state, _ in STAGES if state is not State.SUCCEEDED), State.ROLLING_BACK]
        return {state: self._entry(state) for state in states}

    def _entry(self, state: State) -> stages.Entry:
        async def stage(run: Run) -> None:
            self.begun.append(state)
            switcher = run.hands.switcher
            if state is State.SWITCHING and state not in self.waits:
                await switcher.switch({run.service.name: run.record.target}, actor=run.actor)
            if state is State.ROLLING_BACK and run.service.live == run.target:
                await switcher.rollback(run.service.name, actor=run.actor, reason=run.record.steps[-1].why)
            if state in self.fails:
                raise self.fails[state]
            try:
                if state in self.waits:
                    run.waits = True
                    await run.approved.wait()
            except asyncio.CancelledError:
                self.cancelled.append(state)
                raise
            finally:
                run.waits = False

        return stages.Entry(stage, lambda _: state not in self.skipped, lambda _: self.limits.get(state, 60.0))


class Scene:
    """A control room with a runner of its own, whose stages follow a script."""

    def __init__(self, room: ControlRoom) -> None:
        self.room = room
        self.script = Script()
        self.heard: list[tuple[str, str]] = []
        self.table: dict[State, stages.Entry] = {}
        self.runner: Deployments = None  # type: ignore[assignment] # until `open`

    @property
    def driver(self) -> Driver:
        """That of the deployment under way."""
        return self.runner._drivers["shop"]

    @property
    def run(self) -> Run:
        """The deployment under way, as its stages see it."""
        return self.driver.run

    async def open(self) -> None:
        parts = self.room.controller._parts
        self.table = self.script.table()
        self.runner = Deployments(
            registry=self.room.controller._registry,
            ledger=parts.ledger,
            hands=parts.deployments._hands,
            heard=lambda run, before: self.heard.append((before.value, run.record.state.value)),
            table=self.table,
        )
        parts.switcher.moved = self.runner.moved
        parts.reloader.removed = self.runner.forget

    async def restart(self, **changes) -> None:
        """The controller ends and another one comes, with the same stages."""
        await self.runner.stop()
        self.heard.clear()
        self.script.begun.clear()
        # The room's own runner would go on with real stages: the new controller is made to find nothing running.
        resume, Deployments.resume = Deployments.resume, _nothing
        try:
            await self.room.restart()
        finally:
            Deployments.resume = resume
        await self.open()
        for name, value in changes.items():
            setattr(self.script, name, value)
        await self.runner.resume()

    async def deploy(self, **how):
        return (await self.runner.start("shop", actor=ALICE, **how)).id

    async def until(self, number: int, *states: State) -> dict:
        wanted = {state.value for state in states}
        await eventually_async(lambda: self.runner.get(number)["state"] in wanted, what=f"{wanted}")
        return self.runner.get(number)

    async def at(self, number: int, state: State) -> None:
        """Until the stage of that state has begun."""
        await self.until(number, state)
        await eventually_async(lambda: self.script.begun[-1:] == [state], what=f"in {state}")

    def way(self, number: int) -> list[str]:
        return [step["state"] for step in self.runner.get(number)["steps"]]


async def _nothing(_self) -> None:
    return
