"""The way back, by itself: all the traffic on the old pool again. Once, and only onto a pool that can answer."""

from __future__ import annotations

from functools import partial
from typing import Final

from bgproxy.control.deployments.patience import patiently
from bgproxy.control.deployments.stage import Halted, Run
from bgproxy.errors import Busy, NotHealthy, Refused, StateError, Unavailable

#: Seconds for which it is tried again: when another change of the service runs, a worker or the disk does not do its part, or no
#: upstream of the old pool is up, which on a machine that is out of breath may be for a moment only.
WITHIN: Final = 30.0
PASSING: Final = (Busy, NotHealthy, Unavailable, StateError)


async def roll_back(run: Run) -> None:
    """Have all traffic on the old pool; nothing is done where it is there already. The cause is the record's last `why`.

    Raises:
        Halted: the old pool has no upstreams, or it could not be done within `WITHIN` seconds.
    """
    try:
        await patiently(run, partial(_back, run), within=WITHIN, passing=PASSING)
    except (Busy, Unavailable, StateError) as error:
        raise Halted(str(error)) from None
    except Refused as error:
        raise Halted(f"{run.old.name} is not fit to be live: {error}", tuple(error.details)) from None


async def _back(run: Run) -> None:
    switcher, service = run.hands.switcher, run.service
    if service.live != run.target:
        if switcher.share(service):
            await switcher.split(service, 0, actor=run.actor)
            run.show(f"{run.old.name} has all the traffic again")
        return
    why = run.record.steps[-1].why if run.record.steps else ""
    await switcher.rollback(service.name, actor=run.actor, reason=why)
    run.show(f"{run.old.name} is live again")
