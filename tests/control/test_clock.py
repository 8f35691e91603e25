"""Moments as text."""

from __future__ import annotations

import re

from bgproxy.control.clock import rfc3339


def test_a_moment_is_utc_with_milliseconds():
    """RFC 3339 with a Z, whatever the machine's zone is."""
    assert rfc3339(0.5) == "1970-01-01T00:00:00.500Z"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", rfc3339())
