"""h2load: open-loop load, at a rate that the answers do not slow down, with a line for every request."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_REQUESTS: Final = re.compile(
    r"requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout"
)

#: Clients. h2load looks at each one's clock every 10 ms at the most often: with more of them, a rate is not bursts.
CLIENTS: Final = 200
#: Milliseconds between the starts of two clients, so that their clocks do not tick together: 3 and 10 share no divisor.
STAGGER: Final = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """Its own count."""

    total: int
    succeeded: int
    failed: int
    errored: int
    timeout: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One request: when it began (seconds since the epoch), its status (-1: none), how long it took (seconds)."""

    began: float
    status: int
    took: float


def command(url: str, rate: float, seconds: float, log: Path, clients: int = CLIENTS) -> list[str]:
    """So many requests a second over all clients, for so long (and the clients' staggered start)."""
    return [
        *("h2load", "--h1", "-t1", f"-c{clients}", f"--rps={rate / clients:.3f}", "-n", str(round(rate * seconds))),
        *("-r1", f"--rate-period={STAGGER}ms", f"--log-file={log}", url),
    ]


def closed_loop(url: str, seconds: float, clients: int = CLIENTS) -> list[str]:
    """As fast as it answers: what the capacity is."""
    return ["h2load", "--h1", "-t1", f"-c{clients}", "-D", f"{seconds:g}s", url]


def parse(text: str) -> Outcome:
    """Its output; `ValueError` if it is none."""
    found = _REQUESTS.search(text)
    if found is None:
        raise ValueError(f"this is not h2load's output: {text[-500:]!r}")
    total, _, _, succeeded, failed, errored, timeout = (int(number) for number in found.groups())
    return Outcome(total, succeeded, failed, errored, timeout)


def parse_log(text: str) -> list[Answer]:
    """The log file, in the order in which the requests began."""
    answers = []
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) >= 3:
            answers.append(Answer(int(fields[0]) / 1e6, int(fields[1]), int(fields[2]) / 1e6))
    answers.sort(key=lambda answer: answer.began)
    return answers
