"""`bgproxy check`: every mistake of configuration files, before anything depends on them."""

from __future__ import annotations

import argparse
import sys

from bgproxy.cli.exits import DONE, USAGE
from bgproxy.cli.parser import Parser
from bgproxy.cli.sources import default_file
from bgproxy.cli.words import plural
from bgproxy.config.loading import load_file
from bgproxy.config.schema import Config
from bgproxy.errors import ConfigError, Mistake


def configure(parser: Parser) -> None:
    """The command line of the verb."""
    parser.add_argument("files", nargs="*", metavar="FILE", help="what to check (else the file that `run` would take)")
    parser.examples(
        ("bgproxy check bgproxy.yaml", "all mistakes at once, each with its line and what is allowed"),
        ("bgproxy check config/*.yaml", "several; exit 2 if one of them has a mistake"),
    )


def run(args: argparse.Namespace) -> int:
    """Check each file; mistakes and warnings go to stderr, `ok` lines to stdout. A warning is no mistake."""
    status = DONE
    for file in args.files or [default_file()]:
        warnings: list[Mistake] = []
        try:
            config = load_file(file, warnings=warnings)
        except ConfigError as error:
            _show(warnings)
            for mistake in error.mistakes:
                print(mistake, file=sys.stderr)
            print(f"{file}: {plural(len(error.mistakes), 'mistake')}", file=sys.stderr)
            status = USAGE
        else:
            _show(warnings)
            print(f"{file}: ok: {summary(config)}")
    return status


def _show(warnings: list[Mistake]) -> None:
    for warning in warnings:
        print(warning, file=sys.stderr)


def summary(config: Config) -> str:
    """A configuration in half a line: `2 services (api, shop), listens on 127.0.0.1:8080, admin on 127.0.0.1:8900`."""
    names = ", ".join(sorted(config.services))
    count = plural(len(config.services), "service")
    return f"{count} ({names}), listens on {', '.join(map(str, config.listen))}, admin on {', '.join(config.admin.listen) or 'nothing'}"
