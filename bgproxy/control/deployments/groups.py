"""Groups of processes: whether one lives, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

#: Seconds that a group has to end at SIGTERM, and again at SIGKILL.
GRACE: Final = 3.0
#: Seconds until the first look at whether it has ended, which nothing tells; each next wait is twice as long.
POLL: Final = 0.02


def send(group: int, number: int) -> bool:
    """Send a signal to all of it; False if there was nobody to get it."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def lives(group: int) -> bool:
    """Whether a process of the group has not ended. Zombies have, and may be there for long: in a container there may be no init."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its_group = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]  # proc(5)
            if int(its_group) == group and state not in ("Z", "X"):
                return True
    return False


async def end(group: int, lives: Callable[[int], bool] = lives) -> bool:
    """End it: asked first, then told; whether it has ended. Whoever is cancelled meanwhile has it told at once."""
    send(group, signal.SIGTERM)
    try:
        await _gone(group, lives)
    finally:
        if lives(group):
            send(group, signal.SIGKILL)
    return await _gone(group, lives)


async def _gone(group: int, lives: Callable[[int], bool]) -> bool:
    """Whether it ends within `GRACE` seconds."""
    loop = asyncio.get_running_loop()
    until = loop.time() + GRACE
    wait = POLL
    while lives(group):
        left = until - loop.time()
        if left <= 0:
            return False
        await asyncio.sleep(min(wait, left))
        wait *= 2
    return True
