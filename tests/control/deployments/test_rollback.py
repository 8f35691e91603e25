"""The way back by itself: once, onto a pool that can answer, and not given up for a hindrance that passes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.control_room import ControlRoom
from support.deployments import make_hands, make_run
from support.waiting import eventually_async

from bgproxy.control.deployments.rollback import WITHIN, roll_back
from bgproxy.control.deployments.stage import Halted
from bgproxy.errors import Busy, NotHealthy, Refused, StateError, Unavailable
from bgproxy.model.deployment import DeploymentState, Step

NEW, OLD = "http://127.0.0.1:2", "http://127.0.0.1:1"
WHY = "green: 5.2% of 250 requests failed (13 with 5xx); the limit is 1%"


class Switcher:
    """Fails as told, then does it."""

    def __init__(self, *errors: Exception, share: int = 0) -> None:
        self.errors = list(errors)
        self.weight = share
        self.done: list[tuple] = []
        self.run = None

    def share(self, _service) -> int:
        return self.weight

    async def rollback(self, name, *, actor, reason):
        self._try()
        self.run.service.live = 0
        self.done.append((name, actor.name, reason))

    async def split(self, service, share, *, actor):
        self._try()
        self.weight = share
        self.done.append((service.name, share, actor.name))

    def _try(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


def make(switcher: Switcher, *, live: int = 1, hands=None):
    run = make_run(NEW, old=(OLD,), state=DeploymentState.ROLLING_BACK, hands=hands or make_hands(switcher=switcher))
    run.service.live = live
    run.record = replace(
        run.record,
        steps=(*run.record.steps, Step(state="rolling_back", at=run.clock.time(), by="bgproxy", why=WHY)),
    )
    switcher.run = run
    return run


async def test_the_traffic_goes_back_with_the_cause_as_its_reason():
    """By the deployment itself."""
    switcher = Switcher()
    await roll_back(make(switcher))
    assert switcher.done == [("shop", "deployment 7", WHY)]


async def test_it_happens_once():
    """Where the old pool has everything already, nothing is done."""
    switcher = Switcher()
    run = make(switcher)
    await roll_back(run)
    await roll_back(run)
    assert len(switcher.done) == 1


async def test_a_canary_is_made_whole():
    """Nothing was switched yet, so there is but the share to take back."""
    switcher = Switcher(share=10)
    await roll_back(make(switcher, live=0))
    assert switcher.done == [("shop", 0, "deployment 7")]


async def test_a_hindrance_that_passes_is_waited_for():
    """Another change that runs, a worker that is slow, a disk that is full for a moment."""
    switcher = Switcher(Busy("a reload is under way"), Unavailable("worker 1 did not answer"), StateError("no space"))
    run = make(switcher)
    await roll_back(run)
    assert len(switcher.done) == 1
    assert run.clock.slept == pytest.approx(0.3)


async def test_a_hindrance_that_stays_is_told():
    """Half a minute later."""
    switcher = Switcher(*[Unavailable("worker 1 did not answer")] * 1000)
    run = make(switcher)
    with pytest.raises(Halted, match="worker 1 did not answer"):
        await roll_back(run)
    assert run.clock.slept == pytest.approx(WITHIN, abs=0.2)


async def test_an_old_pool_that_is_down_for_a_moment_is_waited_for():
    """Nothing else is left to go back to, and on a machine that is out of breath all checks fail at once."""
    switcher = Switcher(*[NotHealthy("shop: blue is not healthy.")] * 50)
    run = make(switcher)
    await roll_back(run)
    assert len(switcher.done) == 1
    assert "tries again: shop: blue is not healthy." in run.tell.lines


async def test_an_empty_pool_is_no_way_back():
    """Nobody will come: it is told at once."""
    switcher = Switcher(Refused("shop: blue has no upstreams, so it cannot be live."))
    run = make(switcher)
    with pytest.raises(Halted, match="blue is not fit to be live: shop: blue has no upstreams"):
        await roll_back(run)
    assert run.clock.slept == 0


async def test_an_old_pool_that_cannot_answer_is_no_way_back():
    """With what is wrong with it."""
    switcher = Switcher(*[NotHealthy("shop: blue is not healthy.", ["127.0.0.1:1: connection refused"])] * 1000)
    run = make(switcher)
    with pytest.raises(Halted, match="blue is not fit to be live: shop: blue is not healthy") as halted:
        await roll_back(run)
    assert halted.value.details == ("127.0.0.1:1: connection refused",)
    assert not switcher.done
    assert run.clock.slept == pytest.approx(WITHIN, abs=0.2)


async def test_with_the_real_switcher_the_board_the_disk_and_the_history_say_so(tmp_path):
    """And an old pool that is down is refused by it."""
    async with ControlRoom(tmp_path) as room:
        switcher = room.controller._running().switcher
        run = make(Switcher(), hands=make_hands(switcher=switcher))
        run.service = room.controller._registry.find("shop")
        await switcher.switch({"shop": "green"}, actor=run.actor)
        room.upstreams["shop", "blue"].status = 500
        await room.until("shop", "blue", healthy=False)
        with pytest.raises(Halted, match="blue is not fit to be live"):
            await roll_back(run)
        assert room.everywhere() == ("green", "green", "green")
        room.upstreams["shop", "blue"].status = 200
        await eventually_async(lambda: room.pool("shop", "blue")["healthy"])
        await roll_back(run)
        assert room.everywhere() == ("blue", "blue", "blue")
        event = room.controller.events.history(limit=1)[0]
        assert (event["type"], event["reason"]) == ("rolled_back", WHY)
