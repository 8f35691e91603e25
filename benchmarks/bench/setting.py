"""What every part of a run needs to know: cores, folders, ports of the back end, the programs that were found."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from bench.places import REPOSITORY


@dataclass(frozen=True, slots=True)
class Backend:
    """The ports of the back end: blue and green speak HTTP, echo WebSockets."""

    blue: int
    green: int
    echo: int


@dataclass(frozen=True, slots=True)
class Tools:
    """Programs; an empty path for one that is not on the machine."""

    wrk: str
    h2load: str
    nginx: str
    haproxy: str
    caddy: str
    envoy: str
    compiled: str  # the Python that has bgproxy installed, compiled
    interpreted: str  # the Python that runs the source tree
    python: str = sys.executable

    @classmethod
    def find(cls, compiled: str, interpreted: str, peers: Path) -> Tools:
        """On the path, in sbin, and in the virtual environment of the peers."""
        folders = "/usr/sbin:/usr/local/sbin"

        def program(name: str) -> str:
            return (
                shutil.which(str(peers / "bin" / name)) or shutil.which(name) or shutil.which(name, path=folders) or ""
            )

        names = ("wrk", "h2load", "nginx", "haproxy", "caddy", "envoy")
        return cls(*(program(name) for name in names), compiled=compiled, interpreted=interpreted)


@dataclass(frozen=True, slots=True)
class Setting:
    """One run of the suite."""

    folder: Path  # of this run alone; removed after it
    proxy_cores: str
    load_cores: str
    files: int  # descriptors that a process may have
    backend: Backend
    tools: Tools
    rounds: int = 3
    seconds: float = 2.0  # of one measurement
    quick: bool = False
    only: tuple[str, ...] = ()  # scenarios; empty: all
    base: str = field(default="nginx")  # what ratios are to

    def wants(self, scenario: str) -> bool:
        return not self.only or scenario in self.only


def command_of(group: str, scenario: str = "") -> str:
    """What gives a figure, typed in the root of the repository."""
    python = Path(sys.executable)
    shown = python.relative_to(REPOSITORY) if python.is_relative_to(REPOSITORY) else "python"
    return f"{shown} benchmarks/run.py {group}" + (f" --only {scenario}" if scenario else "")
