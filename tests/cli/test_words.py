"""Numbers, times and states in words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bgproxy.cli.words import ago, duration, in_classes, listed, plural, printable


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "0.0 s"),
        (0.44, "0.4 s"),
        (12.4, "12 s"),
        (59.7, "1m 0s"),
        (298.8, "4m 59s"),
        (11400, "3h 10m"),
        (187200, "2d 4h"),
    ],
)
def test_duration(seconds, said):
    """Two units at the most."""
    assert duration(seconds) == said


def test_ago():
    """Times with any offset, without one, none at all, and what is no time."""
    now = datetime(2024, 1, 1, 12, 0, 30, tzinfo=UTC)
    assert ago("2024-01-01T12:00:00Z", now) == "30 s"
    assert ago("2024-01-01T13:00:00+01:00", now) == "30 s"
    assert ago("2024-01-01T12:00:00", now) == "30 s"
    assert ago(None, now) == ""
    assert ago("yesterday", now) == "yesterday"


def test_counts():
    """Singular, plural, and only the classes that have something."""
    assert plural(1, "worker") == "1 worker"
    assert plural(0, "worker") == "0 workers"
    assert in_classes({"requests": 1, "streams": 0, "websockets": 2}) == "1 request, 2 websockets"
    assert in_classes({}) == ""


def test_listed():
    """As one would say it."""
    assert [listed(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]


def test_printable():
    """No text from elsewhere moves the cursor."""
    assert printable("caf\u00e9 \x1b[2J\n") == "caf\u00e9 ?[2J?"
