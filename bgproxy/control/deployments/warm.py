"""The warming stage: the idle pool gets GETs as the live one gets them, and at last the workers' connections.

GETs go to all its upstreams, what was asked for most first, over and over, until so many were made or their latency has settled: the
medians of windows that follow each other are within 10%, twice. Failures are told and halt nothing, unless every GET failed.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
from collections import deque
from collections.abc import Iterator
from typing import Final

from bgproxy.config.schema import Warm
from bgproxy.control.deployments.caller import Answer, Caller
from bgproxy.control.deployments.stage import Halted, Run
from bgproxy.control.deployments.words import milliseconds
from bgproxy.control.registry import Upstream
from bgproxy.errors import BgproxyError
from bgproxy.model.deployment import DeploymentState, Result

#: Targets seen lately that are replayed, at the most.
RECENT: Final = 100

#: Seconds that a GET may take: a first answer may load a good deal.
TIMEOUT: Final = 30.0

#: Seconds that the workers have for opening connections.
OPEN_WITHIN: Final = 1.0

#: GETs whose median is compared with that of the next so many, at the least; with more upstreams and paths there are more, up to `_WIDEST`.
WINDOW: Final = 20
_WIDEST: Final = 200

#: Two medians are alike within this share of the former, or within so many seconds: of less than that, loopback is made.
_ALIKE: Final = 0.1
_NOISE: Final = 0.001

#: Pairs of windows in a row that must be alike.
_TWICE: Final = 2

_STAGE: Final = DeploymentState.WARMING.value


class Settling:
    """Says when latency has settled. Give it each latency (seconds) as it comes."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._seen: list[float] = []
        self._alike = 0
        self.medians: list[float] = []
        self.settled = False

    def add(self, seconds: float) -> None:
        """Take one; `settled` says what is known then."""
        self._seen.append(seconds)
        if len(self._seen) < self._window:
            return
        median = statistics.median(self._seen)
        self._seen.clear()
        if self.medians:
            before = self.medians[-1]
            alike = abs(median - before) <= max(_ALIKE * before, _NOISE)
            self._alike = self._alike + 1 if alike else 0
            self.settled = self.settled or self._alike >= _TWICE
        self.medians.append(median)


async def recent(run: Run, limit: int) -> list[tuple[str, int]]:
    """The targets of GETs that the live pool has seen of late, and how often, the most first; empty if nothing is known.

    One with a query that was seen once is left out: it may be a link of one user's, which is good for one time.
    """
    found = await run.hands.links.recent(run.service.name, limit)
    found = [(target, count) for target, count in found if count > 1 or "?" not in target]
    return sorted(found, key=lambda pair: -pair[1])


async def warm(run: Run) -> None:
    """End when the pool is warm, or as warm as `settings` let it become; raises `Halted` if no GET was answered at all."""
    settings = run.settings.warm
    if settings is None:
        return
    if settings.requests and not run.service.tcp:
        await _replay(run, settings)
    # Behind the GETs: these may take longer than an unused connection is kept.
    await _open(run)


async def _open(run: Run) -> None:
    began = run.clock.now()
    run.show(f"connections to {run.idle.name} are opened")
    pools = ((run.service.name, run.target),)
    try:
        told = await run.hands.links.acknowledged(then_warm=pools)
        done = await run.hands.links.warmed(told, OPEN_WITHIN)
        found = (
            "opened by all workers" if done else f"not all were open after {OPEN_WITHIN:g}s; the switch does without"
        )
    except BgproxyError as error:
        found = f"{error} The switch will ask again."
    seconds = round(run.clock.now() - began, 3)
    run.keep(Result(stage=_STAGE, name="connections", ok=True, found=found, seconds=seconds))


async def _replay(run: Run, settings: Warm) -> None:
    if settings.paths == "recent":
        targets = [target for target, _ in await recent(run, RECENT)]
        what = (
            (f"the {len(targets)} paths seen most" if len(targets) > 1 else f"{targets[0]}, the one path seen")
            if targets
            else f"{run.service.health().path}: none was seen of late"
        )
        targets = targets or [run.service.health().path]
    else:
        targets = list(settings.paths)
        what = f"{len(targets)} paths" if len(targets) != 1 else targets[0]
    caller = Caller(run.service, run.idle)
    try:
        upstreams = [upstream for upstream in caller.upstreams() if upstream.is_up]
        if not upstreams:
            raise Halted(f"no upstream of {run.idle.name} is up", tuple(run.idle.troubles()))
        replay = _Replay(run, settings, caller, upstreams, targets)
        await replay.run()
    finally:
        caller.close()
    run.keep(replay.result(what))
    if replay.failed == replay.made:
        raise Halted(f"not one of {replay.made} GETs was answered well: {replay.sample}")


class _Replay:
    """The GETs of one warm-up."""

    def __init__(self, run: Run, settings: Warm, caller: Caller, upstreams: list[Upstream], targets: list[str]) -> None:
        self._run = run
        self._settings = settings
        self._caller = caller
        self._order: Iterator[tuple[str, Upstream]] = itertools.islice(
            itertools.cycle(itertools.product(targets, upstreams)), settings.requests
        )
        self._settling = Settling(min(max(WINDOW, len(targets) * len(upstreams)), _WIDEST))
        self._began = run.clock.now()
        self._first: list[float] = []  # latencies of the first window, and of the last
        self._last: deque[float] = deque(maxlen=WINDOW)
        self.made = 0
        self.failed = 0
        self.sample = ""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self._settings.concurrency):
                group.create_task(self._take_turns(), name=f"warm-up {number} of {self._run.idle.name}")

    async def _take_turns(self) -> None:
        for target, upstream in self._order:
            answer = await self._caller.ask(upstream, "GET", target, timeout=min(TIMEOUT, self._settings.timeout))
            self._took(target, upstream, answer)
            if self._settling.settled:
                return

    def _took(self, target: str, upstream: Upstream, answer: Answer) -> None:
        self.made += 1
        if len(self._first) < WINDOW:
            self._first.append(answer.seconds)
        self._last.append(answer.seconds)
        if answer.status and answer.status < 500:
            self._settling.add(answer.seconds)
        else:
            self.failed += 1
            why = answer.reason or f"status {answer.status}"
            self.sample = self.sample or f"GET {target} of {upstream.id}: {why}"
        median = statistics.median(self._last)
        self._run.show(
            f"{self.made} of at most {self._settings.requests} GETs, median {milliseconds(median)} of late",
            share=self.made / self._settings.requests,
            requests=self.made,
            failed=self.failed,
            median=median,
        )

    def result(self, what: str) -> Result:
        first, last = (statistics.median(part) for part in (self._first, self._last))
        ended = "latency has settled" if self._settling.settled else "the number was reached"
        found = f"{self.made} GETs of {what}; median {milliseconds(first)} at first, {milliseconds(last)} at the end; {ended}"
        if self.failed:
            found += f"; {self.failed} failed"
        return Result(
            stage=_STAGE,
            name="replayed GETs",
            ok=self.failed < self.made,
            found=found,
            seconds=round(self._run.clock.now() - self._began, 3),
            details=(self.sample,) if self.sample else (),
        )
