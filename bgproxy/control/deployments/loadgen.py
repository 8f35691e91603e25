"""The load generator of the load check, a program of its own: `python -m bgproxy.control.deployments.loadgen`.

Open loop: a request is due every 1/rate seconds, whatever became of those before it, and its latency counts from the moment that it
was due. A closed loop waits for a stalled server before it asks again, and so leaves out the very requests that would have
told of the stall ("coordinated omission": Gil Tene, "How NOT to Measure Latency"; wrk2). Connections are bounded: where all are busy a
request waits for one, and its waiting counts.

The specification is one line of JSON on stdin, which then stays open: its end is the end of the program, so that it outlives nobody.
On stdout comes a line of JSON now and again, `{"progress": ...}`, and as the last `{"report": ...}`. Times are in seconds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import uvloop

from bgproxy.control.deployments.wire import Kind, Unanswered, Way, Wire
from bgproxy.http1.names import NameTable
from bgproxy.model.snapshot import TlsSpec

#: nice(2): live traffic goes first.
NICE: Final = 10

#: Seconds between two lines of progress.
EVERY: Final = 0.5

#: Seconds between two looks at what is due, at the least: less than the loop's timers know would be spent waiting awake.
TICK: Final = 0.001

#: Of a request's time, what must be left when a connection is free for it. With less it is given up: behind a pool that hangs, all that
#: waits is about to be too late, and one connection would be opened for each.
_WORTH: Final = 0.1

#: Requests that are begun at a time, at the most, before others have their turn.
_BATCH: Final = 200

#: The smallest time that is told apart (seconds), and how much wider each bucket is than the one before it.
_FLOOR: Final = 10e-6
_STEP: Final = math.log(1.01)

_QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


class Histogram:
    """Times, each known to 1%, in bounded memory; the longest is known exactly."""

    def __init__(self) -> None:
        self.count = 0
        self.longest = 0.0
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Count one."""
        self.count += 1
        self.longest = max(self.longest, seconds)
        self._buckets[math.ceil(math.log(seconds / _FLOOR) / _STEP) if seconds > _FLOOR else 0] += 1

    def quantile(self, share: float) -> float:
        """A time that so large a share (0 to 1) was not above; 0.0 if there is none at all."""
        left = math.ceil(share * self.count)
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return min(_FLOOR * math.exp(bucket * _STEP), self.longest)
        return self.longest


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What is to be asked, and how fast."""

    ways: tuple[Way, ...]
    requests: tuple[bytes, ...]  # one for each way
    rate: float  # requests a second, over all ways
    seconds: float
    connections: int  # at the most, over all ways, but one for each at the least
    timeout: float  # of a request, from the moment that it is due

    def to_json(self) -> dict[str, Any]:
        """As it goes over stdin."""
        fields = asdict(self)
        fields["requests"] = [request.decode("latin-1") for request in self.requests]
        for way in fields["ways"]:
            way["prelude"] = way["prelude"].decode("latin-1")
            if way["tls"] is not None:
                way["tls"] |= {key: way["tls"][key].decode("latin-1") for key in _PEM}
        return fields

    @classmethod
    def of_json(cls, fields: dict[str, Any]) -> Spec:
        """What `to_json` made."""
        ways = []
        for way in fields["ways"]:
            tls = way["tls"]
            if tls is not None:
                tls = TlsSpec(**(tls | {key: tls[key].encode("latin-1") for key in _PEM}))
            address = way["address"] if isinstance(way["address"], str) else tuple(way["address"])
            ways.append(Way(**(way | {"prelude": way["prelude"].encode("latin-1"), "tls": tls, "address": address})))
        requests = tuple(request.encode("latin-1") for request in fields["requests"])
        return cls(**(fields | {"ways": tuple(ways), "requests": requests}))


_PEM: Final = ("authorities", "chain", "secret")


class _Lane:
    """One upstream: what is due for it, and the connections that take it from there."""

    def __init__(self, way: Way, request: bytes, connections: int) -> None:
        self.way = way
        self.request = request
        self.connections = connections
        self.due: asyncio.Queue[float] = asyncio.Queue()
        self.waiting = 0  # connections that have nothing to do
        self.workers: list[asyncio.Task[None]] = []
        self.latencies = Histogram()
        self.requests = 0
        self.errors = 0


class Load:
    """One run. Its latencies are of what was answered, and of what was given up."""

    def __init__(self, spec: Spec, *, now: Callable[[], float] = time.monotonic) -> None:
        self._spec = spec
        self._now = now
        self._names = NameTable()
        share, more = divmod(max(spec.connections, len(spec.ways)), len(spec.ways))
        self._lanes = [
            _Lane(way, request, share + (place < more))
            for place, (way, request) in enumerate(zip(spec.ways, spec.requests, strict=True))
        ]
        self._total = max(round(spec.rate * spec.seconds), 1)
        self._latencies = Histogram()
        self._lateness = Histogram()  # of the schedule itself
        self._due = 0
        self._sent = 0
        self._done = 0
        self._answered = 0
        self._statuses: Counter[int] = Counter()
        self._errors: Counter[str] = Counter()
        self._samples: dict[str, str] = {}
        self._began = 0.0
        self._ended = 0.0
        self._all = asyncio.Event()

    async def run(self, tell: Callable[[dict[str, Any]], None] = lambda _: None) -> dict[str, Any]:
        """Do it; the report. Whoever cancels it leaves no connection open."""
        self._began = self._ended = self._now()
        teller = asyncio.get_running_loop().create_task(self._tell(tell), name="progress")
        try:
            await self._schedule()
            await self._all.wait()
        finally:
            tasks = [teller, *(worker for lane in self._lanes for worker in lane.workers)]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return self.report()

    async def _schedule(self) -> None:
        """Put every request into its lane at the moment that it is due."""
        rate, lanes = self._spec.rate, self._lanes
        while self._due < self._total:
            now = self._now()
            for _ in range(_BATCH):
                due = self._began + self._due / rate
                if due > now or self._due == self._total:
                    break
                self._lateness.add(now - due)
                self._put(lanes[self._due % len(lanes)], due)
                self._due += 1
            left = self._began + self._due / rate - self._now()
            await asyncio.sleep(max(left, TICK) if left > 0 else 0)

    def _put(self, lane: _Lane, due: float) -> None:
        lane.due.put_nowait(due)
        if lane.due.qsize() > lane.waiting and len(lane.workers) < lane.connections:
            name = f"connection {len(lane.workers)} to {lane.way.id}"
            lane.workers.append(asyncio.get_running_loop().create_task(self._work(lane), name=name))

    async def _work(self, lane: _Lane) -> None:
        """One connection: takes what is due, as soon as it is free."""
        wire: Wire | None = None
        try:
            while True:
                lane.waiting += 1
                try:
                    due = await lane.due.get()
                finally:
                    lane.waiting -= 1
                wire = await self._one(lane, wire, due)
        finally:
            if wire is not None:
                wire.close()

    async def _one(self, lane: _Lane, wire: Wire | None, due: float) -> Wire | None:
        """Ask once; the connection, if it can be used again."""
        left = due + self._spec.timeout - self._now()
        if left < _WORTH * self._spec.timeout:  # nobody waits so long for a connection
            self._failed(lane, due, "timed out", "no connection was free in time")
            await asyncio.sleep(0)  # there may be a great many of them
            return wire
        self._sent += 1
        fresh: Wire | None = None
        try:
            async with asyncio.timeout(left):
                status = -1
                if wire is not None and wire.reusable:
                    status = await self._again(lane, wire)
                if status < 0:
                    fresh = wire = Wire(lane.way, self._names)
                    await fresh.open()
                    status = (await fresh.ask(lane.request)).status
        except TimeoutError:
            self._failed(lane, due, "timed out", f"timed out after {self._spec.timeout:g}s")
            return None
        except Unanswered as error:
            self._failed(lane, due, error.kind, str(error))
            return None
        except BaseException:
            if fresh is not None:
                fresh.close()
            raise
        self._took(lane, due, status)
        return wire

    @staticmethod
    async def _again(lane: _Lane, wire: Wire) -> int:
        """Ask over a kept connection; -1 if that had been closed meanwhile."""
        try:
            return (await wire.ask(lane.request)).status
        except Unanswered as error:
            if error.fresh:
                raise
            return -1

    def _took(self, lane: _Lane, due: float, status: int) -> None:
        self._answered += 1
        self._statuses[status] += 1
        if status >= 500:
            lane.errors += 1
            self._errors["5xx"] += 1
            self._samples.setdefault("5xx", f"{lane.way.id}: status {status}")
        self._time(lane, due)

    def _failed(self, lane: _Lane, due: float, kind: Kind, reason: str) -> None:
        lane.errors += 1
        self._errors[kind] += 1
        self._samples.setdefault(kind, f"{lane.way.id}: {reason}")
        if kind == "timed out":
            self._time(lane, due)
        else:  # what is refused is quick, and no measure of anything
            self._end(lane)

    def _time(self, lane: _Lane, due: float) -> None:
        latency = self._now() - due
        self._latencies.add(latency)
        lane.latencies.add(latency)
        self._end(lane)

    def _end(self, lane: _Lane) -> None:
        lane.requests += 1
        self._done += 1
        self._ended = self._now()
        if self._done == self._total:
            self._all.set()

    # --- what it has to say -----------------------------------------------------------------------------------------

    async def _tell(self, tell: Callable[[dict[str, Any]], None]) -> None:
        while True:
            await asyncio.sleep(EVERY)
            tell(self.report())

    def report(self) -> dict[str, Any]:
        """The figures as they are now."""
        planned = self._total / self._spec.rate
        elapsed = max(self._ended - self._began, planned if self._done == self._total else 0.0, 1e-9)
        return {
            "requests": self._total,
            "due": self._due,
            "sent": self._sent,
            "done": self._done,
            "answered": self._answered,
            "errors": dict(self._errors),
            "samples": self._samples,
            "statuses": {str(status): count for status, count in sorted(self._statuses.items())},
            **{name: self._latencies.quantile(share) for name, share in _QUANTILES.items()},
            "max": self._latencies.longest,
            "rate": self._done / elapsed,
            "seconds": elapsed,
            "late_p99": self._lateness.quantile(0.99),
            "late_max": self._lateness.longest,
            "upstreams": {
                lane.way.id: {
                    "requests": lane.requests,
                    "errors": lane.errors,
                    "p99": lane.latencies.quantile(0.99),
                }
                for lane in self._lanes
            },
        }


# --- the program ----------------------------------------------------------------------------------------------------


def _say(what: str, value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({what: value}) + "\n")
    sys.stdout.flush()


async def _main(spec: Spec) -> None:
    loop = asyncio.get_running_loop()
    run = loop.create_task(Load(spec).run(lambda report: _say("progress", report)), name="load")

    def look() -> None:
        if not os.read(0, 4096):  # whoever started it has gone, or wants no more
            loop.remove_reader(0)
            run.cancel()

    loop.add_reader(0, look)
    try:
        _say("report", await run)
    finally:
        loop.remove_reader(0)


def main() -> int:
    """Run as a program."""
    os.nice(NICE)
    line = sys.stdin.buffer.readline()
    if not line:
        return 1
    spec = Spec.of_json(json.loads(line))
    gc.collect()
    gc.freeze()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_main(spec))
    except (asyncio.CancelledError, BrokenPipeError, KeyboardInterrupt):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
