"""What GETs have asked for of late: a sample, bounded, which forgets by halves. A warm-up of the idle pool replays it."""

from __future__ import annotations

from typing import Final

#: Targets that are kept, and the longest one that is: at the most so much is held for a service.
MOST: Final = 512
LONGEST: Final = 1024

#: One request in so many is looked at, on average. The gaps vary, so that a page's pictures, always the same number of them, do not hide the page.
ONE_IN: Final = 8


class Recent:
    """Of one service, in one worker."""

    def __init__(self) -> None:
        self.counts: dict[bytes, int] = {}
        self._left = 1  # requests until the next one that is looked at
        self._turn = 1

    def see(self, method: bytes, target: bytes) -> None:
        """A live request has come."""
        self._left -= 1
        if self._left > 0:
            return
        # Gaps of 1 to 15, 8 on average: a linear congruential generator (Numerical Recipes, 2nd edition, chapter 7.1).
        self._turn = (self._turn * 1664525 + 1013904223) & 0xFFFFFFFF
        self._left = 1 + (self._turn >> 16) % (2 * ONE_IN - 1)
        if method != b"GET" or len(target) > LONGEST:
            return
        counts = self.counts
        count = counts.get(target, 0)
        if not count and len(counts) >= MOST:
            self.halve()
            if len(counts) >= MOST:
                return  # all of them are asked for more often than this one
        counts[target] = count + 1

    def halve(self) -> None:
        """A minute has passed, or there are too many: what was asked for once is forgotten, the rest weighs half."""
        for target, count in list(self.counts.items()):
            if count > 1:
                self.counts[target] = count // 2
            else:
                del self.counts[target]

    def most(self, limit: int) -> tuple[tuple[str, int], ...]:
        """Those that were seen most, the most first."""
        pairs = [(-count, target) for target, count in self.counts.items()]
        pairs.sort()
        return tuple([(target.decode("latin-1"), -count) for count, target in pairs[:limit]])
