"""What the controller counts of its own doing since it started: switches and how they ended, how long they and drains took."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final, Literal

from bgproxy.model.deployment import ENDED
from bgproxy.model.pool import POOLS

#: Seconds. A switch is one store behind an fsync; a drain takes as long as its slowest request, or its deadline.
SWITCH_BOUNDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
DRAIN_BOUNDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)

Result = Literal["switched", "rolled_back", "refused", "failed"]
#: How deployments end.
ENDS: Final = tuple(sorted(state.value for state in ENDED))
RESULTS: Final[tuple[Result, ...]] = ("switched", "rolled_back", "refused", "failed")


class Durations:
    """A histogram: how many took up to each bound, which are seconds; the last count is of those above all bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


class Tallies:
    """By service."""

    def __init__(self) -> None:
        self.changes: Counter[tuple[str, Result]] = Counter()
        self.switch_seconds: defaultdict[str, Durations] = defaultdict(lambda: Durations(SWITCH_BOUNDS))
        self.drain_seconds: defaultdict[str, Durations] = defaultdict(lambda: Durations(DRAIN_BOUNDS))
        self.mismatches: Counter[tuple[str, str]] = Counter()  # answers of an idle pool
        self.deployments: Counter[tuple[str, str]] = Counter()  # that have ended, by the state that they ended in
        self.admin_evicted = 0  # connections to the admin API that made room for others

    def evicted(self) -> None:
        """A connection to the admin API made room for another."""
        self.admin_evicted += 1

    def changed(self, service: str, result: Result, seconds: float | None = None) -> None:
        """A switch or rollback ended so; `seconds` from its request to its commit, if it came so far."""
        self.changes[service, result] += 1
        if seconds is not None:
            self.switch_seconds[service].observe(seconds)

    def deployed(self, service: str, state: str) -> None:
        """A deployment has ended in this state."""
        self.deployments[service, state] += 1

    def mismatched(self, service: str, pool: str) -> None:
        """An idle pool has answered a mirrored request in another way than the live one."""
        self.mismatches[service, pool] += 1

    def drained(self, service: str, seconds: float) -> None:
        """A pool of the service was drained."""
        self.drain_seconds[service].observe(seconds)

    def forget(self, service: str) -> None:
        """The service is gone from the configuration."""
        for result in RESULTS:
            self.changes.pop((service, result), None)
        for state in ENDS:
            self.deployments.pop((service, state), None)
        for pool in POOLS:
            self.mismatches.pop((service, pool), None)
        self.switch_seconds.pop(service, None)
        self.drain_seconds.pop(service, None)
