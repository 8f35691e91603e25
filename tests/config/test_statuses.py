"""Sets of status codes."""

from __future__ import annotations

import pytest

from bgproxy.config.statuses import parse_statuses


def test_statuses():
    """Single statuses and ranges, with commas, both ends included."""
    ranges = parse_statuses("200, 204,300 - 399")
    inside = [status for status in range(100, 600) if any(status in part for part in ranges)]
    assert inside == [200, 204, *range(300, 400)]


@pytest.mark.parametrize(
    "text", ["", ",", "200,", "2xx", "20", "2000", "199", "600", "100-200", "399-200", "-200", "200-"]
)
def test_what_is_no_set_of_statuses(text):
    """Anything else is refused with a text."""
    with pytest.raises(ValueError, match=r"write|are 200 to 599"):
        parse_statuses(text)
