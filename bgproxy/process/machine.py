"""What this machine lets the program have: processors, and open files."""

from __future__ import annotations

import math
import os
import resource
from pathlib import Path
from typing import Final

CPU_MAX: Final = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2; a container sees its own there


def usable_cpus(cpu_max: Path = CPU_MAX) -> int:
    """How many processors this process may use: its affinity, and the quota of its container, rounded up. At least 1."""
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
        allowed = math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no cgroup v2 here, or "max"
        return max(cpus, 1)
    return max(min(cpus, allowed), 1)


def allow_open_files(wanted: int) -> int:
    """Raise the soft limit of open files to `wanted`, as far as the hard one lets; returns what is allowed now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # a sandbox may forbid it
        return soft
    return wanted
