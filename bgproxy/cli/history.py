"""`bgproxy history`: what was changed by hand, when, by whom and why."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from bgproxy.cli.client import Client, service_path
from bgproxy.cli.exits import DONE
from bgproxy.cli.parser import Parser, api_options
from bgproxy.cli.story import outcome, story
from bgproxy.cli.terminal import Paint, show
from bgproxy.cli.words import printable


def configure(parser: Parser) -> None:
    """The command line of the verb."""
    parser.add_argument("service", nargs="?", metavar="SERVICE", help="only what concerns this service")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many, the latest (50)")
    parser.add_argument(
        "--deployment",
        type=int,
        metavar="N",
        help="all that is known of this deployment: its stages and what they found",
    )
    parser.add_argument(
        "--deployments",
        action="store_true",
        help="the deployments, a line each; they are kept longer than all that was changed",
    )
    api_options(parser)
    parser.examples(
        ("bgproxy history", "the last changes, the newest last; kept over restarts"),
        ("bgproxy history shop --limit 5 --json", "for a program"),
        ("bgproxy history --deployments shop", "how each ended and why, for how long it ran, by whom; the newest last"),
        ("bgproxy history --deployment 12", "stage by stage: what was expected, what came, how long it took"),
    )


def run(args: argparse.Namespace) -> int:
    """Print the history."""
    client = Client.of(args.admin, args.cacert)
    if args.deployment is not None:
        answer = client.get(f"/v1/deployments/{args.deployment}")
        if args.json:
            print(answer.text)
        else:
            show(story(answer.data, Paint.of(sys.stdout)))
        return DONE
    if args.deployments:
        _print_deployments(client, args)
        return DONE
    answer = client.get("/v1/history", service=args.service, limit=args.limit)
    if args.json:
        print(answer.text)
        return DONE
    events = answer.data["events"]
    for event in events:
        print(event_line(event))
    if not events:
        print("nothing was changed so far")
    return DONE


def _print_deployments(client: Client, args: argparse.Namespace) -> None:
    services = client.get("/v1/services").data["services"] if args.service is None else [{"service": args.service}]
    found = []
    for service in services:
        found += client.get(service_path(service["service"], "deployments"), limit=args.limit).data["deployments"]
    found = sorted(found, key=lambda deployment: deployment["id"])[-args.limit :]
    if args.json:
        print(json.dumps({"deployments": found}))
        return
    for deployment in found:
        print(deployment_line(deployment))
    if not found:
        print("nothing was deployed so far")


def deployment_line(deployment: Mapping[str, Any]) -> str:
    """One deployment as one line: when, how it ended and why, which version, by whom, and what for."""
    version = printable(deployment["version"])
    to = f"{printable(deployment['target'])}{f' {version}' if version else ''}"
    why = f" ({printable(deployment['reason'])})" if deployment["reason"] else ""
    by = printable(deployment["actor"]["name"])
    return f"{printable(deployment['created_at'])}  {outcome(deployment)} [{to}, by {by}]{why}"


def event_line(event: Mapping[str, Any]) -> str:
    """One event as one line: when, what, by whom, why."""
    actor = (event.get("actor") or {}).get("name") or ""
    by = f" [{printable(actor)}]" if actor else ""
    text = printable(event.get("message") or event.get("type", ""))
    reason = printable(event.get("reason") or "")
    why = f" ({reason})" if reason and reason not in text else ""
    return f"{printable(event.get('at', ''))}  {text}{by}{why}"
