"""Waiting until nothing is left on the old pool that began there; the switch has begun that drain, and its deadlines end it."""

from __future__ import annotations

import asyncio
from typing import Final

from bgproxy.control.deployments.stage import Run
from bgproxy.control.draining import Drained
from bgproxy.control.registry import Pool
from bgproxy.model.deployment import Result
from bgproxy.model.pool import index_of

#: Seconds between two looks.
POLL: Final = 0.1


async def until_drained(run: Run, pool: Pool) -> Drained | None:
    """Wait for the end of a pool's drain, and show what is left; None if it does not drain."""
    index = index_of(pool.name)
    ending = run.hands.drains.ending(run.service.name, index)
    if ending is None:
        return None
    while not ending.done():
        waited = run.hands.drains.of(run.service.name, index)
        left = sum(waited.in_flight()) if waited is not None else 0
        run.show(f"{pool.name} drains: {left} in flight", in_flight=left)
        await asyncio.wait({ending}, timeout=0)
        await run.clock.sleep(POLL)
    return ending.result()


async def drain(run: Run) -> None:
    """End when the drain of the old pool has; what was cut at a deadline is in the result, and halts nothing."""
    began = run.clock.now()
    drained = await until_drained(run, run.old)
    if drained is None:
        return
    cut = sum(drained.cut)
    run.keep(
        Result(
            stage="draining",
            name=f"drain of {run.old.name}",
            ok=not cut and drained.complete,
            expected="all of it ends by itself",
            found=f"{sum(drained.ended)} ended, {cut} were cut" + ("" if drained.complete else ", not all of it ended"),
            seconds=round(run.clock.now() - began, 3),
        )
    )
