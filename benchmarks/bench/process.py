"""What the operating system says about a process and all that descends from it: CPU seconds, memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

TICKS: Final = os.sysconf("SC_CLK_TCK")


def stat_fields(text: str) -> list[str]:
    """The fields of /proc/PID/stat from the third (state) on; the second may hold spaces and brackets (proc(5))."""
    return text.rpartition(")")[2].split()


def family(root: int) -> list[int]:
    """A process and its descendants, as of now."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names alone are wanted
        if entry.isdigit():
            try:
                parent = int(stat_fields(Path(f"/proc/{entry}/stat").read_text())[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of processes and of their children that have ended and been waited for."""
    ticks = 0
    for pid in pids:
        try:
            fields = stat_fields(Path(f"/proc/{pid}/stat").read_text())
        except OSError:
            continue
        ticks += sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
    return ticks / TICKS


def pss_bytes(pids: Iterable[int]) -> int:
    """Proportional set size: each page counted once, shared ones divided among who share them (proc(5))."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += pss_of(text)
    return total


def pss_of(text: str) -> int:
    """The Pss line of a smaps_rollup, in bytes."""
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
