"""`bgproxy schema`: the JSON Schema of the configuration, so that editors complete and check it."""

from __future__ import annotations

import argparse
import json

from bgproxy.cli.exits import DONE
from bgproxy.cli.parser import Parser
from bgproxy.config.loading import json_schema


def configure(parser: Parser) -> None:
    """The command line of the verb."""
    parser.examples(
        ("bgproxy schema > bgproxy.schema.json", "then begin bgproxy.yaml with the next line"),
        ("# yaml-language-server: $schema=bgproxy.schema.json", "and the editor completes and checks it"),
    )


def run(args: argparse.Namespace) -> int:  # noqa: ARG001 - every verb is called alike
    """Print the schema."""
    print(json.dumps(json_schema(), indent=2))
    return DONE
