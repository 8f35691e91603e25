"""What the demo prints: what to open, and what to type in a second terminal."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from bgproxy.cli.client import DEFAULT_ADMIN
from bgproxy.cli.demo.faults import KINDS


def command() -> str:
    """How this installation's `bgproxy` is typed in the present directory, as short as it can be."""
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        return f"{_shortest(Path(sys.executable))} -m bgproxy"
    found = shutil.which("bgproxy")
    if found is not None and Path(found).absolute() == started.absolute():
        return "bgproxy"
    return _shortest(started)


def _shortest(path: Path) -> str:
    """A path from here where it is below here, else whole. Links stay: a virtual environment's python is one."""
    whole = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links
    here = Path.cwd()
    return shlex.quote(str(whole.relative_to(here) if whole.is_relative_to(here) else whole))


def guide(
    shop: str, admin: str, bgproxy: str, good: str, spoiled: Mapping[str, str], *, room: int | None = None
) -> str:
    """The text; `bgproxy` is what `command` says, the others are URLs: `good` of the new version, `spoiled` of bad ones by kind.

    What a command does stands beside it, or above it where the terminal has not `room` columns for that.
    """
    flag = "" if admin == DEFAULT_ADMIN else f" --admin {admin}"
    lines = [
        ("open", ""),
        (f"{shop}/", "the shop; leave it open, and watch who answers"),
        ("", ""),
        ("type in a second terminal, in this directory", ""),
        (f"{bgproxy} status --watch{flag}", "what is live, what is in flight"),
        (f"{bgproxy} switch{flag}", "the switch alone, in one instant"),
        (f"{bgproxy} rollback{flag}", "and back"),
        (f"{bgproxy} history{flag}", "who changed what, when"),
        ("", ""),
        ("deploy a new version: it is verified, compared, warmed, switched to, and watched", ""),
        (f"{bgproxy} deploy{flag} --version 2.0 --upstream {good}", "a good one"),
        ("", ""),
        ("or one with something wrong, and see where it is caught", ""),
        *(
            (f"{bgproxy} deploy{flag} --version {kind} --upstream {url}", f"{KINDS[kind][0]} ({KINDS[kind][1]})")
            for kind, url in spoiled.items()
        ),
        ("", ""),
        ("and", ""),
        (f"curl -H 'X-BGProxy-Pool: idle' {shop}/api/version", "a look at the pool that is not live"),
        (f"curl '{shop}/slow?s=5'", "begin it, then switch: it ends where it began"),
        (f"curl -T some.file -X POST {shop}/upload", "an upload does the same"),
        (f"curl -N {shop}/events", "so does a stream; the drain cuts it 15 s after a switch"),
    ]
    width = max(len(left) for left, right in lines if right)
    wide = room is None or max(width + len(right) + 5 for _, right in lines if right) <= room
    body = "\n".join(
        _beside(left, right, width) if wide and right else _above(left, right) if right else f"\n{left}:"
        for left, right in lines
        if left
    )
    return f"A shop in two versions runs behind bgproxy, all on this machine. Ctrl-C ends it, and leaves nothing behind.\n{body}\n"


def _beside(left: str, right: str, width: int) -> str:
    return f"  {left:<{width}}   {right}"


def _above(left: str, right: str) -> str:
    return f"  # {right}\n  {left}"
