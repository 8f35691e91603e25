"""The switching stage: at once, or by shares."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from support.deployments import FakeClock, make_hands, make_run

from bgproxy.config.schema import Deployment, Strategy, Verify
from bgproxy.control.deployments import flip as module
from bgproxy.control.deployments.bake import BakeBroken
from bgproxy.control.deployments.flip import duration, flip, steps_of
from bgproxy.errors import Busy, NotHealthy
from bgproxy.model.deployment import DeploymentState


class FakeSwitcher:
    """Notes what it is asked for."""

    def __init__(self, clock_of) -> None:
        self.did: list[tuple[object, ...]] = []
        self._clock_of = clock_of
        self.unfit = False
        self.busy = 0  # so often

    def _hinder(self) -> None:
        if self.busy:
            self.busy -= 1
            raise Busy("shop: a reload is under way; nothing was changed.")

    async def split(self, service, share, *, actor, enough):
        self._hinder()
        self.did.append(("split", share, self._clock_of(), enough))
        service.share = share

    async def switch(self, targets, *, actor, reason, enough):
        self._hinder()
        if self.unfit:
            raise NotHealthy("shop: green is not healthy.", ["127.0.0.1:9002: connection refused"])
        self.did.append(("switch", targets, actor.name, reason, enough))
        return [SimpleNamespace(switched_in_ms=1.5)]

    def share(self, _service):
        return 0


@pytest.fixture
def watched(monkeypatch):
    """The rules of the bake, which say what the test says; the times that they were asked for."""
    times = []
    broken = {}

    async def watch(run, seconds, *, since):
        times.append(seconds)
        await run.clock.sleep(seconds)
        if len(times) in broken:
            raise broken[len(times)]

    monkeypatch.setattr(module, "watch", watch)
    monkeypatch.setattr(module, "baseline", lambda _run: {"requests": 5})
    return SimpleNamespace(times=times, broken=broken)


def switching(strategy: Strategy, **deployment):
    clock = FakeClock()
    switcher = FakeSwitcher(clock.now)
    deployment = Deployment(strategy=strategy, **deployment)
    run = make_run(
        "http://127.0.0.1:9002",
        deployment=deployment,
        state=DeploymentState.SWITCHING,
        clock=clock,
        hands=make_hands(switcher=switcher),
    )
    return run, switcher


def test_the_steps_of_the_strategies():
    """As CodeDeploy and Argo Rollouts have them; the last step is the switch itself."""
    assert steps_of(Strategy()) == []
    assert steps_of(Strategy(type="canary", percent=10.0, for_=300.0)) == [(10, 300.0)]
    assert steps_of(Strategy(type="linear", step=25.0, every=60.0)) == [(25, 60.0), (50, 60.0), (75, 60.0)]
    assert steps_of(Strategy(type="linear", step=40.0, every=1.0)) == [(40, 1.0), (80, 1.0)]
    assert duration(Strategy(type="linear", step=10.0, every=60.0)) == 540.0


async def test_all_at_once(watched):
    """One switch, in the name of the deployment and with its reason; how it was before is kept for the bake."""
    run, switcher = switching(Strategy())
    await flip(run)
    assert switcher.did == [("switch", {"shop": "green"}, "deployment 7", "a test", 100.0)]
    assert run.record.memory["before"] == {"requests": 5}
    assert run.record.results[-1].found == "green is live, 1.5 ms after it was asked for"
    assert watched.times == []


async def test_a_linear_strategy_takes_step_after_step(watched):
    """Each is watched for its time, and then comes the next."""
    run, switcher = switching(Strategy(type="linear", step=50.0, every=30.0), verify=Verify(healthy=50.0))
    start = run.clock.now()
    await flip(run)
    assert switcher.did[0] == ("split", 50, start, 50.0)
    assert switcher.did[1][0] == "switch"
    assert watched.times == [30.0]
    assert run.clock.now() == start + 30.0


async def test_a_step_that_breaks_a_rule_is_the_last_one(watched):
    """The traffic is not moved any further."""
    watched.broken[2] = BakeBroken("5% of 200 requests failed")
    run, switcher = switching(Strategy(type="linear", step=25.0, every=30.0))
    with pytest.raises(BakeBroken):
        await flip(run)
    assert [did[:2] for did in switcher.did] == [("split", 25), ("split", 50)]


async def test_a_pool_that_is_not_fit_is_not_switched_to(watched):
    """What the switch says is what the deployment says."""
    run, switcher = switching(Strategy())
    switcher.unfit = True
    with pytest.raises(NotHealthy):
        await flip(run)
    assert switcher.did == []


@pytest.mark.parametrize("kind", ["all-at-once", "canary"])
async def test_another_change_is_waited_for(watched, kind):
    """A reload at this very moment is no reason to roll anything back."""
    run, switcher = switching(Strategy(type=kind))
    switcher.busy = 3
    await flip(run)
    assert switcher.did[-1][:2] == ("switch", {"shop": "green"})
