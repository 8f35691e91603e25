"""The switching stage: all the traffic in one instant, or a share of the clients first.

    all-at-once   one switch
    canary        `percent` of the clients for `for`, then all (Argo Rollouts' setWeight and pause, CodeDeploy's Canary)
    linear        `step` more of them `every` so often, then all (CodeDeploy's Linear)

A share is in the switchboard's word: all workers have it at once, and a client stays on its side (`bgproxy.proxy.canary`). Each step
is judged by the rules of the bake.
"""

from __future__ import annotations

from functools import partial

from bgproxy.config.schema import Strategy
from bgproxy.control.deployments.bake import baseline, watch
from bgproxy.control.deployments.patience import patiently
from bgproxy.control.deployments.stage import Run
from bgproxy.model.deployment import Result


def steps_of(strategy: Strategy) -> list[tuple[int, float]]:
    """The shares before the whole, in per cent, and for how many seconds each."""
    if strategy.type == "canary":
        return [(round(strategy.percent), strategy.for_)]
    if strategy.type == "linear":
        step = round(strategy.step)
        return [(share, strategy.every) for share in range(step, 100, step)]
    return []


def duration(strategy: Strategy) -> float:
    """Seconds that the steps take."""
    return sum(seconds for _, seconds in steps_of(strategy))


async def flip(run: Run) -> None:
    """Make the target live."""
    began = run.clock.now()
    switcher = run.hands.switcher
    verify = run.settings.verify
    enough = 100.0 if verify is None else verify.healthy
    await run.remember(before=baseline(run))
    for share, seconds in steps_of(run.settings.strategy):
        await patiently(run, partial(switcher.split, run.service, share, actor=run.actor, enough=enough))
        run.show(f"{share}% of the clients go to {run.idle.name}", share=share / 100)
        await watch(run, seconds, since=began)
    targets = {run.service.name: run.record.target}
    (result,) = await patiently(
        run, partial(switcher.switch, targets, actor=run.actor, reason=run.record.reason, enough=enough)
    )
    run.keep(
        Result(
            stage="switching",
            name="switch",
            ok=True,
            found=f"{run.record.target} is live, {result.switched_in_ms:.1f} ms after it was asked for",
            seconds=round(run.clock.now() - began, 3),
        )
    )
