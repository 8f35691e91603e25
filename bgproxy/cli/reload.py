"""`bgproxy reload`: the configuration file anew, whole or not at all."""

from __future__ import annotations

import argparse

from bgproxy.cli.client import Client
from bgproxy.cli.exits import DONE
from bgproxy.cli.parser import Parser, api_options
from bgproxy.cli.words import printable


def configure(parser: Parser) -> None:
    """The command line of the verb."""
    api_options(parser)
    parser.examples(
        ("bgproxy check bgproxy.yaml && bgproxy reload", "look first"),
        ("bgproxy reload", "with one mistake in the file nothing changes, and all mistakes are listed"),
    )


def run(args: argparse.Namespace) -> int:
    """Reload, and say what changed."""
    answer = Client.of(args.admin, args.cacert).send("POST", "/v1/reload", {})
    if args.json:
        print(answer.text)
        return DONE
    message = answer.data.get("message") if isinstance(answer.data, dict) else None
    print(printable(message or "reloaded"))
    return DONE
