"""Waiting for an approval."""

from __future__ import annotations

import asyncio

import pytest
from support.deployments import FakeClock, JumpyClock, make_run

from bgproxy.config.schema import Approve, Deployment
from bgproxy.control.deployments.approval import await_approval
from bgproxy.control.deployments.stage import NotApproved
from bgproxy.model.deployment import DeploymentState

MANUAL = Deployment(approve=Approve(mode="manual", timeout=60.0))


def waiting(clock=None):
    return make_run("http://127.0.0.1:9002", deployment=MANUAL, state=DeploymentState.AWAITING_APPROVAL, clock=clock)


async def test_it_waits_for_a_yes():
    """It says so meanwhile, and what was said before it asked does not count."""
    run = waiting()
    run.approved.set()
    asked = asyncio.create_task(await_approval(run))
    while not run.waits:
        await asyncio.sleep(0)
    assert not asked.done()
    run.approved.set()
    await asked
    assert not run.waits
    assert "bgproxy approve" in run.tell.lines[0]


async def test_nobody_says_yes():
    """Then it ends, after the time that the configuration gives, and no sooner."""
    run = waiting()
    with pytest.raises(NotApproved, match="nobody approved it within 1m"):
        await await_approval(run)
    assert run.clock.slept == pytest.approx(60.0, abs=0.01)
    assert not run.waits


async def test_a_restart_gives_no_more_time():
    """The time counts from when it was first asked for."""
    clock = FakeClock()
    run = waiting(clock)
    clock.at += 45.0
    with pytest.raises(NotApproved):
        await await_approval(run)
    assert clock.slept == pytest.approx(15.0, abs=0.01)


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_a_clock_that_is_set_changes_nothing(jump):
    """An hour ahead must not end it, an hour back not have it wait on."""
    clock = JumpyClock()
    run = waiting(clock)
    asked = asyncio.create_task(await_approval(run))
    while not clock.slept > 10.0:
        await asyncio.sleep(0)
    clock.ahead = jump
    with pytest.raises(NotApproved):
        await asked
    assert clock.slept == pytest.approx(60.0, abs=0.2)


async def test_a_clock_that_was_set_back_over_a_restart_gives_no_more_than_the_whole():
    """The step is in the future then."""
    clock = JumpyClock()
    run = waiting(clock)
    clock.ahead = -3600.0
    with pytest.raises(NotApproved):
        await await_approval(run)
    assert clock.slept == pytest.approx(60.0, abs=0.2)
