"""How long to wait before a crashed child is started again."""

from __future__ import annotations

from typing import Final

FIRST: Final = 0.1  # seconds, before the second restart in a row; the first is at once
LONGEST: Final = 5.0
GOOD_RUN: Final = 10.0  # a child that ran so long was well: its next crash counts as the first


class Backoff:
    """The crashes of one child: at once, then 0.1 s, doubling to 5 s; forgotten after a good run."""

    def __init__(self) -> None:
        self._crashes = 0

    def after(self, ran: float) -> float:
        """Seconds to wait after a crash that ended a run of `ran` seconds."""
        if ran >= GOOD_RUN:
            self._crashes = 0
        self._crashes += 1
        if self._crashes == 1:
            return 0.0
        # The exponent is bounded, or a child that crashes all week would make a number without end.
        return min(FIRST * 2.0 ** min(self._crashes - 2, 16), LONGEST)
