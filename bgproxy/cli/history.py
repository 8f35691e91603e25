"""`bgproxy history`: what was changed by hand, when, by whom and why."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from bgproxy.cli.client import Client
from bgproxy.cli.exits import DONE
from bgproxy.cli.parser import Parser, api_options
from bgproxy.cli.words import printable


def configure(parser: Parser) -> None:
    """The command line of the verb."""
    parser.add_argument("service", nargs="?", metavar="SERVICE", help="only what concerns this service")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many, the latest (50)")
    api_options(parser)
    parser.examples(
        ("bgproxy history", "the last changes, the newest last; kept over restarts"),
        ("bgproxy history shop --limit 5 --json", "for a program"),
    )


def run(args: argparse.Namespace) -> int:
    """Print the history."""
    answer = Client.of(args.admin, args.cacert).get("/v1/history", service=args.service, limit=args.limit)
    if args.json:
        print(answer.text)
        return DONE
    events = answer.data["events"]
    for event in events:
        print(event_line(event))
    if not events:
        print("nothing was changed so far")
    return DONE


def event_line(event: Mapping[str, Any]) -> str:
    """One event as one line: when, what, by whom, why."""
    actor = (event.get("actor") or {}).get("name") or ""
    by = f" [{printable(actor)}]" if actor else ""
    why = f" ({printable(event['reason'])})" if event.get("reason") else ""
    text = printable(event.get("message") or event.get("type", ""))
    return f"{printable(event.get('at', ''))}  {text}{by}{why}"
