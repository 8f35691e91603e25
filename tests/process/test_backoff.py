"""The waits between the lives of a child that crashes."""

from __future__ import annotations

from bgproxy.process.backoff import Backoff


def test_first_restart_is_at_once_then_doubles_to_5_s():
    """0, then 0.1 s doubling, and never more than 5 s."""
    backoff = Backoff()
    assert [backoff.after(0.01) for _ in range(9)] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_good_run_is_forgiven():
    """After 10 s of running, the next crash counts as the first."""
    backoff = Backoff()
    for _ in range(5):
        backoff.after(9.9)
    assert backoff.after(10.0) == 0.0
    assert backoff.after(9.9) == 0.1


def test_crashing_for_a_year_stays_finite():
    """The wait stays 5 s however often it happens."""
    backoff = Backoff()
    assert {backoff.after(0.0) for _ in range(5000)} >= {5.0}
    assert backoff.after(0.0) == 5.0
