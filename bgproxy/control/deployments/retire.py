"""Retiring: after the stand-by time the command or webhook that takes the old pool's servers away is called, once."""

from __future__ import annotations

from typing import Final

from bgproxy.config.units import format_duration
from bgproxy.control.deployments.hooks import call
from bgproxy.control.deployments.stage import Run
from bgproxy.model.deployment import Result

#: Seconds between two looks.
POLL: Final = 0.5
#: Less than this a clock may not know of.
LEAST: Final = 0.001


async def retire(run: Run) -> None:
    """Wait for the stand-by time, counted from the step into this state, and call the hook. Its failure is told, and halts nothing.

    A hook that a restart has cut short is not called again: how far it came is for the operator to see. Nor is one called when the
    old pool is live again.
    """
    settings = run.settings.retire
    if settings is None:
        return
    state = run.record.state.value
    if run.record.memory.get("retire") == "running":
        found = f"bgproxy was restarted while it ran; see what became of {run.old.name}"
        run.keep(Result(stage=state, name="retire", ok=False, expected="it ends", found=found))
        return
    until = run.clock.now() + run.left_of(settings.after)
    while (left := until - run.clock.now()) > 0:
        share = 1 - left / settings.after
        run.show(
            f"{run.old.name} stands by, and is retired in {format_duration(round(left) or 1)}",
            share,
            left=round(left, 1),
        )
        await run.clock.sleep(max(min(POLL, left), LEAST))
    if not settings.run and not settings.webhook:
        return
    await run.remember(retire="running")
    if run.service.live != run.target:
        found = f"{run.old.name} is live, so it was not retired"
        run.keep(Result(stage=state, name="retire", ok=False, expected=f"{run.idle.name} is live", found=found))
        return
    run.show(f"retires {run.old.name}")
    result = await call(
        run, run_command=settings.run, webhook=settings.webhook, timeout=settings.timeout, stage=state, name="retire"
    )
    run.keep(result)
