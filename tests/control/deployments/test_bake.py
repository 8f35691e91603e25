"""The baking stage, by a clock that brings the traffic: what passes, what is rolled back and when, and waiting for an operator."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.deployments import make_hands, make_run, make_service
from support.traffic import BLUE, GREEN, Traffic, TrafficClock
from support.waiting import eventually_async

from bgproxy.config.schema import Bake, BakeErrors, BakeLatency, Deployment
from bgproxy.control.counters import Counters
from bgproxy.control.deployments.bake import BakeBroken, bake, baseline, watch
from bgproxy.control.deployments.stage import Halted
from bgproxy.control.deployments.watcher import Watcher
from bgproxy.model.deployment import DeploymentState
from bgproxy.model.upstream import UpstreamState
from bgproxy.switchboard import layout
from bgproxy.switchboard.board import Switchboard

NEW, OLD = "http://127.0.0.1:2", "http://127.0.0.1:1"


@pytest.fixture
def board():
    board = Switchboard(1)
    yield board
    board.close()


class Flow:
    """So many requests a second to green; `bad` of them (0 to 1) fail, all take so long. Fractions are carried over."""

    def __init__(self, board, rate: float, *, bad: float = 0.0, seconds: float = 0.02) -> None:
        self.to = Traffic(board)
        self.rate, self.bad, self.seconds = rate, bad, seconds
        self.owed = self.owed_bad = 0.0

    def __call__(self, _now: float, seconds: float) -> None:
        self.owed += self.rate * seconds
        count = int(self.owed + 1e-9)
        self.owed -= count
        self.owed_bad += count * self.bad
        failed = int(self.owed_bad + 1e-9)
        self.owed_bad -= failed
        self.to.answered(GREEN, failed, code=500, seconds=self.seconds)
        self.to.answered(GREEN, count - failed, seconds=self.seconds)


def make(board, flow=lambda _now, _seconds: None, *, settings: Bake | None = None, share: int = 0, **more):
    """A run that bakes; blue took 20 ms before the switch, with 0.1% errors."""
    clock = TrafficClock(flow)
    counters = Counters(board, lambda _: 0, lambda: [0])
    hands = make_hands(counters=counters, switcher=SimpleNamespace(share=lambda _: share))
    took = [0] * layout.BUCKET_COUNT
    took[layout.bucket_of(0.02)] = 60_000
    before = {"pool": "blue", "seconds": 300.0, "requests": 60_000, "errors": 60, "buckets": took}
    return make_run(
        NEW,
        old=(OLD,),
        deployment=Deployment(bake=settings or Bake()),
        state=DeploymentState.BAKING,
        clock=clock,
        hands=hands,
        memory=more.pop("memory", {"before": before}),
        **more,
    )


async def test_a_good_pool_passes_when_the_time_is_over(board):
    """And every rule leaves a result."""
    run = make(board, Flow(board, 50, bad=0.002))
    began = run.clock.now()
    await bake(run)
    assert run.clock.now() - began == pytest.approx(300.0, abs=0.3)
    names = [result.name for result in run.record.results]
    assert names == ["bake.errors.max", "bake.errors.worse_than_before", "bake.p99.worse_than_before"]
    assert all(result.ok and result.stage == "baking" for result in run.record.results)


async def test_who_watches_sees_both_pools_and_what_is_left(board):
    """As JSON, five times a second."""
    run = make(board, Flow(board, 50), settings=Bake(for_=20.0))
    await bake(run)
    shown = json.loads(json.dumps(run.tell.figures[50]))
    assert shown["pools"]["green"]["rate"] == pytest.approx(50, abs=1)
    assert shown["pools"]["blue"]["rate"] == 0
    assert shown["left"] == pytest.approx(10.0, abs=0.3)
    assert shown["requests"] == pytest.approx(500, abs=20)
    assert run.tell.lines[50] == "bakes: green 50/s, 0% errors, p99 19.9 ms"


async def test_a_test_that_fails_on_the_preview_ends_no_bake(board):
    """Whoever names the pool is no live user: however many errors a tester brings about, they judge nothing."""
    flow, preview = Flow(board, 50), Traffic(board)

    def both(now: float, seconds: float) -> None:
        flow(now, seconds)
        preview.answered(GREEN, 10, code=500, seconds=3.0, preview=True)

    run = make(board, both)
    await bake(run)
    assert all(result.ok for result in run.record.results)


async def test_what_green_did_before_the_bake_is_not_judged(board):
    """Its errors while it was verified are its own."""
    Traffic(board).answered(GREEN, 500, code=500)
    await bake(make(board, Flow(board, 50), settings=Bake(for_=10.0)))


@pytest.mark.parametrize(("rate", "within"), [(200, 1.0), (10, 10.3)])
async def test_errors_end_it_with_the_first_look_that_has_the_fewest_requests(board, rate, within):
    """The text names the number and the rule."""
    run = make(board, Flow(board, rate, bad=0.05))
    began = run.clock.now()
    with pytest.raises(
        BakeBroken, match=r"^green: [0-9.]+% of 1\d\d requests failed \(\d+ with 5xx\); the limit is 1%$"
    ) as broken:
        await bake(run)
    assert run.clock.now() - began < within
    assert [(result.name, result.ok) for result in run.record.results] == [("bake.errors.max", False)]
    assert broken.value.details == (), "else the cause would be told twice"


@pytest.mark.parametrize(("rate", "within"), [(200, 0.41), (10, 1.01)])
async def test_a_crash_after_a_good_while_ends_it_soon(board, rate, within):
    """All requests fail after 100 seconds: 0.2 s at 200 a second, 0.8 s and a look at 10."""
    flow = Flow(board, rate)
    run = make(board, flow)
    crash = run.clock.now() + 100

    def traffic(now: float, seconds: float) -> None:
        flow.bad = 1.0 if now > crash + 1e-6 else 0.0
        flow(now, seconds)

    run.clock.traffic = traffic
    with pytest.raises(BakeBroken, match="of the latest"):
        await bake(run)
    assert 0 < run.clock.now() - crash <= within


async def test_five_times_the_latency_ends_it(board):
    """Against the 20 ms of blue."""
    run = make(board, Flow(board, 200, seconds=0.1))
    with pytest.raises(BakeBroken, match=r"p99 is .* ms; it was 20 ms for blue before the switch, and 2x is the limit"):
        await bake(run)
    assert run.clock.slept < 1.0


async def test_a_pool_that_hangs_ends_it_before_its_time_outs(board):
    """Nothing fails and nothing is slow: 200 requests a second come, and stay."""
    to, waiting = Traffic(board), [0.0]

    def hang(_now: float, seconds: float) -> None:
        waiting[0] += 200 * seconds
        to.set(GREEN, layout.IN_FLIGHT, int(waiting[0]))

    run = make(board, hang)
    with pytest.raises(BakeBroken, match="wait for an answer for longer than"):
        await bake(run)
    assert run.clock.slept < 1.5


async def test_a_pool_that_is_down_ends_it_without_any_request(board):
    """While the old one could answer; if that is down too, going back would help nobody."""
    run = make(board)
    run.idle.upstreams[0].state = UpstreamState.DOWN
    run.idle.upstreams[0].reason = "connection refused"
    with pytest.raises(BakeBroken, match="no upstream of green is up, and blue has one") as broken:
        await bake(run)
    assert broken.value.details == ("127.0.0.1:2: connection refused",)
    assert run.record.results[-1].details == broken.value.details
    run.old.upstreams[0].state = UpstreamState.DOWN
    with pytest.raises(Halted, match="only 0 requests"):
        await bake(replaced(run, Bake(for_=1.0, no_traffic="fail")))


async def test_upstreams_that_are_new_to_the_pool_are_not_taken_for_down(board):
    """An operator has given others to the live pool: the first check of them will tell."""
    run = make(board)
    run.idle.upstreams[0].state = UpstreamState.CHECKING
    with pytest.raises(Halted, match="only 0 requests"):
        await bake(replaced(run, Bake(for_=1.0, no_traffic="fail")))


def replaced(run, settings: Bake):
    run.settings = replace(run.settings, bake=settings)
    return run


async def test_no_traffic_is_no_success(board):
    """`fail`: it ends as the time is over."""
    run = make(board, Flow(board, 1), settings=Bake(for_=30.0, no_traffic="fail"))
    with pytest.raises(Halted, match=r"^only 30 requests came to green within 30s, and the bake needs 100$"):
        await bake(run)
    assert run.clock.slept == pytest.approx(30.0)


async def test_without_enough_traffic_it_waits_for_the_operator(board):
    """An approval given earlier is none for this."""
    run = make(board, settings=Bake(for_=5.0))
    run.approved.set()
    task = asyncio.create_task(bake(run))
    await eventually_async(lambda: run.waits)
    assert not run.approved.is_set()
    run.approved.set()
    await task
    assert not run.waits
    assert any(line.startswith("waits for `bgproxy approve`: only 0 requests came to green") for line in run.tell.lines)


async def test_nobody_approves(board):
    """It is rolled back after `wait`, and waits no more."""
    run = make(board, settings=Bake(for_=5.0, wait=60.0))
    with pytest.raises(Halted, match="nobody approved it within 1m"):
        await bake(run)
    assert not run.waits
    assert run.clock.slept == pytest.approx(65.0)


@pytest.mark.parametrize("bad", [0.0, 0.5])
async def test_traffic_that_comes_while_it_waits_is_judged(board, bad):
    """Well: it has passed. Badly: it is broken."""
    flow = Flow(board, 0, bad=bad)
    run = make(board, flow, settings=Bake(for_=5.0))
    flow.rate = 1
    if bad:
        with pytest.raises(BakeBroken, match="of 100 requests failed"):
            await bake(run)
    else:
        await bake(run)
    assert run.clock.slept == pytest.approx(100.0, abs=0.5)


async def test_at_the_end_a_share_over_the_limit_is_over_the_limit(board):
    """2 of 100, which might be chance: after the whole time the number counts."""
    run = make(board, Flow(board, 2, bad=0.02), settings=Bake(for_=50.0, errors=BakeErrors(worse_than_before=None)))
    with pytest.raises(BakeBroken, match=r"2% of 100 requests failed \(2 with 5xx\); the limit is 1%"):
        await bake(run)
    assert run.clock.slept == pytest.approx(50.0)


async def test_after_a_restart_it_goes_on_with_the_figures_from_before(board):
    """They are in the record's memory; without any, only the absolute limits hold."""
    slow = Bake(for_=10.0, p99=BakeLatency(worse_than_before=2.0))
    with pytest.raises(BakeBroken):
        await bake(make(board, Flow(board, 100, seconds=0.1), settings=slow))
    await bake(make(board, Flow(board, 100, seconds=0.1), settings=slow, memory={}))


async def test_a_canary_step_is_judged_and_needs_no_traffic(board):
    """It goes on when its time is over; the figures are of all steps together."""
    flow = Flow(board, 8)
    run = make(board, flow, share=10)
    run.record = replace(run.record, state=DeploymentState.SWITCHING)
    began = run.clock.now()
    kept = baseline(run)
    assert kept["pool"] == "blue"
    await watch(run, 10.0, since=began)
    assert run.clock.slept == pytest.approx(10.0)
    assert run.figures.pools[GREEN].whole().requests == 80
    assert run.tell.lines[-1].startswith("10% of the clients: green 8/s")
    flow.bad = 1.0
    with pytest.raises(BakeBroken, match="of 100 requests failed"):
        await watch(run, 10.0, since=began)
    assert run.clock.slept == pytest.approx(12.6, abs=0.21)


async def test_steps_without_a_bake_only_ask_for_an_upstream(board):
    """Whoever has no rules has none broken."""
    run = make(board, Flow(board, 100, bad=1.0), share=10)
    run.settings = replace(run.settings, bake=None)
    baseline(run)
    await watch(run, 5.0, since=run.clock.now())
    run.idle.upstreams[0].state = UpstreamState.DOWN
    with pytest.raises(BakeBroken, match="no upstream of green is up"):
        await watch(run, 5.0, since=run.clock.now())


async def test_the_baseline_is_what_the_watcher_knows_of_the_live_pool(board):
    """As JSON; a controller without a watcher has an empty one."""
    service = make_service(NEW, old=(OLD,), deployment=Deployment(bake=Bake()))
    run = make(board, service=service)
    assert baseline(run)["requests"] == 0
    watcher = Watcher(services=lambda: [service], counters=run.hands.counters, now=run.clock.now)
    run.hands = replace(run.hands, watcher=watcher)
    await watcher.look()
    Traffic(board).answered(BLUE, 30, code=502)
    run.clock.at += 3
    kept = json.loads(json.dumps(baseline(run)))
    assert (kept["pool"], kept["requests"], kept["errors"], kept["seconds"]) == ("blue", 30, 30, 3.0)


async def test_a_run_without_a_bake_has_nothing_to_do(board):
    """It is skipped."""
    run = make(board)
    run.settings = replace(run.settings, bake=None)
    await bake(run)
    assert run.clock.slept == 0
