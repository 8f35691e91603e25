"""`bgproxy version`: which program this is, whether its hot path is compiled, and which Python runs it."""

from __future__ import annotations

import argparse
import json
import platform

from bgproxy import __version__
from bgproxy.cli.exits import DONE
from bgproxy.cli.parser import Parser
from bgproxy.model.build import build_kind


def configure(parser: Parser) -> None:
    """The command line of the verb."""
    parser.add_argument("--json", action="store_true", help="as a JSON object")
    parser.examples(
        ("bgproxy version", "of this command"),
        ("bgproxy status", "of the proxy that runs"),
    )


def run(args: argparse.Namespace) -> int:
    """Print the version."""
    build, python = build_kind(), platform.python_version()
    if args.json:
        print(json.dumps({"program": "bgproxy", "version": __version__, "build": build, "python": python}))
    else:
        print(f"bgproxy {__version__} ({build}, {platform.python_implementation()} {python})")
    return DONE
