"""Where things stand, and the limits that every configuration is rendered with."""

from __future__ import annotations

import resource
import socket
from pathlib import Path
from typing import Final

BENCHMARKS: Final = Path(__file__).resolve().parents[1]
REPOSITORY: Final = BENCHMARKS.parent
TEMPLATES: Final = BENCHMARKS / "peers"
LOAD: Final = BENCHMARKS / "load"

#: Descriptors wanted: ten thousand clients, with as many connections behind them.
WANTED_FILES: Final = 65536


def raise_descriptors() -> int:
    """Raise this process's limit of descriptors, which the programs inherit, as far as it goes; what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limits in ((WANTED_FILES, max(hard, WANTED_FILES)), (hard, hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        except (ValueError, OSError):
            continue
        return limits[0]
    return soft


def free_port() -> int:
    """A port that nobody listens on, on any address of the loopback."""
    with socket.socket() as sock:
        sock.bind(("0.0.0.0", 0))
        return int(sock.getsockname()[1])


def most_clients(files: int) -> int:
    """As many connections as a proxy with so many descriptors can take, each with one behind it; at most 10,000."""
    return min(10_000, files // 2 - 500)
