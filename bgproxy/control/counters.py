"""What the workers counted, summed: read from their cells on the switchboard whenever somebody asks.

**Counters** (requests, bytes, durations) only ever grow within a cell: a worker that takes a dead one's place goes on
where the cells stand. So the sum over all workers is what there was, minus the *baseline*: what stood there when the slot was
given to its present holder.

**Gauges** (in flight, sessions, connections) of a worker that is dead mean nothing: only those of living workers count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from bgproxy.model.classes import CLASS_NAMES
from bgproxy.model.pool import index_of
from bgproxy.switchboard import layout
from bgproxy.switchboard.board import Switchboard

_CLASSES: Final = len(CLASS_NAMES)
_PREVIEWS: Final = layout.PREVIEW_BUCKETS + layout.BUCKET_COUNT - layout.PREVIEWED


@dataclass(frozen=True, slots=True)
class PoolCounts:
    """A pool's counters since its service came."""

    codes: dict[int, int]  # requests by status, those that occurred
    buckets: list[int]  # of `layout.BUCKET_BOUNDS`, not cumulative; the last is +Inf
    duration_seconds: float
    bytes_in: int
    bytes_out: int
    retries: int
    cut: tuple[int, ...]  # by class
    streams: int = 0  # connections of a tcp service that have ended
    streams_failed: int = 0  # of those, the ones that no upstream could be reached for
    mirrored: int = 0  # requests that were given to the controller to be repeated
    mirror_dropped: int = 0  # sampled ones that were not
    previewed: int = 0  # of all these requests, those that named their pool
    previewed_failed: int = 0  # with 5xx
    preview_buckets: tuple[int, ...] = (0,) * layout.BUCKET_COUNT

    @property
    def requests(self) -> int:
        """All answers to clients."""
        return sum(self.codes.values())


@dataclass(frozen=True, slots=True)
class ProgramCounts:
    """Counters that belong to no service."""

    accepted: int
    refused: int
    unmatched: int
    bad_requests: int
    log_dropped: int
    limits: tuple[int, ...]  # what limits and time-outs have ended: see `layout.W_LIMITS`
    tls_failed: int = 0  # handshakes
    tls_timeouts: int = 0
    unintroduced: int = 0  # connections without a good PROXY header, where one is expected


class Counters:
    """Read-only views. `slot_of` says which slot a service has; `living` which workers' gauges count."""

    def __init__(self, board: Switchboard, slot_of: Callable[[str], int], living: Callable[[], Iterable[int]]) -> None:
        self._cells = board.cells
        self._workers = range(board.workers)
        self._slot_of = slot_of
        self._living = living
        self._baselines: dict[int, list[int]] = {}  # by slot * 2 + pool; none where the slot was new

    # --- by name, for metrics ---------------------------------------------------------------------------------------

    def pool(self, service: str, pool: str) -> PoolCounts:
        """All counters of a pool; raises `NotFound` for a service that there is none of."""
        slot, index = self._slot_of(service), index_of(pool)
        base = layout.pool_base(slot, index)
        # Before that of which they are a part, since a worker stores them behind it: never more of them than there are in all.
        previews = self._sums(base + layout.PREVIEWED, _PREVIEWS)
        sums = self._sums(base, layout.POOL_CELLS)
        sums[layout.PREVIEWED : layout.PREVIEWED + _PREVIEWS] = previews
        baseline = self._baselines.get(slot * 2 + index)
        if baseline is not None:
            sums = [value - before for value, before in zip(sums, baseline, strict=True)]
        codes = {code: sums[layout.CODES + cell] for code, cell in layout.CODE_CELLS.items()}
        return PoolCounts(
            codes={code: count for code, count in codes.items() if count > 0},
            buckets=sums[layout.BUCKETS : layout.BUCKETS + layout.BUCKET_COUNT],
            duration_seconds=sums[layout.DURATION_US] / 1e6,
            bytes_in=sums[layout.BYTES_IN],
            bytes_out=sums[layout.BYTES_OUT],
            retries=sums[layout.RETRIES],
            cut=tuple(sums[layout.CUT : layout.CUT + _CLASSES]),
            streams=sums[layout.STREAMS],
            streams_failed=sums[layout.STREAMS_FAILED],
            mirrored=sums[layout.MIRRORED],
            mirror_dropped=sums[layout.MIRROR_DROPPED],
            previewed=sums[layout.PREVIEWED],
            previewed_failed=sums[layout.PREVIEWED_FAILED],
            preview_buckets=tuple(sums[layout.PREVIEW_BUCKETS : layout.PREVIEW_BUCKETS + layout.BUCKET_COUNT]),
        )

    def program(self) -> ProgramCounts:
        """Counters of the workers as such."""
        sums = self._sums(0, layout.WORKER_CELLS)
        return ProgramCounts(
            accepted=sums[layout.W_ACCEPTED],
            refused=sums[layout.W_REFUSED],
            unmatched=sums[layout.W_UNMATCHED],
            bad_requests=sums[layout.W_BAD_REQUESTS],
            log_dropped=sums[layout.W_LOG_DROPPED],
            limits=tuple(sums[layout.W_LIMITS : layout.W_LIMITS + layout.LIMIT_COUNT]),
            tls_failed=sums[layout.W_TLS_FAILED],
            tls_timeouts=sums[layout.W_TLS_TIMEOUTS],
            unintroduced=sums[layout.W_PROXY_REFUSED],
        )

    # --- by slot, for the controller --------------------------------------------------------------------------------

    def in_flight(self, slot: int, pool: int) -> list[int]:
        """What is in flight in a pool, by class."""
        return self._gauges(layout.pool_base(slot, pool) + layout.IN_FLIGHT, _CLASSES)

    def cut(self, slot: int, pool: int) -> list[int]:
        """What was ever ended by a drain's deadline, by class; for differences."""
        return self._sums(layout.pool_base(slot, pool) + layout.CUT, _CLASSES)

    def sessions(self, slot: int, pool: int) -> int:
        """Sessions seen lately; one that two workers saw counts twice."""
        return self._gauges(layout.pool_base(slot, pool) + layout.SESSIONS, 1)[0]

    def upstream_in_flight(self, slot: int) -> int:
        """What is in flight at an upstream."""
        return self._gauges(layout.upstream_base(slot) + layout.UP_IN_FLIGHT, 1)[0]

    def upstream_connections(self, slot: int) -> int:
        """Open connections to an upstream, idle ones too."""
        return self._gauges(layout.upstream_base(slot) + layout.UP_CONNECTIONS, 1)[0]

    def connections(self, worker: int) -> int:
        """Client connections of a worker; 0 for one that does not live."""
        return self._cells[self._area(worker) + layout.W_CONNECTIONS] if worker in set(self._living()) else 0

    def heartbeat(self, worker: int) -> float:
        """When a worker last swept: CLOCK_MONOTONIC, seconds; 0.0 if it never did."""
        return self._cells[self._area(worker) + layout.W_HEARTBEAT] / 1e6

    # --- new holders of a slot --------------------------------------------------------------------------------------

    def begin_service(self, slot: int) -> None:
        """The slot has a new holder, whose counters begin at zero."""
        for index in range(2):
            sums = self._sums(layout.pool_base(slot, index), layout.POOL_CELLS)
            self._baselines.pop(slot * 2 + index, None)
            if any(sums):
                self._baselines[slot * 2 + index] = sums

    # --- sums -------------------------------------------------------------------------------------------------------

    @staticmethod
    def _area(worker: int) -> int:
        return layout.CELLS + worker * layout.AREA

    def _sums(self, base: int, count: int) -> list[int]:
        """Over all workers, dead ones too: their successors go on counting from there."""
        return self._over(self._workers, base, count)

    def _gauges(self, base: int, count: int) -> list[int]:
        return self._over(self._living(), base, count)

    def _over(self, workers: Iterable[int], base: int, count: int) -> list[int]:
        sums = [0] * count
        for worker in workers:
            start = self._area(worker) + base
            for index, value in enumerate(self._cells[start : start + count]):
                sums[index] += value
        return sums
