"""`bgproxy follow`: a deployment that was begun elsewhere, shown as it goes; its outcome is the exit status."""

from __future__ import annotations

import argparse
import sys

from bgproxy.cli.approve import meant
from bgproxy.cli.client import Client
from bgproxy.cli.deploy import follow, waiting_option
from bgproxy.cli.parser import Parser, api_options
from bgproxy.cli.story import heading
from bgproxy.cli.terminal import Paint, show


def configure(parser: Parser) -> None:
    """The command line of the verb."""
    parser.usage = "bgproxy follow [DEPLOYMENT] [options]"
    parser.add_argument(
        "deployment",
        nargs="?",
        metavar="DEPLOYMENT",
        help="its number, or the service that is deployed; else the only one under way",
    )
    waiting_option(parser)
    api_options(parser)
    parser.examples(
        ("bgproxy follow", "the deployment under way, from its beginning"),
        ("bgproxy follow 12", "by its number: after a Ctrl-C, or in a later job; one that has ended is told at once"),
        ("bgproxy follow shop --wait retired", "until the old version was retired too"),
    )


def run(args: argparse.Namespace) -> int:
    """Show it to its end."""
    client = Client.of(args.admin, args.cacert)
    number = meant(client, args.deployment)
    if not args.json:
        told = client.get(f"/v1/deployments/{number}").data
        show(heading(told, Paint.of(sys.stdout)))
    return follow(client, args, number)
