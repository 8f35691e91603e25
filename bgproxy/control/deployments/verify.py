"""The verifying stage: the idle pool is proven before users see it. First its health, then the checks in their order.

The first failed check ends it: what comes after often relies on what came before, and a deployment that has failed should say so soon.
What was not run is told.
"""

from __future__ import annotations

from typing import Final

from bgproxy.config.schema import Check, Verify
from bgproxy.config.statuses import parse_statuses
from bgproxy.config.units import format_duration, format_percent
from bgproxy.control.deployments.caller import Caller
from bgproxy.control.deployments.checks import of_each, request_check
from bgproxy.control.deployments.hooks import call
from bgproxy.control.deployments.load import load_check
from bgproxy.control.deployments.stage import Halted, Run
from bgproxy.control.registry import Upstream
from bgproxy.model.deployment import DeploymentState, Result

#: Seconds between two looks at the pool's health.
POLL: Final = 0.1
#: And at the least: less may be nothing to a clock.
_LEAST: Final = 0.001

#: Seconds that a command or a webhook may take, unless the check says otherwise.
HOOK: Final = 300.0

_STAGE: Final = DeploymentState.VERIFYING.value


async def verify(run: Run) -> None:
    """End when the pool is healthy and every check has passed; raises `Halted` at the first that has not."""
    settings = run.settings.verify
    if settings is None:
        return
    caller = Caller(run.service, run.idle)
    try:
        upstreams = await _healthy(run, caller, settings)
        for number, check in enumerate(settings.checks):
            of = f"check {number + 1} of {len(settings.checks)}: {check.name}"
            run.show(of, share=number / len(settings.checks))
            result = await _check(run, caller, upstreams, check, of, number / len(settings.checks))
            run.keep(result)
            if not result.ok:
                raise _halted(result, len(settings.checks) - number - 1)
    finally:
        caller.close()


def _halted(result: Result, left: int) -> Halted:
    cause = f"check {result.name!r}: {result.found}"
    if result.expected:
        cause += f"; expected {result.expected}"
    if left:
        cause += f" ({left} {'check was' if left == 1 else 'checks were'} not run)"
    return Halted(cause, result.details)


# --- health ---------------------------------------------------------------------------------------------------------


async def _healthy(run: Run, caller: Caller, settings: Verify) -> list[Upstream]:
    """The upstreams that are up, as soon as they are enough. Raises `Halted` when they are not in time.

    What the health checks knew may be of the program that ran there before: a pool that was provisioned a moment ago has not
    been asked since. So each that is up is asked `rise` times here, and now.
    """
    pool = run.idle
    began = run.clock.now()
    while True:
        up = [upstream for upstream in pool.upstreams if upstream.is_up]
        troubles = pool.troubles()
        total = len(up) + len(troubles)
        if up and 100 * len(up) >= settings.healthy * total:
            reasons = await of_each(up, lambda upstream: _rises(run, caller, upstream), "health")
            troubles += [f"{name}: {reason}" for name, reason in reasons.items() if reason]
            up = [upstream for upstream in up if not reasons[upstream.id]]
            if up and 100 * len(up) >= settings.healthy * total:
                break
        waited = run.clock.now() - began
        if waited >= settings.within:
            raise _unhealthy(run, settings, up, troubles, waited)
        run.show(f"{pool.name}: {len(up)} of {total} upstreams are up", share=min(waited / settings.within, 1.0))
        await run.clock.sleep(max(min(POLL, settings.within - waited), _LEAST))
    found = f"{len(up)} of {total} upstreams are up"
    run.keep(_gate(run, settings, found, began, ok=True, details=tuple(troubles)))
    return up


async def _rises(run: Run, caller: Caller, upstream: Upstream) -> str:
    """Ask what a health check asks, as often as it takes to be up; why it is not, empty if it is."""
    health = run.service.health()
    if health.type == "tcp":
        return ""  # a connection is all that is asked for, and the checks make one
    for _ in range(health.rise):
        answer = await caller.ask(upstream, "GET", health.path, timeout=health.timeout)
        if not answer.status:
            return answer.reason
        if not any(answer.status in statuses for statuses in parse_statuses(health.expect)):
            return f"status {answer.status}, expected {health.expect}"
    return ""


def _unhealthy(run: Run, settings: Verify, up: list[Upstream], troubles: list[str], waited: float) -> Halted:
    total = len(up) + len(troubles)
    found = f"{len(up)} of {total} upstreams are up after {format_duration(round(waited, 1))}"
    if not total:
        found = "every upstream was taken out by hand" if run.idle.upstreams else "it has no upstreams"
    run.keep(_gate(run, settings, found, run.clock.now() - waited, ok=False, details=tuple(troubles)))
    first = f": {troubles[0]}" if troubles else ""
    return Halted(f"{run.idle.name} is not healthy: {found}{first}", tuple(troubles))


def _gate(run: Run, settings: Verify, found: str, began: float, *, ok: bool, details: tuple[str, ...]) -> Result:
    expected = f"{format_percent(settings.healthy)} of the upstreams up within {format_duration(settings.within)}"
    seconds = round(run.clock.now() - began, 3)
    return Result(stage=_STAGE, name="health", ok=ok, expected=expected, found=found, seconds=seconds, details=details)


# --- checks ---------------------------------------------------------------------------------------------------------


async def _check(run: Run, caller: Caller, upstreams: list[Upstream], check: Check, text: str, share: float) -> Result:
    """Run one check, of whatever kind."""
    if check.run or check.webhook:
        limit = check.timeout if check.timeout is not None else HOOK
        return await call(
            run, run_command=check.run, webhook=check.webhook, timeout=limit, stage=_STAGE, name=check.name
        )
    # Those that are in the pool still, and that nobody has taken out since.
    asked = [upstream for upstream in upstreams if upstream in caller.upstreams()]
    if not asked:
        return Result(stage=_STAGE, name=check.name, ok=False, found="no upstream is left that could be asked")
    if check.load is not None:
        return await load_check(run, asked, check, check.load)

    def tell(answered: int) -> None:
        if len(asked) > 1:
            run.show(f"{text}: {answered} of {len(asked)} upstreams", share=share)

    return await request_check(caller, asked, check, tell=tell)
