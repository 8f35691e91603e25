"""Retiring the old pool."""

from __future__ import annotations

import asyncio

from support.deployments import FakeClock, JumpyClock, make_run

from bgproxy.config.schema import Deployment, Retire
from bgproxy.control.deployments.retire import retire
from bgproxy.model.deployment import DeploymentState


def retiring(settings: Retire, **how):
    """A deployment whose target is live."""
    run = make_run(
        "http://127.0.0.1:9002", deployment=Deployment(retire=settings), state=DeploymentState.RETIRING, **how
    )
    run.service.live = run.target
    return run


async def test_the_old_pool_stands_by_and_is_retired_then():
    """After the stand-by time, and not before; it was noted down that the command runs, before it did."""
    run = retiring(Retire(after=1800.0, run='echo "stop $BGPROXY_OLD"'))
    await retire(run)
    assert 1800.0 <= run.clock.slept < 1801.0
    assert run.record.memory == {"retire": "running"}
    assert [(result.ok, result.details) for result in run.record.results] == [(True, ("stop blue",))]
    assert run.tell.lines[0] == "blue stands by, and is retired in 30m"


async def test_without_a_stand_by_it_is_retired_at_once():
    """As soon as it has drained."""
    run = retiring(Retire(after=0.0, run='echo "stop $BGPROXY_OLD"'))
    await retire(run)
    assert run.clock.slept == 0.0
    assert [(result.ok, result.details) for result in run.record.results] == [(True, ("stop blue",))]


async def test_a_restart_waits_for_the_rest_alone():
    """The time counts from when the stand-by began."""
    clock = FakeClock()
    run = retiring(Retire(after=100.0), clock=clock)
    clock.at += 90.0
    await retire(run)
    assert 10.0 <= clock.slept < 11.0
    assert run.record.results == ()


async def test_a_command_that_was_cut_short_is_not_run_again():
    """The operator is told to look."""
    run = retiring(Retire(after=1.0, run="echo again"), memory={"retire": "running"})
    await retire(run)
    (result,) = run.record.results
    assert not result.ok
    assert result.found == "bgproxy was restarted while it ran; see what became of blue"


async def test_a_pool_that_is_live_again_is_not_retired(tmp_path):
    """Whoever made it live, and however late: nothing would be left to answer."""
    run = retiring(Retire(after=1.0, run=f"touch {tmp_path}/ran"))
    run.service.live = 1 - run.target
    await retire(run)
    assert [(result.ok, result.found) for result in run.record.results] == [
        (False, "blue is live, so it was not retired")
    ]
    assert not (tmp_path / "ran").exists()


async def test_a_command_that_fails_is_told():
    """And halts nothing: the new version is live."""
    run = retiring(Retire(after=1.0, run="exit 4"))
    await retire(run)
    assert [(result.ok, result.found) for result in run.record.results] == [(False, "status 4")]


async def test_a_clock_that_is_set_takes_no_stand_by_time_away():
    """The old pool is the way back for the whole of it."""
    clock = JumpyClock()
    run = retiring(Retire(after=1800.0, run="true"), clock=clock)
    work = asyncio.create_task(retire(run))
    while clock.slept < 10.0:
        await asyncio.sleep(0)
    clock.ahead = 3600.0
    await work
    assert 1800.0 <= clock.slept < 1801.0


async def test_no_stand_by_time_is_none():
    """Whatever the clock says that has been set back since."""
    clock = JumpyClock()
    run = retiring(Retire(after=0.0, run="echo gone"), clock=clock)
    clock.ahead = -3600.0
    await retire(run)
    assert clock.slept == 0
    assert [result.details for result in run.record.results] == [("gone",)]
