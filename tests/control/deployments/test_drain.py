"""Waiting for the drain of the old pool."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from support.deployments import make_hands, make_run

from bgproxy.control.deployments.drain import drain
from bgproxy.control.draining import Drained
from bgproxy.model.deployment import DeploymentState


class FakeDrains:
    """One drain, of blue, which ends after so many looks; None: there is none."""

    def __init__(self, looks: int | None, drained: Drained | None = None) -> None:
        self._looks = looks
        self._drained = drained or Drained([3, 0, 0], [0, 0, 0], 1.0, True)
        self._future: asyncio.Future[Drained] | None = None
        self.asked: list[tuple[str, int]] = []

    def ending(self, service: str, pool: int):
        self.asked.append((service, pool))
        if self._looks is None:
            return None
        self._future = asyncio.get_running_loop().create_future()
        return self._future

    def of(self, _service: str, _pool: int):
        assert self._looks is not None
        self._looks -= 1
        if not self._looks:
            self._future.set_result(self._drained)
        return SimpleNamespace(in_flight=lambda: [self._looks, 1, 0])


def draining(drains: FakeDrains):
    return make_run("http://127.0.0.1:9002", state=DeploymentState.DRAINING, hands=make_hands(drains=drains))


async def test_it_ends_with_the_drain():
    """And shows meanwhile what is left; the result says what became of it."""
    run = draining(FakeDrains(3))
    await drain(run)
    assert run.hands.drains.asked == [("shop", 0)]
    assert run.tell.lines[:2] == ["blue drains: 3 in flight", "blue drains: 2 in flight"]
    (result,) = run.record.results
    assert (result.ok, result.found) == (True, "3 ended, 0 were cut")


async def test_what_was_cut_is_told_and_halts_nothing():
    """A deadline did what it is for."""
    run = draining(FakeDrains(1, Drained([1, 0, 0], [0, 0, 2], 5.0, True)))
    await drain(run)
    assert [(result.ok, result.found) for result in run.record.results] == [(False, "1 ended, 2 were cut")]


async def test_where_nothing_drains_there_is_nothing_to_wait_for():
    """Such as after a restart behind the drain's end."""
    run = draining(FakeDrains(None))
    await drain(run)
    assert run.record.results == ()
