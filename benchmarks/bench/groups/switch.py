"""Switches under open-loop load: latency around them and away from them, errors, closed connections, how fast they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from bench import h2load, proxies
from bench.h2load import Answer
from bench.places import BENCHMARKS
from bench.program import Program, poll, run
from bench.proxies.base import Proxy
from bench.setting import Setting, command_of
from bench.stats import spread
from bench.timeline import Switch, around, last_on_old, latencies, parse_probes, points

#: Share of the capacity that the load asks for.
LOAD = 0.5
#: The prober: connections that take turns, and microseconds between two requests.
PROBES, PAUSE = 16, 500
#: Seconds that the clients take to start, and are left out.
START = h2load.CLIENTS * h2load.STAGGER / 1000 + 0.5
#: Who takes part in the storm: a reload, or a new configuration, ten times a second is nobody's use of the others.
STORM = ("bgproxy", "haproxy")


def measure(setting: Setting, say: Callable[[str], None], names: Sequence[str]) -> dict[str, Any]:
    """Every proxy that can be switched; JSON."""
    results: dict[str, Any] = {}
    length, storm, calm = (6.0, 3.0, 6) if setting.quick else (20.0, 30.0, 12)
    for scenario, every, seconds in (("second", 1.0, length), ("storm", 0.1, storm)):
        if setting.wants(scenario):
            results[scenario] = {"command": command_of("switch", scenario), "every": every, "proxies": {}}
            for name in names:
                if proxies.kind(name).way and (scenario == "second" or name in STORM):
                    say(f"switch: {name}, every {every:g} s")
                    results[scenario]["proxies"][name] = _under_load(setting, name, every, seconds)
    if setting.wants("calm"):
        results["calm"] = {"command": command_of("switch", "calm"), "proxies": {}}
        for name in names:
            if proxies.kind(name).way:
                say(f"switch: {name}, nothing in flight")
                results["calm"]["proxies"][name] = _calm(setting, name, calm)
    return results


def _under_load(setting: Setting, name: str, every: float, seconds: float) -> dict[str, Any]:
    with ExitStack() as stack:
        proxy = proxies.make(name, setting, stack)
        capacity = _capacity(setting, proxy)
        probing = _prober(setting, stack, proxy)
        if proxy.keeps:
            parts = [_part(setting, proxy, capacity * LOAD, every, seconds)]
        else:
            parts = [
                _part(setting, proxy, capacity * LOAD, every, every, number) for number in range(round(seconds / 3))
            ]
        probing.stop()
    switches = [switch for part in parts for switch in part.switches]
    answers = [answer for part in parts for answer in part.answers]
    given_up = sum(part.given_up for part in parts)
    good = [answer for answer in answers if answer.status == 200]
    probes = parse_probes(probing.target.read_text())
    during = [probe for probe in probes if any(part.began <= probe.sent <= part.ended for part in parts)]
    return {
        "way": proxy.way,
        "capacity": capacity,
        "rate": capacity * LOAD,
        "core": spread([part.core for part in parts]).median,
        "switches": len(switches),
        **around(good, switches),
        "prober": around([Answer(probe.sent, 200, probe.took) for probe in during if probe.answered], switches),
        "points": points(good, switches) if every >= 1 else [],
        "requests": len(answers) + len(probes),
        "errors": len(answers) - len(good) + (given_up if proxy.keeps else 0) + sum(p.what == "error" for p in probes),
        "closed_a_switch": sum(probe.what in ("closed", "error") for probe in during) / len(switches),
        "given_up": given_up,
        "call_ms": latencies([switch.returned - switch.called for switch in switches]),
        "last_on_old_ms": spread(last_on_old(probes, switches)).to_json(),
    }


@dataclass(frozen=True, slots=True)
class _Part:
    """One run of h2load with the switches in it; times in seconds since the epoch."""

    began: float
    ended: float
    switches: list[Switch]
    answers: list[Answer]
    core: float
    given_up: int  # requests without an answer: h2load sends none over a connection that was closed


def _part(setting: Setting, proxy: Proxy, rate: float, every: float, seconds: float, number: int = 0) -> _Part:
    log, output = setting.folder / "h2load.log", setting.folder / "load.log"
    log.unlink(missing_ok=True)
    command = h2load.command(proxy.url(), rate, START + 0.5 + seconds, log)
    with Program("h2load", command, setting.load_cores, output) as load:
        time.sleep(START)
        before = proxy.program.cpu()
        began = time.time()
        time.sleep(0.5)
        switches = _switches(proxy, every, seconds, number)
        ended = time.time()
        used = proxy.program.cpu() - before
        # A client whose connection was closed keeps h2load from ending; the stack of this block ends it then.
        poll(lambda: load.ended() or time.time() > ended + 5, 30, "the end of h2load")
    every_answer = h2load.parse_log(log.read_text())
    return _Part(
        began,
        ended,
        switches,
        [answer for answer in every_answer if began <= answer.began <= ended],
        used / (ended - began),
        max(0, round(rate * (START + 0.5 + seconds)) - len(every_answer)),
    )


def _calm(setting: Setting, name: str, count: int) -> dict[str, Any]:
    """Switches while nothing but the prober asks: no request is in flight but its one."""
    with ExitStack() as stack:
        proxy = proxies.make(name, setting, stack)
        probing = _prober(setting, stack, proxy)
        time.sleep(0.5)
        switches = _switches(proxy, 0.5, count * 0.5)
        time.sleep(0.5)
        probing.stop()
    probes = parse_probes(probing.target.read_text())
    return {
        "way": proxy.way,
        "switches": len(switches),
        "prober": around([Answer(probe.sent, 200, probe.took) for probe in probes if probe.answered], switches),
        "call_ms": latencies([switch.returned - switch.called for switch in switches]),
        "last_on_old_ms": spread(last_on_old(probes, switches)).to_json(),
        "errors": sum(probe.what == "error" for probe in probes),
        "closed_a_switch": sum(probe.what in ("closed", "error") for probe in probes) / len(switches),
    }


def _capacity(setting: Setting, proxy: Proxy) -> float:
    """Requests a second of the same client, closed-loop: proxy, load and back end as they will share the cores."""
    seconds = max(1.0, setting.seconds)
    command = h2load.closed_loop(proxy.url(), seconds)
    said = run("h2load", command, setting.load_cores, setting.folder / "load.log", seconds + 30)
    return h2load.parse(said).succeeded / seconds


def _switches(proxy: Proxy, every: float, seconds: float, number: int = 0) -> list[Switch]:
    """One on every tick, from blue to green where `number` is even; a tick that a slow switch has missed is left out."""
    switches: list[Switch] = []
    to, start = "blue" if number % 2 else "green", time.monotonic()
    tick = 0.0
    while tick < seconds:
        time.sleep(max(0.0, start + tick - time.monotonic()))
        called = time.time()
        proxy.switch(to)
        switches.append(Switch(called, time.time(), to))
        to = "blue" if to == "green" else "green"
        tick = max(tick + every, (time.monotonic() - start) // every * every)
    time.sleep(min(1.0, every))
    return switches


class _Prober(Program):
    """The prober with the file that it writes at its end."""

    def __init__(self, setting: Setting, proxy: Proxy):
        self.target = proxy.folder / "probes"
        script = str(BENCHMARKS / "bench" / "prober.py")
        numbers = (str(proxy.port), str(PROBES), str(PAUSE))
        command = [setting.tools.python, script, *numbers, str(self.target)]
        super().__init__("the prober", command, setting.load_cores, proxy.folder / "prober.log")


def _prober(setting: Setting, stack: ExitStack, proxy: Proxy) -> _Prober:
    return stack.enter_context(_Prober(setting, proxy))
