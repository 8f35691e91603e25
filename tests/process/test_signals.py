"""Signals of the supervisor."""

from __future__ import annotations

import os
import select
import signal

from bgproxy.process.signals import CAUGHT, Signals, forget_in_child


def test_signals_are_noted_in_order_and_wake_a_wait():
    """`select` returns, and `take` says what came, once."""
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        assert select.select([signals], [], [], 5)[0] == [signals]
        assert signals.take() == [signal.SIGHUP, signal.SIGTERM]
        assert signals.take() == []
        assert select.select([signals], [], [], 0)[0] == []


def test_a_storm_loses_no_signal():
    """When the wake-up buffer is full, later signals are noted all the same."""
    with Signals() as signals:
        for _ in range(5000):
            os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        taken = signals.take()
        assert taken[-1] == signal.SIGTERM
        assert select.select([signals], [], [], 0)[0] == []


def test_handlers_are_put_back():
    """Afterwards the process answers signals as before."""
    before = [signal.getsignal(number) for number in CAUGHT]
    with Signals():
        assert [signal.getsignal(number) for number in CAUGHT] != before
    assert [signal.getsignal(number) for number in CAUGHT] == before


def test_a_child_answers_signals_on_its_own():
    """A forked child ignores what a terminal sends to the group, and can be ended by SIGTERM from its first moment."""
    with Signals():
        pid = os.fork()
        if pid == 0:
            forget_in_child()
            expected = [signal.SIG_DFL, signal.SIG_IGN, signal.SIG_IGN, signal.SIG_IGN, signal.SIG_DFL]
            os._exit(0 if [signal.getsignal(number) for number in CAUGHT] == expected else 1)
        assert os.waitpid(pid, 0)[1] == 0
