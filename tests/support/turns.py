"""Which tests of a run with several processes (pytest -n) may run side by side: all but those that are marked `alone`.

Two files are locked, with flock(2), which the kernel gives back when a process ends in whatever way. Everybody shares the room,
who is alone has it to itself. The door is passed by one at a time, and held by who waits for an empty room, so that newcomers
cannot keep it full for ever.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Turns:
    """One process's part; all that name the same directory take turns with each other."""

    def __init__(self, directory: Path) -> None:
        self._door = directory / "door.lock"
        self._room = directory / "room.lock"

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Beside others, and beside nobody who is alone; waits for that, without a deadline: a test's own time-out ends it."""
        with self._room.open("ab") as room:
            with self._door.open("ab") as door:
                fcntl.flock(door, fcntl.LOCK_EX)
                fcntl.flock(room, fcntl.LOCK_SH)
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Beside nobody; waits until those who are under way have ended, while others wait behind."""
        with self._door.open("ab") as door, self._room.open("ab") as room:
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(room, fcntl.LOCK_EX)
            yield
