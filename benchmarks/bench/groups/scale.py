"""What grows with connections, services, upstreams and workers: CPU a request, memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from bench import proxies
from bench.groups.cost import once
from bench.groups.scenarios import SCENARIOS
from bench.holding import Held
from bench.places import most_clients
from bench.program import ProgramError
from bench.proxies.base import Proxy
from bench.proxies.bgproxy import Bgproxy
from bench.setting import Setting, command_of
from bench.stats import ratios, spread

GET = next(scenario for scenario in SCENARIOS if scenario.name == "get")
#: At the most: each point is a start, a rest and a load.
ROUNDS = 2
#: Seconds after the start in which every upstream has been checked twice, and nothing is caught up on.
SETTLE = 2.5


def measure(setting: Setting, say: Callable[[str], None], names: Sequence[str]) -> dict[str, Any]:
    """All four axes; JSON."""
    few = [name for name in names if name in ("nginx", "bgproxy")]
    ours = [name for name in names if name == "bgproxy"] or [name for name in names if name == "bgproxy-interpreted"]
    axes = {
        "connections": (few, (10, 1000, most_clients(setting.files))),
        "services": (ours, (1, 1000) if setting.quick else (1, 100, 1000)),
        "upstreams": (ours, (2, 500) if setting.quick else (2, 50, 500)),
        "workers": (ours, (1, 2, 4)),
    }
    axes = {axis: axes[axis] for axis in axes if axis in ("services", "upstreams") or not setting.quick or setting.only}
    results = {}
    for axis, (members, values) in axes.items():
        if setting.wants(axis):
            say(f"scale: {axis}")
            results[axis] = {
                "command": command_of("scale", axis),
                "proxies": {name: _axis(setting, say, name, axis, values) for name in members},
            }
    return results


def _axis(
    setting: Setting, say: Callable[[str], None], name: str, axis: str, values: Sequence[int]
) -> list[dict[str, Any]]:
    """Along one axis: rounds over all its values, so that a slow minute of the machine is everybody's."""
    series: dict[int, list[dict[str, float]]] = {value: [] for value in values}
    failed: dict[int, str] = {}
    for _ in range(1 if setting.quick else min(ROUNDS, setting.rounds)):
        for value in values:
            if value not in failed:
                try:
                    series[value].append(_point(setting, name, axis, value))
                except (ProgramError, OSError) as error:
                    failed[value] = str(error).splitlines()[0][:300]
                    say(f"scale: {name}, {value} {axis}: {failed[value]}")
    return [
        {"value": value, "failed": failed[value]}
        if value in failed
        else _summary(series[value], series[values[0]], value)
        for value in values
    ]


def _summary(rounds: Sequence[dict[str, float]], first: Sequence[dict[str, float]], value: int) -> dict[str, Any]:
    """Medians and spreads of one point, and its ratios to the first one of the same rounds; JSON."""
    found: dict[str, Any] = {"value": value}
    for key in rounds[0]:
        found[key] = spread([each[key] for each in rounds]).to_json()
    for key, ratio in (("cost", "ratio"), ("worker_cost", "worker_ratio")):
        if key in rounds[0]:
            to_first = ratios([each[key] for each in rounds], [each[key] for each in first])
            found[ratio] = to_first.to_json() if to_first else None
    return found


def _point(setting: Setting, name: str, axis: str, value: int) -> dict[str, float]:
    with ExitStack() as stack:
        proxy = proxies.make(name, setting, stack, **_arguments(setting, axis, value))
        time.sleep(SETTLE)
        if axis == "connections":
            stack.enter_context(Held(proxy.port)).more(value)
        once(setting, GET, proxy, 1.0)
        before = proxy.workers_cpu() if isinstance(proxy, Bgproxy) else 0.0
        found = once(setting, GET, proxy, setting.seconds)
        if found["errors"] or found["bad"]:
            raise OSError(f"{name}, {value} {axis}: {found}")
        point = {"cost": found["cost"], "rate": found["rate"], "pss_bytes": float(proxy.program.pss())}
        if isinstance(proxy, Bgproxy):
            used = proxy.workers_cpu() - before
            point["worker_cost"] = used * 1e6 / (found["rate"] * setting.seconds)
            point["resting_core"] = _resting(proxy)
        return point


def _resting(proxy: Proxy) -> float:
    """The share of a core that it takes while nobody asks: health checks, most of it."""
    before, began = proxy.program.cpu(), time.monotonic()
    time.sleep(2)
    return (proxy.program.cpu() - before) / (time.monotonic() - began)


def _arguments(setting: Setting, axis: str, value: int) -> dict[str, Any]:
    if axis == "services":
        return {"services": value}
    if axis == "workers":
        return {"workers": value}
    if axis == "upstreams":
        # As many addresses of the loopback, one back end behind them.
        port = setting.backend.blue
        return {"blue_urls": [f"http://127.0.{1 + n // 250}.{1 + n % 250}:{port}" for n in range(value)]}
    return {}
