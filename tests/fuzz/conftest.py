"""How much hypothesis tries: `suite`, the same few cases every time; `long` (HYPOTHESIS_PROFILE=long), new ones for minutes."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_NO_CLOCK = (
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.filter_too_much,
    HealthCheck.large_base_example,
)
settings.register_profile(
    "suite", max_examples=100, derandomize=True, database=None, deadline=None, suppress_health_check=_NO_CLOCK
)
settings.register_profile("long", max_examples=20_000, database=None, deadline=None, suppress_health_check=_NO_CLOCK)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))
