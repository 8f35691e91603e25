"""Signals of the supervisor, as something that `select` can wait for.

The handlers only note the number; a wake-up descriptor ends the wait. So a signal that comes at any moment is
handled at one place of the loop, and a storm that fills the descriptor's buffer loses nothing.
"""

from __future__ import annotations

import signal
import socket
from types import FrameType
from typing import Final, Self

#: What the supervisor catches.
CAUGHT: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)


class Signals:
    """Catches SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGCHLD from `__enter__` to `__exit__`. Main thread only."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._pending: list[int] = []
        self._former: dict[int, object] = {}
        self._former_wakeup = -1

    def __enter__(self) -> Self:
        self._former_wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in CAUGHT:
            self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # type: ignore[arg-type] # it is what signal() returned
        signal.set_wakeup_fd(self._former_wakeup)
        self.close()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._pending.append(number)

    def fileno(self) -> int:
        """Readable when signals have come."""
        return self._reader.fileno()

    def take(self) -> list[int]:
        """The signals that have come since the last call, in order."""
        try:
            while self._reader.recv(4096):
                pass
        except BlockingIOError:
            pass
        taken, self._pending = self._pending, []
        return taken

    def close(self) -> None:
        """Close the descriptors; for a child, whose parent goes on using its own."""
        self._reader.close()
        self._writer.close()


def forget_in_child() -> None:
    """What a forked child does first: it must not answer signals as its parent would.

    SIGTERM ends it until it has a handler of its own. SIGINT and SIGHUP of a terminal go to the whole process group, but
    it is for the supervisor to say what happens then. SIGUSR1 may come before a worker has a log that it could reopen.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
