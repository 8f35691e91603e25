"""Figures of a service's pools over spans of time: differences between samples of what the workers have counted.

The counters only grow, so two samples are all that a span needs: requests, errors, the histogram of latencies, and from these shares,
rates and quantiles. A quantile is as exact as its bucket is wide: see `BUCKET_BOUNDS`, six a decade; within a bucket it
is interpolated.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bgproxy.control.counters import Counters, PoolCounts
from bgproxy.control.registry import Service
from bgproxy.model.classes import CLASS_NAMES, REQUESTS
from bgproxy.model.pool import POOLS
from bgproxy.switchboard.layout import BUCKET_BOUNDS, BUCKET_COUNT

#: Seconds that live figures are of.
RECENT: Final = 5.0

#: Samples that are kept of a pool. When there are more, every second one of the older half is forgotten.
MOST: Final = 512

#: Seconds after which a worker has stored what it counted, generously: it does so ten times a second.
STORED: Final = 0.15

#: Status codes from here on are errors.
_ERRORS: Final = 500


@dataclass(frozen=True, slots=True)
class Sample:
    """What stood in the counters of a pool at a moment."""

    at: float  # CLOCK_MONOTONIC, seconds
    requests: int  # of a tcp service: connections that have ended
    errors: int  # answered with 5xx; tcp: no upstream could be reached
    buckets: array[int]  # of the latencies, not cumulative
    in_flight: tuple[int, ...] = (0,) * len(CLASS_NAMES)
    previews: int = 0  # that were answered besides: they are no live traffic, but were in flight

    @property
    def ended(self) -> int:
        """All that is in flight no more."""
        return self.requests + self.previews


def sample(counts: PoolCounts, at: float, in_flight: tuple[int, ...] = (0, 0, 0), *, tcp: bool = False) -> Sample:
    """The part of a pool's counters that is judged: live traffic, without the requests that named the pool themselves."""
    if tcp:
        return Sample(at, counts.streams, counts.streams_failed, array("q", counts.buckets), in_flight)
    errors = sum(count for code, count in counts.codes.items() if code >= _ERRORS) - counts.previewed_failed
    buckets = array("q", (all_ - own for all_, own in zip(counts.buckets, counts.preview_buckets, strict=True)))
    return Sample(at, counts.requests - counts.previewed, errors, buckets, in_flight, counts.previewed)


@dataclass(frozen=True, slots=True)
class Window:
    """What was counted within a span of time."""

    seconds: float
    requests: int
    errors: int
    buckets: tuple[int, ...]  # not cumulative; the last has no upper bound
    waiting: int = 0  # requests that were in flight as it began, and are none of its own while they are

    @classmethod
    def between(cls, before: Sample, after: Sample) -> Window:
        """The span between two samples."""
        buckets = tuple(now - then for now, then in zip(after.buckets, before.buckets, strict=True))
        requests, errors = after.requests - before.requests, after.errors - before.errors
        return cls(after.at - before.at, requests, errors, buckets, before.in_flight[REQUESTS])

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Window:
        """What `to_json` has made; one that is missing or of another histogram is empty."""
        buckets = tuple(data.get("buckets", ()))
        if len(buckets) != BUCKET_COUNT:
            return EMPTY
        return cls(data["seconds"], data["requests"], data["errors"], buckets)

    def to_json(self) -> dict[str, Any]:
        """For the state file."""
        return {
            "seconds": round(self.seconds, 3),
            "requests": self.requests,
            "errors": self.errors,
            "buckets": list(self.buckets),
        }

    @property
    def timed(self) -> int:
        """Requests with a latency: those that were answered before any upstream was chosen have none."""
        return sum(self.buckets)

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds if self.seconds > 0 else 0.0

    @property
    def share(self) -> float:
        """Of the requests, how many failed: 0.0 to 1.0."""
        return self.errors / self.requests if self.requests > 0 else 0.0

    def quantile(self, q: float) -> float | None:
        """Seconds that the share `q` of the requests took at most; None if there were none.

        Interpolated within the bucket that it falls into; of the last bucket, which has no upper bound, its lower one.
        """
        rank = q * self.timed
        if rank <= 0:
            return None
        passed = 0
        for index, count in enumerate(self.buckets):
            if count > 0 and passed + count >= rank:
                low = BUCKET_BOUNDS[index - 1] if index else 0.0
                high = BUCKET_BOUNDS[index] if index < len(BUCKET_BOUNDS) else low
                return low + (high - low) * (rank - passed) / count
            passed += count
        return None  # not reached: the rank is within the sum

    def slower(self, limit: float) -> int:
        """How many surely took longer than `limit` seconds: those in buckets that begin there or above."""
        return sum(self.buckets[bisect_left(BUCKET_BOUNDS, limit) + 1 :])


#: Nothing was counted.
EMPTY: Final = Window(0.0, 0, 0, (0,) * BUCKET_COUNT)


class Ring:
    """The samples of one pool, the oldest first. Bounded: the older they are, the fewer of them are kept; the first one stays."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._samples: list[Sample] = []

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, sample: Sample) -> None:
        """Add one that is newer than all."""
        samples = self._samples
        samples.append(sample)
        if len(samples) > self._most:
            half = len(samples) // 2
            samples[1:half] = samples[2:half:2]

    @property
    def last(self) -> Sample | None:
        """The newest."""
        return self._samples[-1] if self._samples else None

    def whole(self) -> Window:
        """All of it."""
        samples = self._samples
        return Window.between(samples[0], samples[-1]) if samples else EMPTY

    def latest(self, requests: int) -> Window:
        """The shortest span up to now that holds so many requests; all of it if none does."""
        samples = self._samples
        if not samples:
            return EMPTY
        after = samples[-1]
        at = bisect_right(samples, after.requests - requests, key=lambda sample: sample.requests)
        return Window.between(samples[max(at - 1, 0)], after)

    def recent(self, seconds: float) -> Window:
        """The last so many seconds, or all of it."""
        samples = self._samples
        if not samples:
            return EMPTY
        after = samples[-1]
        at = bisect_right(samples, after.at - seconds + 1e-6, key=lambda sample: sample.at)
        return Window.between(samples[max(at - 1, 0)], after)

    def hanging(self, seconds: float) -> int:
        """How many requests, at least, wait for their answer for longer than so many seconds.

        Of those that were in flight so long ago, as many have left at most as have ended since or have begun to stream; who is left
        of them hangs. So an upstream that answers nothing is seen long before its requests come to their time-out.
        """
        samples = self._samples
        if not samples:
            return 0
        now = samples[-1]
        # What ended within `seconds` of then is in the counters by `now`, for they are stored within STORED.
        at = bisect_right(samples, now.at - seconds - STORED + 1e-6, key=lambda sample: sample.at) - 1
        if at < 0:
            return 0
        then = samples[at]
        others = max(sum(sample.in_flight) - sample.in_flight[REQUESTS] for sample in samples[at:])
        begun = others - (sum(then.in_flight) - then.in_flight[REQUESTS])
        left = then.in_flight[REQUESTS] - (now.ended - then.ended) - begun
        return max(min(left, now.in_flight[REQUESTS]), 0)


class Figures:
    """Both pools of a service from now on; `now` is CLOCK_MONOTONIC in seconds. `look` takes the samples."""

    def __init__(self, counters: Counters, service: Service, now: Callable[[], float]) -> None:
        self._counters = counters
        self._service = service
        self._now = now
        self.pools = (Ring(), Ring())
        self.look()

    def look(self) -> None:
        """Take a sample of both pools."""
        service, now = self._service, self._now()
        for index, ring in enumerate(self.pools):
            counts = self._counters.pool(service.name, POOLS[index])
            in_flight = tuple(self._counters.in_flight(service.slot, index))
            ring.add(sample(counts, now, in_flight, tcp=service.tcp))

    def live(self) -> dict[str, Any]:
        """Of both pools the last seconds, for who watches (JSON): a second, share of errors, seconds, in flight by class."""
        return {POOLS[index]: self._of(ring) for index, ring in enumerate(self.pools)}

    def _of(self, ring: Ring) -> dict[str, Any]:
        window = ring.recent(RECENT)
        last = ring.last
        return {
            "rate": round(window.rate, 1),
            "errors": round(window.share, 4),
            "p50": _rounded(window.quantile(0.5)),
            "p99": _rounded(window.quantile(0.99)),
            "in_flight": dict(zip(CLASS_NAMES, last.in_flight, strict=True)) if last is not None else {},
        }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 5)
