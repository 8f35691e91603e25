"""wrk: closed-loop load, as fast as the proxy answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from bench.places import LOAD

_DONE: Final = re.compile(r"(\d+) requests in ([\d.]+)(ms|s|m)")
_SOCKETS: Final = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
_STATUS: Final = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did."""

    requests: int
    seconds: float
    errors: int  # connections refused, broken or silent
    bad: int  # answers that are not 2xx or 3xx


def command(
    url: str, connections: int, seconds: float, *, method="GET", body=0, connection="keep-alive", changing=False
) -> list[str]:
    """One thread; the header fields and the body come from load/browser.lua."""
    script = str(LOAD / "browser.lua")
    last = ["changing"] if changing else []
    arguments = [method, str(body), connection, *last]
    plain = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"]
    return [*plain, "-s", script, url, "--", *arguments]


def parse(text: str) -> Outcome:
    """Its output; `ValueError` if it is none."""
    done = _DONE.search(text)
    if done is None:
        raise ValueError(f"this is not wrk's output: {text[-500:]!r}")
    sockets, status = _SOCKETS.search(text), _STATUS.search(text)
    return Outcome(
        requests=int(done[1]),
        seconds=float(done[2]) * _UNITS[done[3]],
        errors=sum(int(count) for count in sockets.groups()) if sockets else 0,
        bad=int(status[1]) if status else 0,
    )
