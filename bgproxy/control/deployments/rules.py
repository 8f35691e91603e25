"""The rules of a bake: figures of the new pool against limits, and against the old pool just before the switch.

A hundred requests say little: of a pool with 0.3% errors, every 27th hundred has two or more. So while a bake goes on, a
rule is broken when the figures leave no doubt, which is to say: when the lower bound of the Wilson score interval is above the
limit (E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22, 1927). Canary judges in
the field do likewise (Spinnaker's Kayenta compares by a test of significance; Argo Rollouts and Flagger count failed intervals).
Two things are looked at, five times a second:

    the whole so far         what is wrong from the start
    the latest requests      what becomes wrong later, and would be a drop in all that was well before

The latter looks far more often, so it asks for a wider interval, else chance would roll back a good pool some day. At the end of
the bake the share of errors, and an absolute limit of the p99, are taken as they are: what is over the limit then is over the limit.

A p99 over a limit is the same as more than 1% of the requests slower than the limit, so latencies are judged as shares too.
Only requests in buckets wholly above the limit count as slower (`BUCKET_BOUNDS`, six a decade): a pool that is as fast as before never
breaks a rule by rounding. Requests that still wait, and longer than the limit, count with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

from bgproxy.config.schema import Bake
from bgproxy.config.units import format_factor, format_percent
from bgproxy.control.deployments.figures import Window
from bgproxy.model.deployment import Result
from bgproxy.switchboard.layout import BUCKET_BOUNDS

#: How far the bound lies from the share, in standard deviations: `errors.max` on the whole; all else on the whole; the latest.
#: By simulation: tests/control/deployments/test_rules.py has what they cost and what they find.
Z_ERRORS: Final = 2.0
Z_WHOLE: Final = 3.0
Z_LATEST: Final = 4.0

#: Relative rules at the end of the bake: a bound that one of fifty good pools would pass.
Z_END: Final = 2.0

#: Fewer failed or slow requests than these prove nothing: against `errors.max` on the whole; all else on the whole; the latest.
FEWEST_ERRORS: Final = 3
FEWEST: Final = 5
FEWEST_LATEST: Final = 8

#: Spans of the latest requests that are looked at, in `min_requests`: small ones see a crash, large ones see a few per cent.
SPANS: Final = (1, 4, 16)

#: A smaller share of errors before the switch counts as so much, or as a tenth of `errors.max` if that is less: twice next to
#: nothing is nothing.
FLOOR: Final = 0.001

#: The share of requests that may be slower than the p99.
SLOW: Final = 0.01

Hanging = Callable[[float], int]


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that is broken: its path in the configuration, and which number broke it."""

    rule: str
    text: str


@dataclass(frozen=True, slots=True)
class Before:
    """How the old pool did just before the switch."""

    pool: str  # its name
    window: Window

    def floor(self, most: float) -> float:
        """Its share of errors, by the rule of succession: that there was none among a few proves little. `most` is `errors.max`."""
        return max((self.window.errors + 1) / (self.window.requests + 2), min(FLOOR, most / 10))


@dataclass(frozen=True, slots=True)
class _Rule:
    """A share that must not be over a limit."""

    path: str
    limit: float  # 0.0 to 1.0
    z: float  # on the whole
    fewest: int
    count: Callable[[Window], tuple[int, int]]  # of how many, how many are bad
    say: Callable[[Window, bool], str]  # True: of the latest requests
    wait: float = 0.0  # seconds; requests that hang for longer are bad ones
    literal: bool = False  # at the end the share itself counts


def wilson(bad: int, of: int, z: float) -> float:
    """The lower bound of the Wilson score interval of a share: 0.0 to 1.0."""
    if of <= 0:
        return 0.0
    share = bad / of
    middle = share + z * z / (2 * of)
    spread = z * sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max((middle - spread) / (1 + z * z / of), 0.0)


class Rules:
    """The rules of one bake. A tcp service's connections last as long as their clients like, so latencies are not judged there."""

    def __init__(self, settings: Bake, before: Before, *, tcp: bool = False) -> None:
        self.settings = settings
        self.before = before
        self._tcp = tcp
        self._rules = list(self._made())

    def spans(self) -> tuple[int, ...]:
        """Of how many requests the latest spans are to be."""
        return tuple(span * self.settings.min_requests for span in SPANS)

    def judge(self, whole: Window, latest: Sequence[Window], hanging: Hanging = lambda _: 0) -> Broken | None:
        """The rule that is broken beyond doubt, while the bake goes on. Nothing is judged under `min_requests`.

        Args:
            whole: the new pool since the bake began.
            latest: its latest requests, in spans of `spans`.
            hanging: how many requests wait for their answer for longer than so many seconds.
        """
        for rule in self._rules:
            hung = hanging(rule.wait) if rule.wait else 0
            for window, recent in ((whole, False), *((window, True) for window in latest)):
                of, bad = rule.count(window)
                # Those that began within the window: of a few long polls among many requests, all are in flight at any time.
                waiting = max(hung - window.waiting, 0)
                of, bad = of + waiting, bad + waiting
                if of < self.settings.min_requests or not bad:
                    continue
                z, fewest = (Z_LATEST, FEWEST_LATEST) if recent else (rule.z, rule.fewest)
                if not rule.limit or (bad >= fewest and wilson(bad, of, z) > rule.limit):
                    return Broken(rule.path, rule.say(window, recent) + _hung(waiting, rule.wait))
        return None

    def judge_end(self, whole: Window) -> Broken | None:
        """The rule that is broken at the end of the bake, of at least `min_requests`."""
        for rule in self._rules:
            of, bad = rule.count(whole)
            if not bad or bad <= rule.limit * of:
                continue
            if rule.literal or (bad >= rule.fewest and wilson(bad, of, Z_END) > rule.limit):
                return Broken(rule.path, rule.say(whole, False))
        return None

    def results(self, whole: Window, seconds: float) -> list[Result]:
        """That each rule holds, and by which number, for the record."""
        return [
            Result(
                stage="baking",
                name=f"bake.{rule.path}",
                ok=True,
                expected=self._expected(rule),
                found=rule.say(whole, False),
                seconds=round(seconds, 3),
            )
            for rule in self._rules
        ]

    # --- the rules --------------------------------------------------------------------------------------------------

    def _made(self) -> Iterator[_Rule]:
        errors, p99 = self.settings.errors, self.settings.p99
        yield _Rule(
            "errors.max", errors.max / 100, Z_ERRORS, FEWEST_ERRORS, _failed, self._say_errors_max, literal=True
        )
        if errors.worse_than_before is not None:
            limit = min(errors.worse_than_before * self.before.floor(errors.max / 100), 1.0)
            yield _Rule("errors.worse_than_before", limit, Z_WHOLE, FEWEST, _failed, self._say_errors_worse)
        if self._tcp:
            return
        if p99.max is not None:
            yield _Rule("p99.max", SLOW, Z_WHOLE, FEWEST, _slow(p99.max), self._say_p99_max, wait=p99.max, literal=True)
        before = self._p99_before()
        if p99.worse_than_before is not None and before is not None:
            limit = p99.worse_than_before * before
            yield _Rule("p99.worse_than_before", SLOW, Z_WHOLE, FEWEST, _slow(limit), self._say_p99_worse, wait=limit)

    def _p99_before(self) -> float | None:
        """Of fewer than `min_requests` a p99 says nothing."""
        window = self.before.window
        return window.quantile(1 - SLOW) if window.timed >= self.settings.min_requests else None

    # --- what is said of them ---------------------------------------------------------------------------------------

    def _expected(self, rule: _Rule) -> str:
        before, factor = self.before, self.settings.errors.worse_than_before
        if rule.path == "errors.max":
            return f"at most {format_percent(self.settings.errors.max)}"
        if rule.path == "errors.worse_than_before":
            share = f"{_per_cent(before.window.share)} of {before.window.requests:,}"
            return f"at most {format_factor(factor or 0.0)} the {share} of {before.pool} before the switch"
        if rule.path == "p99.max":
            return f"p99 at most {duration(rule.wait)}"
        factor = self.settings.p99.worse_than_before
        return f"p99 at most {format_factor(factor or 0.0)} the {duration(self._p99_before())} of {before.pool} before the switch"

    def _say_errors(self, window: Window, recent: bool) -> str:
        noun, how = ("connections", "without an upstream") if self._tcp else ("requests", "with 5xx")
        which = f"the latest {window.requests:,}" if recent else f"{window.requests:,}"
        return f"{_per_cent(window.share)} of {which} {noun} failed ({window.errors:,} {how})"

    def _say_errors_max(self, window: Window, recent: bool) -> str:
        return f"{self._say_errors(window, recent)}; the limit is {format_percent(self.settings.errors.max)}"

    def _say_errors_worse(self, window: Window, recent: bool) -> str:
        before = self.before.window
        was = f"{_per_cent(before.share)} of {before.requests:,}" if before.requests else "no requests"
        factor = format_factor(self.settings.errors.worse_than_before or 0.0)
        return f"{self._say_errors(window, recent)}; it was {was} for {self.before.pool} before the switch, and {factor} is the limit"

    def _say_p99_max(self, window: Window, recent: bool) -> str:
        limit = self.settings.p99.max or 0.0
        return f"{_p99(window, recent)}; the limit is {duration(limit)} ({_count_slow(window, limit)})"

    def _say_p99_worse(self, window: Window, recent: bool) -> str:
        factor, before = self.settings.p99.worse_than_before or 0.0, self._p99_before() or 0.0
        return (
            f"{_p99(window, recent)}; it was {duration(before)} for {self.before.pool} before the switch, "
            f"and {format_factor(factor)} is the limit ({_count_slow(window, factor * before)})"
        )


def duration(seconds: float | None) -> str:
    """A latency as people read it: ``95 ms``, ``1.2 s``, ``0.45 ms``."""
    if seconds is None:
        return "unknown"
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1000:.3g} ms"


def _failed(window: Window) -> tuple[int, int]:
    return window.requests, window.errors


def _slow(limit: float) -> Callable[[Window], tuple[int, int]]:
    return lambda window: (window.timed, window.slower(limit))


def _per_cent(share: float) -> str:
    return f"{share * 100:.2g}%" if share < 1 else "100%"


def _p99(window: Window, recent: bool) -> str:
    value = window.quantile(1 - SLOW)
    over = "over " if value is not None and value >= BUCKET_BOUNDS[-1] else ""
    return f"p99{f' of the latest {window.timed:,} requests' if recent else ''} is {over}{duration(value)}"


def _count_slow(window: Window, limit: float) -> str:
    return f"{window.slower(limit):,} of {window.timed:,} took longer than {duration(limit)}"


def _hung(waiting: int, seconds: float) -> str:
    return f"; {waiting:,} wait for an answer for longer than {duration(seconds)}" if waiting else ""
