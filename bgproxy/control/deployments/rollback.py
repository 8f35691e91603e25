"""The way back, by itself: all the traffic on the old pool again. Once, and only onto a pool that can answer."""

from __future__ import annotations

from typing import Final

from bgproxy.control.deployments.stage import Halted, Run
from bgproxy.errors import Busy, NotHealthy, Refused, StateError, Unavailable

#: Seconds for which it is tried again when another change of the service runs, or a worker or the disk does not do its part.
WITHIN: Final = 30.0

#: Seconds between two tries.
AGAIN: Final = 0.1


async def roll_back(run: Run) -> None:
    """Have all traffic on the old pool; nothing is done where it is there already. The cause is the record's last `why`.

    Raises:
        Halted: the old pool has no upstream up, or it could not be done within `WITHIN` seconds.
    """
    until = run.clock.now() + WITHIN
    while True:
        try:
            await _back(run)
        except (NotHealthy, Refused) as error:
            if not isinstance(error, Busy):
                raise Halted(f"{run.old.name} is not fit to be live: {error}", tuple(error.details)) from None
            cause = str(error)
        except (Unavailable, StateError) as error:
            cause = str(error)
        else:
            return
        if run.clock.now() >= until:
            raise Halted(cause)
        run.show(f"tries again: {cause}")
        await run.clock.sleep(AGAIN)


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
