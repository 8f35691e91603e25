"""File descriptors: how many a worker has, and what it may spend them on.

Every client's connection takes one, and every connection to an upstream. Where none is left accept(2) and socket(2)
fail, and who is hit is chance. So it is not left to come to that: a worker reckons at its start how many connections its
descriptors are enough for, and treats half of that as `limits.connections` where it is less. Kept back are descriptors
for its own files (links, logs, sockets that are handed down), and for the connections that the kernel has ready at one
time, each of which takes one before anybody can say no to it.

The controller, with the admin API, is a process of its own with descriptors of its own: no client of a worker can take them.
"""

from __future__ import annotations

import os
import resource
from typing import Final

#: For a worker's own files, beside those that it has open at its start.
OWN: Final = 64
#: Connections that may wait to be accepted at a listener, where descriptors are plenty and where they are few.
BACKLOG: Final = 4096
LEAST_BACKLOG: Final = 16

#: What a worker has open at its start where /proc does not say.
_USUAL: Final = 64


def needed(clients: int, listeners: int) -> int:
    """Descriptors with which a worker can serve so many clients, each with a connection to an upstream."""
    return 2 * clients + listeners * BACKLOG + OWN + _USUAL


def divide(files: int, taken: int, clients: int, listeners: int) -> tuple[int, int]:
    """What `files` descriptors, of which `taken` are in use, are for.

    Returns:
        How many client and upstream connections there may be together, and how many may wait at each listener.
        Where descriptors are too few for `clients`, fewer connections wait, so that more are served.
    """
    listeners = max(listeners, 1)
    free = files - taken - OWN
    if free - listeners * BACKLOG >= 2 * clients:
        return free - listeners * BACKLOG, BACKLOG
    free = max(files - taken - min(OWN, files // 8), 2)
    backlog = min(max(free // (4 * listeners), LEAST_BACKLOG), BACKLOG)
    return max(free - listeners * backlog, free // 2), backlog


def allowed() -> int:
    """How many this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft


def in_use() -> int:
    """How many it has."""
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names alone are wanted
    except OSError:
        return _USUAL
