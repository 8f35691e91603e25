"""`bgproxy rollback`: all new requests back to the pool that was live before."""

from __future__ import annotations

import argparse

from bgproxy.cli.client import Client, service_path, sole_service
from bgproxy.cli.parser import Parser
from bgproxy.cli.switch import change, change_options


def configure(parser: Parser) -> None:
    """The command line of the verb."""
    parser.usage = "bgproxy rollback [SERVICE] [options]"
    parser.add_argument("words", nargs="*", metavar="SERVICE", help="which service, where there are several")
    change_options(parser)
    parser.examples(
        ("bgproxy rollback", "back, as fast as the switch was; a drain under way is undone"),
        ("bgproxy rollback shop --reason 'errors at checkout'", "say which and why"),
    )


def run(args: argparse.Namespace) -> int:
    """Roll back, say so at once, then follow the drain."""
    if len(args.words) > 1:
        parser: Parser = args.parser
        parser.error("one service is rolled back at a time; `switch SERVICE=POOL SERVICE=POOL` moves several")
    client = Client.of(args.admin, args.cacert)
    service = sole_service(client, args.words[0] if args.words else None)
    return change(client, args, service_path(service, "rollback"), {})
