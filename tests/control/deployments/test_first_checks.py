"""Waiting for the first checks after a restart."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from support.deployments import FakeClock, make_run, make_service

from bgproxy.control.deployments.first_checks import WITHIN, first_checks
from bgproxy.control.registry import Service, Upstream
from bgproxy.model.deployment import DeploymentState as State
from bgproxy.model.upstream import UpstreamState


class Checks(FakeClock):
    """Time in which the first checks end: `after` so many seconds these upstreams are up."""

    def __init__(self, after: float, upstreams: Sequence[Upstream]) -> None:
        super().__init__()
        self.after = after
        self.upstreams = upstreams

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        if self.slept >= self.after:
            for upstream in self.upstreams:
                upstream.state = UpstreamState.UP


@pytest.fixture
def service() -> Service:
    """Two upstreams of blue, the old pool, and one of green; nobody has checked them yet."""
    service = make_service("http://127.0.0.1:3", old=("http://127.0.0.1:1", "http://127.0.0.1:2"))
    for pool in service.pools:
        for upstream in pool.upstreams:
            upstream.state = UpstreamState.CHECKING
    return service


async def test_it_is_waited_until_it_is_known_who_is_up(service: Service) -> None:
    """Of all upstreams of both pools; and then no longer."""
    blue, green = service.pools
    run = make_run(service=service, state=State.BAKING, clock=Checks(2.0, [*blue.upstreams, *green.upstreams]))
    await first_checks(run)
    assert run.clock.now() - 1000.0 == pytest.approx(2.0, abs=0.1)
    assert "first checks" in run.progress.text
    await first_checks(run)
    assert run.clock.now() - 1000.0 == pytest.approx(2.0, abs=0.1)


async def test_one_that_is_down_is_known(service: Service) -> None:
    """It need not be up."""
    for pool in service.pools:
        for upstream in pool.upstreams:
            upstream.state = UpstreamState.DOWN
    run = make_run(service=service, state=State.BAKING)
    await first_checks(run)
    assert run.clock.now() == 1000.0


async def test_the_way_back_waits_for_one_that_is_up(service: Service) -> None:
    """Users are on the bad pool: neither the rest of the old one nor anybody of the bad one is waited for."""
    run = make_run(service=service, state=State.ROLLING_BACK, clock=Checks(1.0, service.pools[0].upstreams[:1]))
    await first_checks(run)
    assert run.clock.now() - 1000.0 == pytest.approx(1.0, abs=0.1)


async def test_it_does_not_wait_for_ever(service: Service) -> None:
    """Checks that come to no end: it goes on by what there is."""
    run = make_run(service=service, state=State.SWITCHING)
    await first_checks(run)
    assert run.clock.now() - 1000.0 == pytest.approx(WITHIN, abs=0.1)
