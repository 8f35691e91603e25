"""The targets, and what was measured against them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Result = dict[str, Any]
KIB, MIB = 1024, 1024 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """At most `limit`; `measure` finds the value in a result, or None."""

    figure: str
    build: str
    limit: float
    measure: Callable[[Result], float | None]
    unit: str = ""


def _at(result: Result, *path: Any) -> Any:
    """Down into the result; None where there is nothing."""
    found: Any = result["groups"]
    for key in path:
        if isinstance(found, list):
            found = next((each for each in found if each["value"] == key), None)
        else:
            found = found.get(key) if isinstance(found, dict) else None
        if found is None:
            return None
    return found


def cost_to(scenario: str, build: str, peer: str) -> Callable[[Result], float | None]:
    """Of the ratios to nginx in the same rounds; to another peer the quotient of the medians."""

    def measure(result: Result) -> float | None:
        if peer == "nginx":
            return _at(result, "cost", scenario, "proxies", build, "ratio", "median")
        ours, theirs = (_at(result, "cost", scenario, "proxies", name, "cost", "median") for name in (build, peer))
        return ours / theirs if ours and theirs else None

    return measure


def _p999(result: Result) -> float | None:
    near, away = (_at(result, "switch", "second", "proxies", "bgproxy", part, "p999") for part in ("near", "away"))
    return near / away if near and away else None


def _lost(result: Result) -> float | None:
    found = [_at(result, "switch", part, "proxies", "bgproxy") for part in ("second", "storm")]
    known = [each["errors"] + each["closed_a_switch"] * each["switches"] for each in found if each]
    return sum(known) if known else None


def _value(*path: Any, over: float = 1) -> Callable[[Result], float | None]:
    def measure(result: Result) -> float | None:
        found = _at(result, *path)
        return None if found is None else found / over

    return measure


PLAIN, SOURCE = "bgproxy", "bgproxy-interpreted"
TARGETS = (
    Target("CPU a small request whose headers repeat, to nginx", PLAIN, 0.85, cost_to("get", PLAIN, "nginx")),
    Target("CPU a small request whose headers repeat, to nginx", SOURCE, 1.1, cost_to("get", SOURCE, "nginx")),
    Target("the same while two headers change, to nginx", PLAIN, 1.05, cost_to("changing", PLAIN, "nginx")),
    Target("the same while two headers change, to nginx", SOURCE, 1.4, cost_to("changing", SOURCE, "nginx")),
    Target("CPU a small request whose headers repeat, to Envoy", PLAIN, 0.25, cost_to("get", PLAIN, "envoy")),
    Target("CPU a small request whose headers repeat, to Caddy", PLAIN, 0.17, cost_to("get", PLAIN, "caddy")),
    Target("CPU a new-connection request, to nginx", PLAIN, 1.5, cost_to("new", PLAIN, "nginx")),
    Target("CPU a new-connection request, to nginx", SOURCE, 2.2, cost_to("new", SOURCE, "nginx")),
    Target("CPU a MiB of 1 MiB answers, to nginx", PLAIN, 0.9, cost_to("body-1m", PLAIN, "nginx")),
    Target("CPU a MiB of 1 MiB answers, to HAProxy", PLAIN, 1.15, cost_to("body-1m", PLAIN, "haproxy")),
    Target("p99.9 in the 250 ms after a switch, to p99.9 away from switches", PLAIN, 1.1, _p999),
    Target("errors and closed connections, a switch every second and ten a second", PLAIN, 0, _lost),
    Target(
        "from the call to the last request on the old pool, nothing in flight (median)",
        PLAIN,
        5,
        _value("switch", "calm", "proxies", PLAIN, "last_on_old_ms", "median"),
        "ms",
    ),
    Target(
        "PSS, whole tree, one worker, at rest",
        PLAIN,
        60,
        _value("memory", "proxies", PLAIN, "rest_bytes", over=MIB),
        "MiB",
    ),
    Target(
        "a kept-alive connection that idles",
        PLAIN,
        4,
        _value("memory", "proxies", PLAIN, "connection_bytes", over=KIB),
        "KiB",
    ),
    Target(
        "CPU a request with 1,000 services, to one (whole tree, checks and all)",
        PLAIN,
        1.15,
        _value("scale", "services", "proxies", PLAIN, 1000, "ratio", "median"),
    ),
    Target(
        "CPU a request with 1,000 services, to one (the worker alone)",
        PLAIN,
        1.15,
        _value("scale", "services", "proxies", PLAIN, 1000, "worker_ratio", "median"),
    ),
    Target(
        "CPU a request with 500 upstreams, to two (whole tree, checks and all)",
        PLAIN,
        1.15,
        _value("scale", "upstreams", "proxies", PLAIN, 500, "ratio", "median"),
    ),
    Target(
        "CPU a request with 500 upstreams, to two (the worker alone)",
        PLAIN,
        1.15,
        _value("scale", "upstreams", "proxies", PLAIN, 500, "worker_ratio", "median"),
    ),
)


def judge(result: Result) -> list[tuple[Target, float | None, str]]:
    """Each target with its value and `met`, `missed` or `not measured`."""
    judged = []
    for target in TARGETS:
        value = target.measure(result)
        word = "not measured" if value is None else "met" if value <= target.limit else "missed"
        judged.append((target, value, word))
    return judged
