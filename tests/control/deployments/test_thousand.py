"""A thousand deployments in a row, through a real controller and its real stages, by a clock that only they move: nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support.attackers import resident
from support.control_room import ALICE, FAST, ControlRoom
from support.traffic import BLUE, GREEN, Traffic, TrafficClock
from support.waiting import eventually_async

from bgproxy.config.schema import (
    Approve,
    Bake,
    BakeLatency,
    Check,
    Compare,
    Config,
    Deployment,
    Expect,
    Hook,
    Notify,
    Retire,
    Strategy,
    Verify,
    Warm,
)
from bgproxy.control.deployments.runner import Deployments
from bgproxy.control.deployments.stage import Run
from bgproxy.model.deployment import DeploymentState as State

#: Deployments, and those after which all that is bounded is full.
ALL = 1000
FULL = 200

MiB = 1 << 20

_BAKE = Bake(for_=2.0, min_requests=10, p99=BakeLatency(worse_than_before=None))
_ASKS = Approve(mode="manual", timeout=5.0)
_CART = Check(name="cart", request="GET /cart")

#: By service: what its deployments are, and how each of them ends.
KINDS = {
    "plain": (
        Deployment(
            verify=Verify(checks=(_CART,)),
            compare=Compare(for_=1.0, min_requests=0),
            warm=Warm(requests=4, paths=("/",)),
            bake=_BAKE,
        ),
        "succeeded",
    ),
    "commands": (
        Deployment(
            provision=Hook(run="echo up"),
            verify=Verify(checks=(Check(name="contract", run="true"),)),
            retire=Retire(after=5.0, run="echo down"),
            notify=(Notify(run="true", on=("succeeded",)),),
        ),
        "succeeded",
    ),
    "canary": (Deployment(strategy=Strategy(type="canary", for_=1.0), bake=_BAKE), "succeeded"),
    "approved": (Deployment(approve=_ASKS, strategy=Strategy(type="linear", step=30.0, every=0.5)), "succeeded"),
    "wrong": (
        Deployment(verify=Verify(checks=(_CART, Check(name="status", request="GET /", expect=Expect(status="201"))))),
        "failed",
    ),
    "missing": (Deployment(provision=Hook(run="exit 3")), "failed"),
    "unapproved": (Deployment(approve=_ASKS), "aborted"),
    "aborted": (Deployment(approve=_ASKS), "aborted"),
    "worse": (Deployment(bake=_BAKE), "rolled_back"),
    "undone": (Deployment(strategy=Strategy(type="canary", for_=60.0), bake=_BAKE), "rolled_back"),
}


@dataclass(frozen=True)
class Held:
    """What the process holds."""

    tasks: int
    descriptors: int
    threads: int
    children: int
    objects: int
    resident: int  # bytes
    state_file: int  # bytes


class Room(ControlRoom):
    """One whose services differ in their deployments."""

    def made_config(self, **changes) -> Config:
        config = super().made_config(**changes)
        services = {name: replace(service, deployment=KINDS[name][0]) for name, service in config.services.items()}
        return replace(config, services=services)


class Thousand:
    """The deployments of all kinds, a round of them at a time."""

    def __init__(self, room: ControlRoom) -> None:
        self.room = room
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self._slots = {name: room.slot(name) for name in KINDS}
        self._traffics = {name: Traffic(room.board, slot) for name, slot in self._slots.items()}
        self._ended: asyncio.Queue[Run] = asyncio.Queue()
        self._tasks: set[asyncio.Task[object]] = set()
        parts = room.controller._parts
        assert parts is not None
        self.runner = Deployments(
            registry=room.controller._registry,
            ledger=parts.ledger,
            hands=parts.deployments._hands,
            clock=TrafficClock(self._requests),
            heard=self._heard,
        )
        parts.switcher.moved = self.runner.moved

    def _requests(self, _now: float, seconds: float) -> None:
        """Both pools answer, and all is well, but for one."""
        count = max(round(seconds * 50), 1)
        for name, driver in self.runner._drivers.items():
            run = driver.run
            if run.record.state in (State.SWITCHING, State.BAKING):
                traffic = self._traffics[name]
                traffic.answered(BLUE, count)
                traffic.answered(GREEN, count, code=500 if name == "worse" else 200)

    def _heard(self, run: Run, before: State) -> None:
        self.room.controller._deployment_went_on(run, before)
        name, state = run.service.name, run.record.state
        if not run.record.running:
            self._ended.put_nowait(run)
        elif (state is State.AWAITING_APPROVAL and name != "unapproved") or (
            state is State.SWITCHING and name == "undone"
        ):
            self._do(self._decide(run))

    def _do(self, work) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _decide(self, run: Run) -> None:
        number = run.record.id
        if run.service.name == "approved":
            while not run.waits:
                await asyncio.sleep(0)
            await self.runner.approve(number, actor=ALICE)
        else:
            while run.service.name == "undone" and not run.hands.switcher.share(run.service):
                await asyncio.sleep(0)
            await self.runner.abort(number, actor=ALICE)

    async def round(self) -> None:
        """One of each kind."""
        for name in KINDS:
            await self.runner.start(name, actor=ALICE, reason="one of a thousand")
        async with asyncio.timeout(30):
            for _ in KINDS:
                run = await self._ended.get()
                self.outcomes[run.service.name, run.record.state.value] += 1
        for worker in self.room.workers:
            worker.heard.clear()

    async def held(self) -> Held:
        """Once everything that ends by itself has."""
        async with asyncio.timeout(10):
            while self._tasks or self.runner._tasks or self.room.controller._notifier._tasks or self._drains():
                await asyncio.sleep(0.01)
        return _held(self.room.state_dir)

    def _drains(self) -> bool:
        return any(self.room.service(name)["pools"][pool]["drain"] for name in KINDS for pool in ("blue", "green"))


def _held(state_dir: Path) -> Held:
    gc.collect()
    me = os.getpid()
    return Held(
        tasks=len(asyncio.all_tasks()),
        descriptors=len(list(Path("/proc/self/fd").iterdir())),
        threads=threading.active_count(),
        children=len(Path(f"/proc/{me}/task/{me}/children").read_text().split()),
        objects=len(gc.get_objects()),
        resident=resident(me),
        state_file=(state_dir / "state.json").stat().st_size,
    )


@pytest.fixture
def directory() -> Iterator[Path]:
    """In memory where there is such a place: a thousand deployments are some ten thousand writes, each of them synced."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as path:
        yield Path(path)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_thousand_deployments_leave_nothing_behind(directory: Path) -> None:
    """Neither tasks, descriptors, threads nor processes; memory and the state file grow no more once what is kept is full."""
    health = replace(FAST, interval=0.5, fall=3)
    async with Room(directory, names=tuple(KINDS), health=health) as room:
        thousand = Thousand(room)
        begun = time.monotonic()
        for number in range(ALL // len(KINDS)):
            if number * len(KINDS) == FULL:
                full = await thousand.held()
            await thousand.round()
        after = await thousand.held()
        print(f"{ALL} in {time.monotonic() - begun:.1f} s\nat {FULL}: {full}\nat {ALL}: {after}")
        assert thousand.outcomes == {(name, ends): ALL // len(KINDS) for name, (_, ends) in KINDS.items()}
        assert after.tasks <= full.tasks
        if after.descriptors > full.descriptors:  # of a health check that was under way, or for good?
            await eventually_async(lambda: _held(room.state_dir).descriptors <= full.descriptors)
        assert after.threads <= full.threads
        assert after.children == full.children == 0
        assert after.objects < full.objects * 1.05
        assert after.resident < full.resident + 4 * MiB
        assert after.state_file < full.state_file * 1.05
        assert room.everywhere("worse") == ("blue", "blue", "blue")
        assert room.on_disk().last_deployment == ALL
        await thousand.runner.stop()
