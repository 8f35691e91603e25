"""What live requests pay while all of them are mirrored to an idle pool that never answers: against none, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from bench import h2load, proxies
from bench.places import BENCHMARKS, free_port
from bench.process import pss_bytes
from bench.program import Program, poll, run
from bench.proxies.bgproxy import Bgproxy
from bench.setting import Setting, command_of
from bench.stats import ratios, spread
from bench.timeline import latencies

#: Share of the capacity that the load asks for.
LOAD = 0.5
#: Seconds that the clients take to start, and are left out.
START = h2load.CLIENTS * h2load.STAGGER / 1000 + 0.5
#: A comparison that goes on for longer than any measurement, whatever it finds.
DEPLOYMENT = {"compare": {"mirror": "100%", "for": "1h", "mismatches": "100%", "timeout": "2s"}, "approve": "manual"}


def measure(setting: Setting, say: Callable[[str], None], names: Sequence[str]) -> dict[str, Any]:
    """Of every build of bgproxy; JSON. The others mirror in other ways, or not at all."""
    found: dict[str, Any] = {}
    for name in names:
        if proxies.kind(name) is Bgproxy:
            say(f"mirror: {name}, to a pool that hangs")
            found[name] = _once(setting, name)
    return {"command": command_of("mirror"), "proxies": found}


def _once(setting: Setting, name: str) -> dict[str, Any]:
    with ExitStack() as stack:
        port = free_port()
        command = [setting.tools.python, str(BENCHMARKS / "bench" / "hanging.py"), str(port)]
        stack.enter_context(Program("the pool that hangs", command, setting.load_cores, setting.folder / "hanging.log"))
        proxy = proxies.make(name, setting, stack, green=port, deployment=DEPLOYMENT)
        assert isinstance(proxy, Bgproxy)
        rate = _capacity(setting, proxy) * LOAD
        _part(setting, proxy, rate)  # connections open, caches fill
        off: list[dict[str, float]] = []
        on: list[dict[str, float]] = []
        for number in range(setting.rounds * 2):
            if number % 2 == (number // 2) % 2:  # off on, on off, off on: neither always comes first
                off.append(_part(setting, proxy, rate))
            else:
                deployment = proxy.deploy()
                proxy.until(deployment, "comparing")
                on.append(_part(setting, proxy, rate))
                proxy.abort(deployment)
    return {
        "rate": rate,
        "mirrored": sum(part["mirrored"] for part in on),
        "dropped": sum(part["dropped"] for part in on),
        "errors": sum(part["errors"] for part in (*off, *on)),
        "off": {key: spread([part[key] for part in off]).to_json() for key in ("p50", "p99", "pss_bytes")},
        "on": {key: spread([part[key] for part in on]).to_json() for key in ("p50", "p99", "pss_bytes")},
        "p99_ratio": _ratio([part["p99"] for part in on], [part["p99"] for part in off]),
    }


def _capacity(setting: Setting, proxy: Bgproxy) -> float:
    """Requests a second of the same client, closed-loop."""
    seconds = max(1.0, setting.seconds)
    said = run(
        "h2load",
        h2load.closed_loop(proxy.url(), seconds),
        setting.load_cores,
        setting.folder / "load.log",
        seconds + 30,
    )
    return h2load.parse(said).succeeded / seconds


def _ratio(on: Sequence[float], off: Sequence[float]) -> dict[str, float] | None:
    found = ratios(on, off)
    return found.to_json() if found else None


def _part(setting: Setting, proxy: Bgproxy, rate: float) -> dict[str, float]:
    """One run of h2load: milliseconds, bytes, counts."""
    log = setting.folder / "h2load.log"
    log.unlink(missing_ok=True)
    counted = proxy.mirrored()
    command = h2load.command(proxy.url(), rate, START + setting.seconds, log)
    with Program("h2load", command, setting.load_cores, setting.folder / "load.log") as load:
        began = time.time() + START
        poll(load.ended, START + setting.seconds + 30, "the end of h2load")
    answers = [answer for answer in h2load.parse_log(log.read_text()) if answer.began >= began]
    said = latencies([answer.took for answer in answers if answer.status == 200]) or {}
    mirrored, dropped = (now - before for now, before in zip(proxy.mirrored(), counted, strict=True))
    return {
        "p50": said.get("p50", 0.0),
        "p99": said.get("p99", 0.0),
        "errors": sum(answer.status != 200 for answer in answers),
        "pss_bytes": float(pss_bytes(proxy.workers_pids())),
        "mirrored": mirrored,
        "dropped": dropped,
    }
