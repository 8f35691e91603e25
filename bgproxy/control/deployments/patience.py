"""What a stage does of changes to the service: again, where only the moment is wrong.

A reload claims all services for as long as the workers and the disk take, an upstream that is taken out by hand one of them; a
worker that has just been started is late with its answer. None of this is a reason to fail a deployment that all checks have passed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from bgproxy.control.deployments.stage import Run
from bgproxy.errors import BgproxyError, Busy, Unavailable

T = TypeVar("T")

#: Seconds for which it is tried again, and between two tries.
WITHIN: Final = 10.0
AGAIN: Final = 0.1

#: What passes by itself.
PASSING: Final = (Busy, Unavailable)


async def patiently(
    run: Run,
    change: Callable[[], Awaitable[T]],
    *,
    within: float = WITHIN,
    passing: tuple[type[BgproxyError], ...] = PASSING,
) -> T:
    """Make a change; once more, for `within` seconds, where one of `passing` is raised. Raises the last of these, and all others at once."""
    until = run.clock.now() + within
    while True:
        try:
            return await change()
        except passing as error:
            if run.clock.now() >= until:
                raise
            run.show(f"tries again: {error}")
        await run.clock.sleep(AGAIN)
