"""What requests met around switches and away from them: pure sums over logs."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.h2load import Answer
from bench.stats import quantile

#: Seconds after the call in which a request counts as one around the switch.
WINDOW = 0.25
#: Seconds of one point of the plot, and what it shows before and after the call.
BIN = 0.01
BEFORE, AFTER = 0.25, 0.5


@dataclass(frozen=True, slots=True)
class Switch:
    """One switch: seconds since the epoch at the call and at its return, and the pool that is live then."""

    called: float
    returned: float
    to: str


def latencies(seconds: Sequence[float]) -> dict[str, float] | None:
    """p50, p99, p99.9 and the largest, in milliseconds; None without any."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    found = {"p50": quantile(ordered, 0.5), "p99": quantile(ordered, 0.99), "p999": quantile(ordered, 0.999)}
    return {name: value * 1000 for name, value in (*found.items(), ("max", ordered[-1]))} | {"count": len(ordered)}


def around(answers: Sequence[Answer], switches: Sequence[Switch]) -> dict[str, Any]:
    """Latencies of requests that began, or were under way, within the window after a call, and of the others."""
    calls = sorted(switch.called for switch in switches)
    near, away = [], []
    for answer in answers:
        at = bisect.bisect_right(calls, answer.began + answer.took) - 1
        (near if at >= 0 and answer.began <= calls[at] + WINDOW else away).append(answer.took)
    return {"near": latencies(near), "away": latencies(away)}


def points(answers: Sequence[Answer], switches: Sequence[Switch]) -> list[dict[str, float]]:
    """Latency by when a request began, counted from the call nearest before: p50, p99, max (ms) of each bin."""
    bins: dict[int, list[float]] = {}
    for switch in switches:
        first = bisect.bisect_left(answers, switch.called - BEFORE, key=lambda answer: answer.began)
        for index in range(first, len(answers)):
            offset = answers[index].began - switch.called
            if offset > AFTER:
                break
            bins.setdefault(int(offset // BIN), []).append(answers[index].took)
    found = []
    for number in sorted(bins):
        said = latencies(bins[number])
        if said is not None:
            found.append({"ms": (number + 0.5) * BIN * 1000, **{name: said[name] for name in ("p50", "p99", "max")}})
    return found


@dataclass(frozen=True, slots=True)
class Probe:
    """One line of the prober."""

    sent: float
    what: str
    took: float  # seconds

    @property
    def answered(self) -> bool:
        return self.what in ("blue", "green")


def parse_probes(text: str) -> list[Probe]:
    """The prober's file."""
    lines = (line.split() for line in text.splitlines())
    return [Probe(float(sent), what, int(took) / 1e6) for sent, what, took in lines]


def last_on_old(probes: Sequence[Probe], switches: Sequence[Switch]) -> list[float]:
    """For each switch: milliseconds from the call to the sending of the last request that the old pool answered.

    At least 0: a request that the old pool answers before the call is none of the switch's business. Nor is one that was
    under way at the next call, which makes the old pool the new one.
    """
    found = []
    for index, switch in enumerate(switches):
        end = switches[index + 1].called if index + 1 < len(switches) else float("inf")
        first = bisect.bisect_left(probes, switch.called, key=lambda probe: probe.sent)
        last = switch.called
        for probe in probes[first:]:
            if probe.sent + probe.took >= end:
                break
            if probe.answered and probe.what != switch.to:
                last = probe.sent
        found.append((last - switch.called) * 1000)
    return found
