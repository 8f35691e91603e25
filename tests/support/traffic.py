"""Traffic that nobody sends: what a worker would have counted, put into its cells; and a clock by which it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from support.deployments import FakeClock

from bgproxy.switchboard import layout
from bgproxy.switchboard.board import Switchboard

BLUE, GREEN = 0, 1


class Traffic:
    """The cells of worker 0, for the service in `slot`."""

    def __init__(self, board: Switchboard, slot: int = 0) -> None:
        self.board = board
        self.slot = slot

    def count(self, pool: int, cell: int, more: int = 1) -> None:
        area = self.board.area(0)
        area[layout.pool_base(self.slot, pool) + cell] += more
        area.release()

    def set(self, pool: int, cell: int, value: int) -> None:
        area = self.board.area(0)
        area[layout.pool_base(self.slot, pool) + cell] = value
        area.release()

    def answered(self, pool: int, count: int, *, code: int = 200, seconds: float = 0.02, preview: bool = False) -> None:
        """So many requests came to their end; `preview`: they had named their pool."""
        if count:
            self.count(pool, layout.CODES + layout.code_cell(code), count)
            self.count(pool, layout.BUCKETS + layout.bucket_of(seconds), count)
        if preview:
            self.count(pool, layout.PREVIEWED, count)
            self.count(pool, layout.PREVIEW_BUCKETS + layout.bucket_of(seconds), count)
            self.count(pool, layout.PREVIEWED_FAILED, count if code >= 500 else 0)


class TrafficClock(FakeClock):
    """Time that brings traffic: `traffic(now, seconds)` is called for each piece of time that passes."""

    def __init__(self, traffic: Callable[[float, float], None] = lambda _now, _seconds: None) -> None:
        super().__init__()
        self.traffic = traffic

    async def sleep(self, seconds: float) -> None:
        self.at += seconds
        self.slept += seconds
        self.traffic(self.at, seconds)
        await asyncio.sleep(0)
