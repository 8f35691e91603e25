"""CPU a request, a MiB, a message: every scenario, every proxy in turn, in rounds."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from bench import certificate, proxies, wrk
from bench.groups.scenarios import FEW, SCENARIOS, Scenario
from bench.places import BENCHMARKS
from bench.program import run
from bench.proxies.base import Proxy
from bench.setting import Setting, command_of
from bench.stats import ratios, spread

#: Seconds of load before the first measurement of a scenario: connections open, caches fill.
WARM = 1.0


def measure(setting: Setting, say: Callable[[str], None], names: Sequence[str]) -> dict[str, Any]:
    """All scenarios that are wanted; JSON."""
    wanted = [each for each in SCENARIOS if setting.wants(each.name) and (each.quick or not setting.quick)]
    results: dict[str, Any] = {}
    for websocket, tls in ((False, False), (False, True), (True, False)):
        part = [each for each in wanted if (each.websocket, each.tls) == (websocket, tls)]
        here = [name for name in names if not tls or proxies.kind(name).tls]
        if part and here:
            with ExitStack() as stack:
                more = {"blue": setting.backend.echo} if websocket else {"secure": True} if tls else {}
                running = [proxies.make(name, setting, stack, **more) for name in here]
                for scenario in part:
                    say(f"cost: {scenario.title}")
                    results[scenario.name] = _scenario(setting, scenario, running)
    return results


def _scenario(setting: Setting, scenario: Scenario, running: Sequence[Proxy]) -> dict[str, Any]:
    taking_part = [
        proxy
        for proxy in running
        if (scenario.everyone or proxy.label in FEW) and (proxy.websockets or not scenario.websocket)
    ]
    rounds: dict[str, list[dict[str, float]]] = {proxy.label: [] for proxy in taking_part}
    for proxy in taking_part:
        once(setting, scenario, proxy, WARM)
    for number in range(setting.rounds):
        # Each round begins with another one, so that nobody always follows the same neighbour.
        shift = number % len(taking_part)
        for proxy in (*taking_part[shift:], *taking_part[:shift]):
            rounds[proxy.label].append(once(setting, scenario, proxy, setting.seconds))
    return {
        "title": scenario.title,
        "unit": scenario.unit,
        "connections": scenario.connections,
        "command": command_of("cost", scenario.name),
        "proxies": summary(rounds, setting.base),
    }


def once(setting: Setting, scenario: Scenario, proxy: Proxy, seconds: float) -> dict[str, float]:
    """One measurement: what the proxy's processes used while the load ran, over what the load got done."""
    log = setting.folder / "load.log"
    before = proxy.program.cpu()
    if scenario.websocket:
        chatter = [setting.tools.python, str(BENCHMARKS / "bench" / "chatter.py")]
        command = [*chatter, str(proxy.port), str(scenario.connections), str(seconds)]
        said = json.loads(run("chatter", command, setting.load_cores, log, seconds + 30))
        done, took, errors, bad = said["messages"], said["seconds"], said["errors"], 0
    elif scenario.handshakes:
        command = certificate.handshakes(proxy.port, seconds)
        done, took = certificate.parse(run("openssl", command, setting.load_cores, log, seconds + 30))
        errors, bad = 0, 0
    else:
        command = wrk.command(proxy.url(scenario.path), scenario.connections, seconds, **scenario.load)
        outcome = wrk.parse(run("wrk", command, setting.load_cores, log, seconds + 30))
        done, took, errors, bad = outcome.requests, outcome.seconds, outcome.errors, outcome.bad
    used = proxy.program.cpu() - before
    amount = done * (scenario.mib or 1)
    return {
        "cost": used * 1e6 / amount if amount else 0.0,
        "rate": amount / took,
        "core": used / took,  # share of one core
        "errors": errors,
        "bad": bad,
    }


def summary(rounds: dict[str, list[dict[str, float]]], base: str) -> dict[str, Any]:
    """Medians with their spread, and ratios to the base in the same round; JSON."""
    costs = {name: [each["cost"] for each in series] for name, series in rounds.items()}
    found: dict[str, Any] = {}
    for name, series in rounds.items():
        ratio = ratios(costs[name], costs[base]) if base in costs else None
        found[name] = {
            "cost": spread(costs[name]).to_json(),
            "rate": spread([each["rate"] for each in series]).to_json(),
            "core": spread([each["core"] for each in series]).to_json(),
            "ratio": ratio.to_json() if ratio else None,
            "errors": sum(each["errors"] for each in series),
            "bad": sum(each["bad"] for each in series),
        }
    return found
