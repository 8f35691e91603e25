"""Tasks of the controller: they end by themselves, or at the stop."""

from __future__ import annotations

import asyncio

import pytest

from bgproxy.control import tasks as module
from bgproxy.control.tasks import Tasks


async def test_a_change_goes_on_when_its_caller_is_cancelled() -> None:
    """Half a change is worse than one that nobody waits for any more."""
    tasks, gate, done = Tasks(), asyncio.Event(), []

    async def work() -> None:
        await gate.wait()
        done.append(True)

    async def caller() -> None:
        await asyncio.shield(tasks.start(work(), "work"))

    asked = asyncio.create_task(caller())
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    gate.set()
    await tasks.close()
    assert done == [True]


async def test_a_stop_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not end in time is cancelled."""
    monkeypatch.setattr(module, "END_WITHIN", 0.01)
    tasks = Tasks()
    stuck = tasks.start(asyncio.Event().wait(), "stuck")
    await tasks.close()
    assert stuck.cancelled()


async def test_a_failure_that_nobody_hears_makes_no_noise() -> None:
    """The caller has gone; warnings are errors in these tests, so a complaint of the loop would fail this one."""
    tasks = Tasks()

    async def fail() -> None:
        raise ValueError

    task = tasks.start(fail(), "fails")
    await asyncio.wait({task})
    await tasks.close()
    with pytest.raises(ValueError):
        task.result()


async def test_who_waits_for_the_whole_is_cancelled_behind_its_end():
    """So that nobody takes for undone what is done a moment later."""
    tasks, go, done = Tasks(), asyncio.Event(), []

    async def change() -> None:
        await go.wait()
        done.append(True)

    waiting = asyncio.create_task(tasks.whole(change(), "change"))
    await asyncio.sleep(0)
    waiting.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert done == [True]
    await tasks.close()
