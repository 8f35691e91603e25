"""Throughput beside slow clients: wrk through bgproxy, alone and next to slowhttptest's kinds of attack.

    python benchmarks/slow.py [--clients 1000] [--seconds 15] [--rounds 2] [--build compiled|interpreted]

Each kind is measured between two runs in which the same attack goes to a bystander, a server that has nothing to do with it, and
its figure is what it is of their mean: so neither what the attackers themselves take of the machine counts, nor its ups and downs.
Prints a table, and the median of each kind; exit status 1 if one is below 90% or anybody but the attackers saw an error.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Final

from bench import backend, wrk
from bench.client import status_of
from bench.places import REPOSITORY, free_port, raise_descriptors
from bench.program import Program, poll
from bench.proxies.bgproxy import environment_of, python_of
from bench.setting import Tools

#: slowhttptest's options for each kind, and what it asks for.
KINDS: Final = {
    "slow heads (-H)": (["-H", "-i", "5", "-x", "24"], "/"),
    "slow bodies (-B)": (["-B", "-i", "5", "-s", "1000000", "-x", "10"], "/upload"),
    "ranges (-R)": (["-R", "-a", "10", "-b", "3000"], "/"),
    "slow readers (-X)": (["-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3"], "/1m"),
}
#: Connections of wrk, and what its throughput must be of what it is without an attack.
CONNECTIONS: Final = 32
LEAST: Final = 0.9


def measured(url: str, seconds: float) -> wrk.Outcome:
    done = subprocess.run(
        wrk.command(url, CONNECTIONS, seconds), capture_output=True, text=True, timeout=seconds + 60, check=True
    )
    return wrk.parse(done.stdout)


def attacked(url: str, target: str, kind: str, clients: int, seconds: float) -> wrk.Outcome:
    """One run of wrk at `url` in the middle of an attack on `target` that has all its clients by then."""
    options, path = KINDS[kind]
    rate = max(clients // 3, 1)
    command = ["slowhttptest", *options, "-c", str(clients), "-r", str(rate), "-l", str(int(seconds) + 10), "-p", "5"]
    attack = subprocess.Popen([*command, "-u", target + path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(4.0)
        return measured(url, seconds)
    finally:
        attack.terminate()
        attack.wait(30)


def proxy(stack: ExitStack, tools: Tools, folder: Path, build: str, behind: backend.Backend) -> str:
    """Start bgproxy with its defaults, one worker a core; its URL."""
    port, admin = free_port(), free_port()
    config = folder / "bgproxy.yaml"
    settings = {
        "listen": f"127.0.0.1:{port}",
        "admin": {"listen": f"127.0.0.1:{admin}"},
        "state_dir": str(folder / "state"),
        "pools": {"blue": {"upstreams": [f"http://127.0.0.1:{behind.blue}"]}, "green": {"upstreams": []}},
    }
    config.write_text(json.dumps(settings))
    command = [python_of(tools, build), "-m", "bgproxy", "run", "-c", str(config)]
    program = stack.enter_context(Program("bgproxy", command, ALL_CORES, folder / "bgproxy.log", environment_of(build)))
    poll(lambda: status_of(port) == 200, 20, "bgproxy answers", program)
    return f"http://127.0.0.1:{port}"


ALL_CORES: Final = "0-1023"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=1000, help="slow clients of each kind (1000)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each run of wrk (15)")
    parser.add_argument("--rounds", type=int, default=2, help="of each kind (2)")
    parser.add_argument("--build", choices=("compiled", "interpreted"), default="compiled")
    parser.add_argument("--python", default=str(REPOSITORY / ".venv" / "bin" / "python"), help="that has bgproxy")
    asked = parser.parse_args(arguments)
    files = raise_descriptors()
    tools = Tools.find(asked.python, asked.python, REPOSITORY / ".venv-peers")
    worst = 1.0
    errors = 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bgproxy-slow-")))
        behind = backend.start(stack, tools, folder, ALL_CORES, files)
        url = proxy(stack, tools, folder, asked.build, behind)
        aside = folder / "bystander"
        aside.mkdir()
        other = f"http://127.0.0.1:{backend.start(stack, tools, aside, ALL_CORES, files).blue}"
        measured(url, 3.0)
        print(f"{asked.build}, {asked.clients} slow clients of each kind beside wrk with {CONNECTIONS} connections\n")
        print("| kind | attack elsewhere: requests/s | attack here | of it | errors of others |")
        print("|---|---|---|---|---|")
        for kind in KINDS:
            shares = []
            for _ in range(asked.rounds):
                targets = (other, url, other)
                runs = [attacked(url, target, kind, asked.clients, asked.seconds) for target in targets]
                before, beside, after = (run.requests / run.seconds for run in runs)
                shares.append(beside / ((before + after) / 2))
                wrong = sum(run.errors + run.bad for run in runs)
                errors += wrong
                print(f"| {kind} | {before:.0f}, {after:.0f} | {beside:.0f} | {shares[-1]:.1%} | {wrong} |", flush=True)
            worst = min(worst, median(shares))
            print(f"| {kind}, median | | | {median(shares):.1%} | |", flush=True)
    return 0 if worst >= LEAST and not errors else 1


if __name__ == "__main__":
    sys.exit(main())
