"""`bgproxy approve`: yes to a deployment that waits for an operator."""

from __future__ import annotations

import argparse

from bgproxy.cli.client import Answer, Client, service_path
from bgproxy.cli.exits import DONE, REFUSED, CliError, UsageError
from bgproxy.cli.parser import Parser, api_options
from bgproxy.cli.repeating import post_once
from bgproxy.cli.words import printable


class NothingRunsError(CliError):
    """There is no deployment to decide on."""

    status = REFUSED


def configure(parser: Parser) -> None:
    """The command line of the verb."""
    decision_options(parser)
    parser.examples(
        ("bgproxy approve", "the deployment that is under way"),
        ("bgproxy approve 12 --reason 'seen on the preview'", "by its number; the reason is in the history"),
        ("bgproxy approve shop", "the one of a service"),
    )


def decision_options(parser: Parser) -> None:
    """What `approve` and `abort` share."""
    parser.usage = f"{parser.prog} [DEPLOYMENT] [options]"
    parser.add_argument(
        "deployment",
        nargs="?",
        metavar="DEPLOYMENT",
        help="its number, or the service that is deployed; else the only one under way",
    )
    parser.add_argument("--reason", metavar="TEXT", help="why, for the history")
    api_options(parser)


def run(args: argparse.Namespace) -> int:
    """Approve it."""
    client = Client.of(args.admin, args.cacert)
    answer = decide(client, args, "approve")
    said = answer.data
    print(
        answer.text if args.json else f"{printable(said['service'])}: deployment {said['id']} is approved, and goes on"
    )
    return DONE


def decide(client: Client, args: argparse.Namespace, what: str) -> Answer:
    """Send the decision on the deployment that is meant.

    Raises:
        CliError: There is none, or the decision was refused.
    """
    number = meant(client, args.deployment)
    said = {"reason": args.reason} if args.reason else {}
    return post_once(client, f"/v1/deployments/{number}/{what}", said, {})


def meant(client: Client, word: str | None) -> int:
    """The number of the deployment that a word stands for: a number, a service; without one, the only one under way.

    Raises:
        UsageError: Several are under way, and none was named.
        NothingRunsError: None is.
    """
    if word is not None and word.isascii() and word.isdecimal():
        return int(word)
    services = client.get("/v1/status").data["services"] if word is None else [client.get(service_path(word)).data]
    running = {service["service"]: service["deployment"]["id"] for service in services if service["deployment"]}
    if len(running) == 1:
        return int(*running.values())
    if running:
        which = ", ".join(f"{number} ({printable(name)})" for name, number in sorted(running.items()))
        raise UsageError(f"{len(running)} deployments are under way, name the one that is meant: {which}")
    of = f" of {printable(word)}" if word is not None else ""
    raise NothingRunsError(f"no deployment{of} is under way; `bgproxy history` tells of former ones")
