"""Passive ejection: when it is due, and how many at a time."""

from __future__ import annotations

import pytest

from bgproxy.config.schema import Passive
from bgproxy.control.passive import Window, most_ejected


def test_the_threshold_within_the_window_is_reached_once():
    """Then the count begins anew: an upstream that comes back is not ejected for what it did before."""
    window = Window(Passive(failures=3, within=10.0))
    assert [window.failed(float(now)) for now in range(7)] == [False, False, True, False, False, True, False]


def test_failures_that_are_too_old_do_not_count():
    """A failure now and then never ejects anybody; one that is exactly `within` old is over."""
    window = Window(Passive(failures=2, within=10.0))
    assert [window.failed(now) for now in (0.0, 10.0, 20.0, 29.9)] == [False, False, False, True]


def test_failures_that_were_reported_together_all_count():
    """A worker gathers those of a tenth of a second."""
    window = Window(Passive(failures=5, within=10.0))
    assert not window.failed(0.0, 4)
    assert window.failed(1.0, 1)
    assert window.failed(2.0, 50)


@pytest.mark.parametrize(
    ("share", "size", "most"), [(50, 1, 0), (50, 2, 1), (50, 3, 1), (100, 1, 1), (0, 9, 0), (33, 3, 0), (34, 3, 1)]
)
def test_never_more_than_the_share_rounded_down(share, size, most):
    """Half of one is none: the only upstream of a pool stays."""
    assert most_ejected(Passive(max_ejected=float(share)), size) == most
