"""Forking, and what is known of a child."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable

import pytest

from bgproxy.process.children import BROKEN, Child, fork, how_it_ended
from bgproxy.process.leash import Leash


def end_of(main: Callable[[], int]) -> str:
    pid = fork("child", main)
    return how_it_ended(os.waitpid(pid, 0)[1])


def kill_me() -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def break_down() -> int:
    raise RuntimeError("unforeseen")


@pytest.mark.parametrize(
    ("main", "how"),
    [
        (lambda: 0, "exit status 0"),
        (lambda: 7, "exit status 7"),
        (kill_me, "killed by SIGKILL"),
        (break_down, f"exit status {BROKEN}"),
        (lambda: sys.exit(3), "exit status 3"),
    ],
)
def test_how_a_child_ends(main, how):
    """What `main` returns is the exit status; an error never gets back into the parent's code."""
    assert end_of(main) == how


def test_signals_are_not_blocked_after_a_fork():
    """They are held back only over the fork itself, in both processes."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert end_of(lambda: 0 if signal.pthread_sigmask(signal.SIG_BLOCK, []) == before else 1) == "exit status 0"
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_a_death_clears_the_life_and_plans_the_next():
    """The leash is closed, and the next life is due after the back-off."""
    ours, theirs = socket.socketpair()
    child = Child("worker", 3, pid=1, leash=Leash(ours), serving=True, started_at=100.0, due=None)
    assert child.name == "worker 3"
    assert child.died(101.0) == 0.0
    assert (child.pid, child.leash, child.serving, child.due) == (None, None, False, 101.0)
    assert ours.fileno() == -1
    child.started_at = 101.0
    assert child.died(102.0) == 0.1
    assert child.due == pytest.approx(102.1)
    theirs.close()


def test_a_signal_to_nobody_goes_nowhere():
    """A child that is down is not signalled."""
    Child("controller", 0).signal(signal.SIGKILL)
