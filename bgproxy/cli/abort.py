"""`bgproxy abort`: the end of a deployment; what it has changed for users is undone."""

from __future__ import annotations

import argparse
import sys

from bgproxy.cli.approve import decide, decision_options
from bgproxy.cli.client import Client
from bgproxy.cli.exits import DONE, FAILED, INTERRUPTED
from bgproxy.cli.following import Follower
from bgproxy.cli.parser import Parser
from bgproxy.cli.sinks import sink_of
from bgproxy.cli.story import outcome
from bgproxy.cli.words import printable


def configure(parser: Parser) -> None:
    """The command line of the verb."""
    decision_options(parser)
    parser.add_argument("--no-wait", action="store_true", help="return at once, do not wait until it has ended")
    parser.examples(
        ("bgproxy abort", "the deployment under way; in the switch and in the bake it is rolled back"),
        ("bgproxy abort 12 --reason 'wrong build'", "by its number; the reason is in the history"),
        ("bgproxy abort shop", "the one of a service"),
    )


def run(args: argparse.Namespace) -> int:
    """End it, and say how it ended."""
    client = Client.of(args.admin, args.cacert)
    answer = decide(client, args, "abort")
    said = answer.data
    if not args.json:
        print(f"{printable(said['service'])}: deployment {said['id']} is being aborted", flush=True)
    if args.no_wait:
        if args.json:
            print(answer.text)
        return DONE
    sink = sink_of(json=args.json)
    follower = Follower(client, sink)
    follower.skip(said)
    try:
        answer = follower.follow(said["id"])
    except KeyboardInterrupt:
        print(f"deployment {said['id']} ends by itself; `bgproxy status` shows it", file=sys.stderr, flush=True)
        return INTERRUPTED
    if args.json:
        print(answer.text)
    else:
        sink.say(outcome(answer.data))
    return FAILED if answer.data["state"] == "failed" else DONE
