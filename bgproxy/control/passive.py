"""Passive ejection: what live requests meet decides whether an upstream is left alone for a while."""

from __future__ import annotations

from collections import deque

from bgproxy.config.schema import Passive


class Window:
    """The failures of one upstream within the last `within` seconds."""

    def __init__(self, settings: Passive) -> None:
        self.settings = settings
        self._failures: deque[tuple[float, int]] = deque()
        self._total = 0

    def failed(self, now: float, count: int = 1) -> bool:
        """Note `count` failures at `now` (monotonic seconds); True when the threshold is reached, which starts anew."""
        self._failures.append((now, count))
        self._total += count
        while self._failures and self._failures[0][0] <= now - self.settings.within:
            self._total -= self._failures.popleft()[1]
        if self._total < self.settings.failures:
            return False
        self._failures.clear()
        self._total = 0
        return True


def most_ejected(settings: Passive, pool_size: int) -> int:
    """How many upstreams of a pool may be ejected at a time: `max_ejected` of them, rounded down.

    So the only upstream of a pool never is: an ejection would turn some errors into nothing but errors.
    """
    return int(pool_size * settings.max_ejected / 100)
