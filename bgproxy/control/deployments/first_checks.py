"""What a deployment waits for after a restart: that the first checks have told who is up.

A controller that has just begun holds no pool fit to be live, for nobody has been asked yet. A switch would be refused for that, and
worse, so would the way back from a bad pool.
"""

from __future__ import annotations

from typing import Final

from bgproxy.control.deployments.stage import Run
from bgproxy.control.registry import Pool
from bgproxy.model.deployment import DeploymentState
from bgproxy.model.upstream import UpstreamState

#: Seconds that it waits at the most, and between two looks.
WITHIN: Final = 10.0
LOOK: Final = 0.02


async def first_checks(run: Run) -> None:
    """End when it is known of both pools; of the old one alone, and as soon as one of it is up, where users are on a bad pool."""
    back = run.record.state is DeploymentState.ROLLING_BACK
    until = run.clock.now() + WITHIN
    while run.clock.now() < until:
        if not any(map(_is_checking, (run.old,) if back else run.service.pools)) or (back and run.old.has_one_up):
            return
        run.show("waits for the first checks after a restart")
        await run.clock.sleep(LOOK)


def _is_checking(pool: Pool) -> bool:
    return any(upstream.state is UpstreamState.CHECKING for upstream in pool.upstreams)
