"""The supervisor's children: what it knows of each, and how one is forked."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, NoReturn

from bgproxy.process.backoff import Backoff
from bgproxy.process.leash import Leash
from bgproxy.process.signals import CAUGHT, forget_in_child

#: Exit status of a child that an unforeseen error ended (EX_SOFTWARE of sysexits.h).
BROKEN: Final = 70


@dataclass(slots=True)
class Child:
    """One child over all its lives."""

    role: Literal["controller", "worker"]
    index: int  # of a worker; 0 for the controller
    pid: int | None = None  # None while it is down
    leash: Leash | None = None
    serving: bool = False  # it has said so, in this life
    started_at: float = 0.0  # monotonic, seconds
    due: float | None = 0.0  # when to start it next; None: not now
    restarts: int = 0
    backoff: Backoff = field(default_factory=Backoff)

    @property
    def name(self) -> str:
        """`controller`, `worker 3`."""
        return self.role if self.role == "controller" else f"worker {self.index}"

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs. Its pid cannot have become another's: it is not reaped before `died`."""
        if self.pid is not None:
            os.kill(self.pid, number)

    def died(self, now: float) -> float:
        """Note its death; returns the seconds to wait before its next life."""
        if self.leash is not None:
            self.leash.close()
        self.pid, self.leash, self.serving = None, None, False
        delay = self.backoff.after(now - self.started_at)
        self.due = now + delay
        return delay


def fork(name: str, main: Callable[[], int]) -> int:
    """Run `main` in a child, whose exit status is what it returns; the pid of the child.

    Raises:
        OSError: the system has no room for another process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal between fork and `forget_in_child` would be noted by the child where its parent should have seen it.
    former = signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
    try:
        pid = os.fork()
        if pid == 0:
            _live(name, main, former)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
    return pid


def _live(name: str, main: Callable[[], int], mask: set[int | signal.Signals]) -> NoReturn:
    """The child's whole life. It never returns into the supervisor's frames."""
    status = BROKEN
    try:
        forget_in_child()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        gc.enable()
        status = main()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else BROKEN
    except BaseException:
        logging.getLogger("bgproxy.supervisor").critical("%s ended by an error", name, exc_info=True)
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def how_it_ended(wait_status: int) -> str:
    """`exit status 1`, `killed by SIGKILL`."""
    code = os.waitstatus_to_exitcode(wait_status)
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-code}"
