"""Where `run` and `check` take the configuration from: a file that was named, a file at a usual place, or flags."""

from __future__ import annotations

import json
import os
from typing import Final

from bgproxy.cli.exits import UsageError

#: Tried in this order when no file is named.
USUAL_FILES: Final = ("./bgproxy.yaml", "/etc/bgproxy/bgproxy.yaml")

_NONE: Final = """\
no configuration: -c FILE was not given, and there is neither ./bgproxy.yaml nor /etc/bgproxy/bgproxy.yaml

Start from the smallest file, as ./bgproxy.yaml:

    listen: 127.0.0.1:8080
    pools:
      blue:  { upstreams: [http://127.0.0.1:9001] }
      green: { upstreams: [http://127.0.0.1:9002] }

or without a file:

    bgproxy run --listen 127.0.0.1:8080 --blue http://127.0.0.1:9001 --green http://127.0.0.1:9002

or look at it first: `bgproxy demo`"""


def default_file(usual: tuple[str, ...] = USUAL_FILES) -> str:
    """The first usual file that there is; raises `UsageError` with the smallest file to start from."""
    for file in usual:
        if os.path.lexists(file):
            return file
    raise UsageError(_NONE)


def text_of_flags(
    *,
    listen: list[str],
    blue: list[str],
    green: list[str],
    admin: str | None,
    workers: str | None,
    state_dir: str | None,
) -> str:
    """The YAML text that flags stand for; JSON's strings are YAML's, so that nothing in them is taken for syntax."""
    lines = []
    if listen:
        lines.append(f"listen: {json.dumps(listen)}")
    if workers is not None:
        lines.append(f"workers: {workers if workers.isdecimal() else json.dumps(workers)}")
    if state_dir is not None:
        lines.append(f"state_dir: {json.dumps(state_dir)}")
    if admin is not None:
        lines.append(f"admin: {{ listen: {json.dumps(admin)} }}")
    lines += [
        "pools:",
        f"  blue: {{ upstreams: {json.dumps(blue)} }}",
        f"  green: {{ upstreams: {json.dumps(green)} }}",
    ]
    return "\n".join(lines) + "\n"
