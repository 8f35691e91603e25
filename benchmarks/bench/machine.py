"""On what it was measured, and what was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from bench.proxies import BUILDS, PEERS
from bench.proxies.bgproxy import Bgproxy, environment_of
from bench.setting import Tools


def describe() -> dict[str, Any]:
    """Processor, kernel, Python."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _first_line(command: list[str], env: dict[str, str] | None = None) -> str:
    """What a program says first; wrk says it with status 1."""
    try:
        done = subprocess.run(
            command,
            env=os.environ | (env or {}),
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    # Envoy begins with its own path, which says where somebody's files are and nothing about Envoy.
    return lines[0].removeprefix(command[0]).strip() if lines else ""


def versions(tools: Tools, names: list[str]) -> dict[str, str]:
    """Of the proxies that run and of what loads them."""
    found = {name: _first_line(PEERS[name].version(tools)) for name in names if name in PEERS}
    for build, name in BUILDS.items():
        if name in names:
            found[name] = _first_line(Bgproxy.version(tools, build), environment_of(build))
    found["wrk"] = _first_line([tools.wrk, "-v"]).partition(" Copyright")[0]
    found["h2load"] = _first_line([tools.h2load, "--version"])
    return found
