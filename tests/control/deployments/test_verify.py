"""The verifying stage: the health gate, the order of the checks, and what a failed one leaves behind."""

from __future__ import annotations

import asyncio

import pytest
from support.backends import Backend
from support.deployments import FakeClock, make_run
from support.waiting import eventually_async

from bgproxy.config.schema import Check, Deployment, Expect, Health, Load, Verify
from bgproxy.control.deployments import verify as module
from bgproxy.control.deployments.stage import Halted
from bgproxy.control.deployments.verify import verify
from bgproxy.model.deployment import Result
from bgproxy.model.upstream import UpstreamState


@pytest.fixture
def backend():
    with Backend("green") as backend:
        yield backend


@pytest.fixture
def hooks(monkeypatch):
    """Commands and webhooks that were called; one that is called `bad` fails."""
    called = []

    async def call(run, **asked):
        called.append(asked)
        ok = asked["name"] != "bad"
        return Result(stage=asked["stage"], name=asked["name"], ok=ok, found="" if ok else "status 3", details=("x",))

    monkeypatch.setattr(module, "call", call)
    return called


def run_of(*urls, checks=(), clock=None, service=None, **settings):
    deployment = Deployment(verify=Verify(checks=tuple(checks), **settings))
    return make_run(*urls, deployment=deployment, clock=clock, **(service or {}))


def told(run):
    return [(result.name, result.ok) for result in run.record.results]


async def halted(run) -> Halted:
    with pytest.raises(Halted) as caught:
        await verify(run)
    return caught.value


# --- health ---------------------------------------------------------------------------------------------------------


async def test_a_healthy_pool_passes(backend):
    """That it was is kept, with what was asked for."""
    run = run_of(backend.url)
    await verify(run)
    (result,) = run.record.results
    assert (result.stage, result.name, result.ok) == ("verifying", "health", True)
    assert (result.expected, result.found) == ("100% of the upstreams up within 1m", "1 of 1 upstreams are up")


async def test_a_pool_that_is_down_is_waited_for(backend):
    """So long, and then the reasons of its upstreams are told."""
    run = run_of(backend.url, "http://127.0.0.1:1", within=5.0)
    down = run.idle.upstreams[1]
    down.state, down.reason = UpstreamState.DOWN, "connection refused"
    cause = await halted(run)
    found = "1 of 2 upstreams are up after 5s"
    assert str(cause) == f"green is not healthy: {found}: 127.0.0.1:1: connection refused"
    assert cause.details == ("127.0.0.1:1: connection refused",)
    assert run.clock.slept == pytest.approx(5.0)
    assert run.tell.lines[0] == "green: 1 of 2 upstreams are up"
    (result,) = run.record.results
    assert (result.ok, result.found, result.seconds) == (False, found, pytest.approx(5.0))


async def test_a_pool_that_comes_up_in_time_passes(backend):
    """The stage looks on as the health checks find it good."""

    class Rising(FakeClock):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds)
            if self.slept > 3:
                run.idle.upstreams[0].state = UpstreamState.UP

    run = run_of(backend.url, clock=Rising())
    run.idle.upstreams[0].state = UpstreamState.CHECKING
    await verify(run)
    assert told(run) == [("health", True)]
    assert 3 < run.clock.slept < 4


async def test_what_was_up_before_is_asked_anew(backend):
    """The health checks may know the program that ran there before: each upstream answers `rise` times in a row, now."""
    backend.healthy = False
    asked = []

    class Watching(FakeClock):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds)
            asked.append(run.tell.lines[-1])
            backend.healthy = self.slept > 1

    run = run_of(backend.url, clock=Watching(), service={"health": Health(path="/health", rise=3)})
    await verify(run)
    assert asked[0] == "green: 0 of 1 upstreams are up"
    assert 1 < run.clock.slept < 2
    backend.healthy = False
    cause = await halted(run_of(backend.url, within=0.3))
    assert f"127.0.0.1:{backend.port}: status 503, expected 200-399" in str(cause)


async def test_a_share_of_the_upstreams_will_do(backend):
    """If that is configured; those that are down are told, and not asked in checks."""
    checks = [Check(name="cart", request="GET /cart")]
    run = run_of(backend.url, "http://127.0.0.1:1", healthy=50.0, checks=checks)
    run.idle.upstreams[1].state = UpstreamState.DOWN
    await verify(run)
    assert told(run) == [("health", True), ("cart", True)]
    assert run.record.results[0].details == ("127.0.0.1:1: down",)


async def test_upstreams_that_are_out_by_hand_do_not_count(backend):
    """An operator wants them so; but with all of them out there is nothing to deploy to."""
    run = run_of(backend.url, "http://127.0.0.1:1", checks=[Check(name="cart", request="GET /cart")])
    run.idle.upstreams[1].state = UpstreamState.MAINT
    await verify(run)
    assert told(run) == [("health", True), ("cart", True)]
    run.idle.upstreams[0].state = UpstreamState.DRAINING
    assert "every upstream was taken out by hand" in str(await halted(run))


async def test_a_pool_without_upstreams():
    """It says so."""
    assert str(await halted(run_of(within=0.2))) == "green is not healthy: it has no upstreams"


async def test_a_tcp_service_is_not_asked_over_http():
    """Its health checks connect, and that is all that can be asked."""
    run = run_of("tcp://127.0.0.1:1", service={"tcp": True, "health": Health(type="auto")})
    await verify(run)
    assert told(run) == [("health", True)]


# --- checks ---------------------------------------------------------------------------------------------------------


async def test_checks_of_every_kind_in_their_order(backend, hooks):
    """All results are kept, and who watches sees which one it is."""
    checks = [
        Check(name="cart", request="GET /cart", expect=Expect(body_contains="green")),
        Check(name="contract tests", run="./contract-tests.sh", timeout=600.0),
        Check(name="judge", webhook="https://judge.example/"),
        Check(name="load", load=Load(rate=100.0, for_=0.1)),
    ]
    run = run_of(backend.url, checks=checks)
    await verify(run)
    assert told(run) == [(name, True) for name in ("health", "cart", "contract tests", "judge", "load")]
    assert hooks == [
        {
            "run_command": "./contract-tests.sh",
            "webhook": "",
            "timeout": 600.0,
            "stage": "verifying",
            "name": "contract tests",
        },
        {
            "run_command": "",
            "webhook": "https://judge.example/",
            "timeout": 300.0,
            "stage": "verifying",
            "name": "judge",
        },
    ]
    assert "check 2 of 4: contract tests" in run.tell.lines


async def test_the_first_failed_check_ends_it(backend, hooks):
    """What was expected, what came, and how much was not run; the result of the failed one is kept."""
    checks = [
        Check(name="cart", request="GET /status?code=404"),
        Check(name="more", request="GET /"),
        Check(name="load", load=Load(rate=1.0)),
    ]
    run = run_of(backend.url, checks=checks)
    cause = await halted(run)
    where = f"127.0.0.1:{backend.port}"
    assert str(cause) == f"check 'cart': {where}: status 404; expected status 200-299 (2 checks were not run)"
    assert told(run) == [("health", True), ("cart", False)]
    assert backend.total == 1


async def test_a_command_that_fails(backend, hooks):
    """What it said is in the details."""
    run = run_of(backend.url, checks=[Check(name="bad", run="false")])
    cause = await halted(run)
    assert (str(cause), cause.details) == ("check 'bad': status 3", ("x",))


async def test_nobody_left_to_ask(backend, hooks):
    """The last upstream was taken out while a check ran: that is no success."""
    run = run_of(backend.url, checks=[Check(name="tests", run="x"), Check(name="cart", request="GET /")])

    async def call(run, **asked):
        run.idle.upstreams[0].state = UpstreamState.MAINT
        return Result(stage="verifying", name="tests", ok=True)

    module.call = call  # put back by the fixture
    assert "no upstream is left that could be asked" in str(await halted(run))


async def test_an_abort_leaves_nothing(backend):
    """In the middle of a check."""
    run = run_of(backend.url, checks=[Check(name="hangs", request="GET /silent")])
    verifying = asyncio.ensure_future(verify(run))
    await eventually_async(lambda: backend.counts["/silent"])
    verifying.cancel()
    await asyncio.wait({verifying})
    assert verifying.cancelled()
    await eventually_async(lambda: not backend.open)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("check ")]


async def test_live_upstreams_are_never_asked(backend):
    """Whatever is checked is checked of the idle pool."""
    with Backend("blue") as blue:
        checks = [Check(name="cart", request="GET /"), Check(name="load", load=Load(rate=50.0, for_=0.1))]
        run = run_of(backend.url, checks=checks, service={"old": (blue.url,)})
        await verify(run)
        assert (blue.total, blue.connections) == (0, 0)


async def test_a_command_as_it_runs(backend):
    """With the deployment in its environment; its status is the outcome, and its output is kept."""
    checks = [
        Check(name="good", run='test "$BGPROXY_TARGET" = green'),
        Check(name="bad", run="echo no contract; exit 3"),
    ]
    run = run_of(backend.url, checks=checks)
    cause = await halted(run)
    assert told(run) == [("health", True), ("good", True), ("bad", False)]
    assert str(cause).startswith("check 'bad': ")
    assert any("no contract" in line for line in cause.details)
