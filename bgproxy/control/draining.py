"""Drains: from a switch away from a pool until nothing is left in it that began there.

The workers end what is over its deadline; here is watched, in their cells, until the counts are zero. A zero is believed
only after every worker has stored its counts and said so: else a request that a worker claimed for the old pool, just
before the commit, might not be seen yet.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from bgproxy.config.schema import Drain as DrainSettings
from bgproxy.config.schema import Sessions
from bgproxy.control.clock import rfc3339
from bgproxy.control.counters import Counters
from bgproxy.control.links import Links
from bgproxy.control.registry import Service
from bgproxy.model.classes import CLASS_NAMES, REQUESTS
from bgproxy.model.pool import POOLS
from bgproxy.switchboard.messages import DrainPool, UndrainPool

log = logging.getLogger("bgproxy.controller")

#: Seconds between two looks at the cells; the second while sessions keep the pool open for long anyway.
POLL: Final = 0.02
SLOW_POLL: Final = 0.25

#: Seconds that the workers have, beyond the last deadline, to end what is left.
GRACE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Drained:
    """How a drain ended; counts are by class."""

    ended: list[int]  # were in flight at the switch and ended by themselves
    cut: list[int]  # were ended by a deadline
    seconds: float
    complete: bool  # nothing is left; else it was live again, or gone, or something outlived all deadlines

    def to_json(self) -> dict[str, Any]:
        """As the API answers, and as the event has it."""
        return {
            **by_class(self.ended),
            "cut": by_class(self.cut),
            "seconds": round(self.seconds, 3),
            "complete": self.complete,
        }


def by_class(counts: list[int] | list[float]) -> dict[str, Any]:
    """Counts or times with the names of their classes."""
    return dict(zip(CLASS_NAMES, counts, strict=True))


def deadlines(settings: DrainSettings) -> list[float]:
    """Seconds from the switch, by class."""
    return [settings.requests, settings.streams, settings.websockets]


def sessions_stay(sessions: Sessions) -> float:
    """For how many seconds after a switch pinned clients may still come to the old pool."""
    return sessions.drain if sessions.mode == "cookie" and sessions.on_switch != "follow" else 0.0


def last_moment(since: float, service: Service) -> float:
    """When everything that is left of a switch at `since` is over, even what a pinned client began at its last moment."""
    settings = service.settings
    return since + sessions_stay(settings.sessions) + max(deadlines(settings.drain)) + GRACE


class Drain:
    """One drain of one pool; `since` is the moment of the commit, CLOCK_MONOTONIC."""

    def __init__(
        self, service: Service, pool: int, since: float, links: Links, counters: Counters, now: Callable[[], float]
    ) -> None:
        self.service = service
        self.pool = pool
        self.since = since
        self.began = time.time() - (now() - since)  # seconds since 1970
        stay = sessions_stay(service.settings.sessions)
        self.sessions_until = since + stay if stay else None
        self._now = now
        self._links = links
        self._counters = counters
        self._at_first = self.in_flight()
        self._cut_before = counters.cut(service.slot, pool)

    def __repr__(self) -> str:
        return f"<Drain {self.service.name}/{POOLS[self.pool]} in_flight={self.in_flight()}>"

    def in_flight(self) -> list[int]:
        """What is left, by class."""
        return self._counters.in_flight(self.service.slot, self.pool)

    @property
    def last_moment(self) -> float:
        """When it is given up at the latest; see `last_moment`."""
        return last_moment(self.since, self.service)

    async def watch(self) -> bool:
        """Wait until the pool is empty; False if it is not, though every deadline has passed."""
        while (now := self._now()) < self.last_moment:
            staying = self.sessions_until is not None and now < self.sessions_until
            if not staying and not any(self.in_flight()) and await self._links.flush() and not any(self.in_flight()):
                return True
            await asyncio.sleep(SLOW_POLL if staying else POLL)
        return False

    def report(self, *, complete: bool) -> Drained:
        """What became of what was in flight at the switch."""
        before = zip(self._counters.cut(self.service.slot, self.pool), self._cut_before, strict=True)
        cut = [max(now - then, 0) for now, then in before]
        left = self.in_flight()
        ended = [first - gone - rest for first, gone, rest in zip(self._at_first, cut, left, strict=True)]
        # A request may have become a stream or a tunnel since, and is counted among those now.
        ended[REQUESTS] += sum(count for count in ended[REQUESTS + 1 :] if count < 0)
        return Drained([max(count, 0) for count in ended], cut, self._now() - self.since, complete)

    def status(self) -> dict[str, Any]:
        """As the status shows it; times in seconds."""
        passed = self._now() - self.since
        until = self.sessions_until
        return {
            "since": rfc3339(self.began),
            "seconds": round(passed, 3),
            "waiting_for": by_class(self.in_flight()),
            "deadline_in": by_class(
                [round(max(deadline - passed, 0.0), 3) for deadline in deadlines(self.service.settings.drain)]
            ),
            "sessions_until_in": None if until is None else round(max(until - self._now(), 0.0), 3),
        }


@dataclass(frozen=True, slots=True)
class _Watched:
    drain: Drain
    future: asyncio.Future[Drained]
    task: asyncio.Task[None]


class Drains:
    """All that are under way, each watched by a task. `on_end` is told of those that came to their own end."""

    def __init__(
        self,
        links: Callable[[], Links],
        counters: Counters,
        on_end: Callable[[Drain, Drained], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._links = links
        self._counters = counters
        self._on_end = on_end
        self._now = now
        self._running: dict[tuple[str, int], _Watched] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def of(self, service: str, pool: int) -> Drain | None:
        """The drain of a pool, if there is one."""
        running = self._running.get((service, pool))
        return running.drain if running is not None else None

    def begin(self, service: Service, pool: int, since: float) -> Drain:
        """The pool is live no more: have the workers end what is left at its deadline, and watch."""
        drain = Drain(service, pool, since, self._links(), self._counters, self._now)
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._watch(drain), name=f"drain of {service.name}/{POOLS[pool]}")
        self._running[service.name, pool] = _Watched(drain, loop.create_future(), task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._links().send(DrainPool(service.name, pool, since))
        return drain

    def cancel(self, service: str, pool: int) -> None:
        """The pool is live again, or gone: whoever waits for the end gets what is known so far."""
        running = self._running.get((service, pool))
        if running is not None:
            running.task.cancel()
            self._finish(running.drain, complete=False)

    def ending(self, service: str, pool: int) -> asyncio.Future[Drained] | None:
        """Done when the drain of a pool ends, at its `last_moment` at the latest; None if there is none."""
        running = self._running.get((service, pool))
        return running.future if running is not None else None

    def notes(self) -> list[DrainPool]:
        """For a worker that has just come."""
        return [
            DrainPool(drain.service.name, drain.pool, drain.since)
            for drain in (watched.drain for watched in self._running.values())
        ]

    async def close(self) -> None:
        """Watch no more; the workers keep to the deadlines all the same."""
        for watched in list(self._running.values()):
            watched.task.cancel()
            self._finish(watched.drain, complete=False, tell=False)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self, drain: Drain) -> None:
        complete = await drain.watch()
        if self.of(drain.service.name, drain.pool) is drain:
            self._on_end(drain, self._finish(drain, complete=complete))

    def _finish(self, drain: Drain, *, complete: bool, tell: bool = True) -> Drained:
        """Take it off the list, tell the workers, and whoever waits."""
        future = self._running.pop((drain.service.name, drain.pool)).future
        if tell:
            self._links().send(UndrainPool(drain.service.name, drain.pool))
        drained = drain.report(complete=complete)
        if not future.done():
            future.set_result(drained)
        return drained
