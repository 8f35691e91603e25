"""Active checks: a GET to every upstream, now and again, and what it says for an operator.

One timer starts what is due and ends what is late, some hundredths of a second at a time; there is no task and no timer for each.
Checks are spread evenly over the interval, so that neither this process nor the upstreams get them in bursts.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bgproxy.config.schema import Health
from bgproxy.control.probing import Probe, Prober
from bgproxy.model.snapshot import Address, TlsSpec
from bgproxy.model.upstream import UPSTREAM_TABLE, UpstreamEvent, UpstreamState

#: Seconds between two checks of an upstream that has not been checked `rise` times yet: a start need not be slow.
FAST: Final = 0.2

#: Seconds between the first checks of two upstreams: thousands that come at a time are a load for a second or two, not a jam.
APART: Final = 0.0005

#: Seconds between two looks at what is due, at the least: waking up costs as much as a check.
TICK: Final = 0.02

#: Checks that are begun at one such look, at the most: the loop has other things to do.
BATCH: Final = 100

#: Checks under way at a time, which bounds the descriptors; the others wait for their turn.
MAX_UNDER_WAY: Final = 1000

#: Seconds between two lines of the log on checks that could not be made.
SAY_AGAIN: Final = 60.0

#: Multiples of it, whole parts left out, lie evenly between 0 and 1, however many there are (Knuth, TAOCP 3, section 6.4).
_GOLDEN: Final = (math.sqrt(5) - 1) / 2

log = logging.getLogger("bgproxy.health")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check: whether it was good, why not, and how long it took (seconds)."""

    ok: bool
    reason: str
    seconds: float


class Judge:
    """Counts results in a row: `rise` good ones make an upstream rise, `fall` bad ones make it fall."""

    def __init__(self, settings: Health) -> None:
        self.settings = settings
        self._good = 0
        self._bad = 0

    def judge(self, state: UpstreamState, *, ok: bool) -> UpstreamEvent | None:
        """The event that this result makes of the row, where the table has one for `state`."""
        if ok:
            self._good, self._bad = self._good + 1, 0
            event = UpstreamEvent.ROSE if self._good >= self.settings.rise else None
        else:
            self._good, self._bad = 0, self._bad + 1
            event = UpstreamEvent.FELL if self._bad >= self.settings.fall else None
        return event if event is not None and UPSTREAM_TABLE.allows(state, event) else None

    def forget(self) -> None:
        """Count anew."""
        self._good = self._bad = 0


def next_turn(after: float, interval: float, phase: float) -> float:
    """The first moment after `after` that is `phase` (0 to 1) of an interval behind a whole number of intervals; seconds."""
    turns = (after - phase * interval) / interval
    return (
        math.floor(turns + 1e-6) + 1 + phase
    ) * interval  # `after` may be such a moment itself, but for its last digits


class _Check:
    """An upstream that is checked: at `due` it is asked, at `deadline` it has failed; infinite: not as things stand."""

    __slots__ = ("asked", "deadline", "due", "fast", "phase", "probe", "settings")

    def __init__(self, probe: Probe, settings: Health, fast: Callable[[], bool], phase: float) -> None:
        self.probe = probe
        self.settings = settings
        self.fast = fast
        self.phase = phase
        self.due = math.inf
        self.deadline = math.inf
        self.asked = 0.0


#: When, a number that makes the order one, and whose: those that have been overtaken stay in the heap until their time comes.
_Entry = tuple[float, int, _Check]


class HealthChecks:
    """Checks what is watched; `on_result(key, result)` is called after every check. `now` is CLOCK_MONOTONIC in seconds."""

    def __init__(
        self, on_result: Callable[[str, CheckResult], None], *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._on_result = on_result
        self._now = now
        self._watched: dict[str, _Check] = {}
        self._prober = Prober(self._ended)
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._files = MAX_UNDER_WAY if files == resource.RLIM_INFINITY else files // 2  # the admin API needs some, too
        self._due: list[_Entry] = []
        self._deadlines: list[_Entry] = []
        self._numbers = itertools.count()
        self._places = itertools.count()  # in the interval, of those that are watched
        self._newcomers_until = 0.0  # the first checks of newcomers are taken until then
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._running = False
        self._said = -math.inf  # when it was last said that checks cannot be made

    async def start(self) -> None:
        """Begin to check what is watched."""
        self._running = True
        self._prober.start()
        for check in self._watched.values():
            self._begin(check)

    async def stop(self) -> None:
        """End all checks."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._prober.close()
        self._due.clear()
        self._deadlines.clear()

    def watch(
        self,
        key: str,
        *,
        url: str,
        address: Address,
        settings: Health,
        fast: Callable[[], bool],
        tls: TlsSpec | None = None,
        prelude: bytes = b"",
    ) -> None:
        """Check an upstream from now on; `fast()` says whether it is still to be judged for the first time.

        With `tls` it is asked over TLS; `prelude` is sent before all else.
        """
        self.unwatch(key)
        phase = next(self._places) * _GOLDEN % 1
        probe: Probe
        if tls is None or settings.type == "tcp":
            probe = Probe(key, url, address, settings, prelude=prelude)
        else:
            from bgproxy.control.tls_probing import TlsProbe  # noqa: PLC0415 - it imports ssl, which most can do without

            probe = TlsProbe(key, url, address, settings, tls=tls, prelude=prelude)
        check = self._watched[key] = _Check(probe, settings, fast, phase)
        if self._running:
            self._begin(check)

    def unwatch(self, key: str) -> None:
        """Check it no more."""
        check = self._watched.pop(key, None)
        if check is not None:
            check.due = check.deadline = math.inf
            self._prober.drop(check.probe)

    # --- when -------------------------------------------------------------------------------------------------------

    def _begin(self, check: _Check) -> None:
        now = self._now()
        self._plan(check, max(now, self._newcomers_until))
        self._newcomers_until = check.due + APART

    def _plan(self, check: _Check, due: float) -> None:
        check.due = due
        heapq.heappush(self._due, (due, next(self._numbers), check))
        self._wake(due)

    def _wake(self, at: float) -> None:
        """Tick at that time, if not before."""
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_later(max(at - self._now(), 0.0), self._tick)

    def _tick(self) -> None:
        """Ask whom it is time to ask, and give up those whose time is up."""
        self._timer = None
        self._prober.look()  # first, lest an upstream answers for a process that was held up itself
        now = self._now()
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, _, check = heapq.heappop(self._deadlines)
            if check.deadline == deadline:
                self._prober.drop(check.probe)
                self._ended(check.probe, f"no answer within {check.settings.timeout:g}s")
        room = min(BATCH, min(MAX_UNDER_WAY, self._files) - len(self._prober))
        while room > 0 and self._due and self._due[0][0] <= now:
            due, _, check = heapq.heappop(self._due)
            if check.due == due:
                self._ask(check)
                room -= 1
        if self._running and (nearest := [heap[0][0] for heap in (self._due, self._deadlines) if heap]):
            self._wake(max(min(nearest), now + TICK))

    def _ask(self, check: _Check) -> None:
        check.asked = self._now()
        check.due = math.inf
        check.deadline = check.asked + check.settings.timeout
        heapq.heappush(self._deadlines, (check.deadline, next(self._numbers), check))
        self._prober.ask(check.probe)

    def _ended(self, probe: Probe, reason: str | None) -> None:
        check = self._watched[probe.key]
        check.deadline = math.inf
        now = self._now()
        try:
            if reason is None:
                self._not_asked(now)
            else:
                self._on_result(probe.key, CheckResult(ok=not reason, reason=reason, seconds=now - check.asked))
        except Exception:  # the checks must go on, or the upstream would be forgotten
            log.exception("a result of a health check was lost", extra={"fields": {"upstream": probe.key}})
        if self._running and self._watched.get(probe.key) is check:
            # From time to time of asking, so that the interval does not grow by what a check takes.
            interval = check.settings.interval
            due = check.asked + min(interval, FAST) if check.fast() else next_turn(check.asked, interval, check.phase)
            self._plan(check, max(due, now))

    def _not_asked(self, now: float) -> None:
        """No judgement: what this process lacks says nothing of an upstream, which may be live and well."""
        if now - self._said >= SAY_AGAIN:
            self._said = now
            log.error(
                "health checks cannot be made, upstreams keep their state: no descriptors or memory here (ulimit -n)"
            )
