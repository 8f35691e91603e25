"""Waiting for somebody to say yes, where the configuration asks for that."""

from __future__ import annotations

from typing import Final

from bgproxy.config.units import format_duration
from bgproxy.control.deployments.stage import NotApproved, Run

#: Seconds between two looks.
POLL: Final = 0.1
#: Less than this a clock may not know of.
LEAST: Final = 0.001


async def await_approval(run: Run) -> None:
    """End when somebody has approved; raises `NotApproved` when nobody has in time, counted from the first time it asked."""
    run.approved.clear()
    limit = run.settings.approve.timeout
    until = run.clock.now() + run.left_of(limit)
    run.waits = True
    try:
        while not run.approved.is_set():
            left = until - run.clock.now()
            if left <= 0:
                raise NotApproved(f"nobody approved it within {format_duration(limit)}")
            run.show("waits for `bgproxy approve`", left=round(left, 1))
            await run.clock.sleep(max(min(POLL, left), LEAST))
    finally:
        run.waits = False
