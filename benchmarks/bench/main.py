"""The command line: which groups, which proxies, how long; everything that was started ends with it."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import backend, machine, proxies, report
from bench.groups import cost, memory, mirror, scale, switch
from bench.places import BENCHMARKS, REPOSITORY, raise_descriptors
from bench.program import ProgramError
from bench.setting import Setting, Tools

GROUPS = {
    "cost": cost.measure,
    "switch": switch.measure,
    "scale": scale.measure,
    "memory": memory.measure,
    "mirror": mirror.measure,
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    own = str(REPOSITORY / ".venv" / "bin" / "python")
    made = argparse.ArgumentParser(
        prog="benchmarks/run.py", description="bgproxy and its peers, measured side by side."
    )
    made.add_argument("groups", nargs="*", metavar="GROUP", help=f"{', '.join(GROUPS)} (all)")
    made.add_argument("--quick", action="store_true", help="two short rounds, fewer scenarios: about 3 minutes")
    made.add_argument("--rounds", type=int, help="measurements of each figure (3; quick: 2)")
    made.add_argument("--seconds", type=float, help="of one measurement (2; quick: 1)")
    made.add_argument("--only", default="", metavar="SCENARIO,...", help="these scenarios of the groups")
    made.add_argument("--peers", default="", metavar="NAME,...", help=f"{', '.join(proxies.PEERS)}, none")
    made.add_argument(
        "--builds", default="", metavar="NAME,...", help="of bgproxy: compiled,interpreted (quick: compiled)"
    )
    made.add_argument("--compiled-python", default=own, help="the Python that bgproxy is installed in, compiled")
    made.add_argument("--interpreted-python", default=own, help="the Python that runs the source tree")
    made.add_argument(
        "--peers-venv", type=Path, default=REPOSITORY / ".venv-peers", help="what `make bench-peers` made"
    )
    made.add_argument("--proxy-cores", default="0", help="as taskset takes them")
    made.add_argument("--load-cores", default="", help="of load and back end (all the others)")
    made.add_argument("--out", type=Path, default=BENCHMARKS / "results", help="where the report goes")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Measure, write, report."""
    options = parser()
    args = options.parse_args(arguments)
    groups = args.groups or list(GROUPS)
    builds = args.builds.split(",") if args.builds else ["compiled"] if args.quick else list(proxies.BUILDS)
    peers = args.peers.split(",") if args.peers else ["nginx", "haproxy"] if args.quick else list(proxies.PEERS)
    for what, names, known in (
        ("group", groups, GROUPS),
        ("build", builds, proxies.BUILDS),
        ("peer", [name for name in peers if name != "none"], proxies.PEERS),
    ):
        for name in names:
            if name not in known:
                options.error(f"no such {what}: {name} (there are {', '.join(known)})")
    tools = Tools.find(args.compiled_python, args.interpreted_python, args.peers_venv)
    for name in ("wrk", "h2load", "nginx"):
        if not getattr(tools, name):
            options.error(f"{name} is needed (on Debian and Ubuntu: apt install wrk nghttp2-client nginx)")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            setting = _setting(stack, args, tools)
            result = _measure(setting, groups, peers, builds)
    except KeyboardInterrupt:
        print("stopped; nothing is left running", file=sys.stderr)
        return 130
    except ProgramError as error:
        print(error, file=sys.stderr)
        return 1
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(f"written: {', '.join(str(path) for path in report.write(result, args.out))}")
    return 1 if result["failed"] else 0


def _setting(stack: ExitStack, args: argparse.Namespace, tools: Tools) -> Setting:
    """Start the back end; everything in a folder that goes with the run."""
    cores = sorted(os.sched_getaffinity(0))
    load = args.load_cores or ",".join(str(core) for core in cores if str(core) not in args.proxy_cores.split(","))
    if not load:
        raise ProgramError("one core for the proxy and one for the load: this machine has only one")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bgproxy-bench-")))
    folder.chmod(0o755)  # nginx's worker is another user where root starts it
    os.sched_setaffinity(0, {int(core) for core in load.split(",")} if "-" not in load else cores)
    files = raise_descriptors()
    return Setting(
        folder=folder,
        proxy_cores=args.proxy_cores,
        load_cores=load,
        files=files,
        backend=backend.start(stack, tools, folder, load, files),
        tools=tools,
        rounds=args.rounds or (2 if args.quick else 3),
        seconds=args.seconds or (1.0 if args.quick else 2.0),
        quick=args.quick,
        only=tuple(name for name in args.only.split(",") if name),
    )


def _measure(setting: Setting, groups: list[str], peers: list[str], builds: list[str]) -> dict[str, Any]:
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)

    names, missing = proxies.choose(setting.tools, peers, builds)
    for name, reason in missing.items():
        say(f"left out: {name}: {reason}")
    result: dict[str, Any] = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine.describe(),
        "versions": machine.versions(setting.tools, names),
        "left_out": missing,
        "settings": {
            "rounds": setting.rounds,
            "seconds": setting.seconds,
            "quick": setting.quick,
            "proxy_cores": setting.proxy_cores,
            "load_cores": setting.load_cores,
            "load_average": os.getloadavg()[0],
        },
        "failed": {},
        "groups": {},
    }
    for group in groups:
        try:
            result["groups"][group] = GROUPS[group](setting, say, names)
        except (ProgramError, OSError) as error:  # the other groups' figures are not lost by it
            result["failed"][group] = str(error).splitlines()[0][:300]
            say(f"failed: {group}: {error}")
    result["seconds"] = round(time.monotonic() - began)
    return result
