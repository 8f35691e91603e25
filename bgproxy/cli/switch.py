"""`bgproxy switch`: all new requests to the other pool, in one instant; of several services in the same one."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Final

from bgproxy.cli.client import ApiError, Client, service_path, sole_service
from bgproxy.cli.drain import Follower, Old
from bgproxy.cli.exits import DONE
from bgproxy.cli.parser import Parser, api_options, generation_option, if_match, service_and_pool
from bgproxy.cli.words import duration
from bgproxy.model.pool import POOLS

#: Seconds to wait for `"wait": "drained"`: the longest drain that a configuration may ask for is a week.
LONGEST_DRAIN: Final = 8 * 86400.0


def configure(parser: Parser) -> None:
    """The command line of the verb."""
    parser.usage = (
        "bgproxy switch [SERVICE] [blue|green] [options]\n       bgproxy switch SERVICE=POOL SERVICE=POOL ... [options]"
    )
    parser.add_argument(
        "words", nargs="*", metavar="SERVICE, POOL", help="which service, to which pool (else the idle one)"
    )
    change_options(parser)
    parser.examples(
        ("bgproxy switch", "the only service there is, to its idle pool"),
        ("bgproxy switch shop green --reason 'release 2.0'", "say which and why"),
        ("bgproxy switch shop=green api=green", "both in one instant, or neither"),
        ("bgproxy switch && docker compose stop blue", "returns when the old pool is empty"),
    )


def change_options(parser: Parser) -> None:
    """The options that `switch` and `rollback` share."""
    parser.add_argument("--force", action="store_true", help="even if the pool is not healthy")
    parser.add_argument(
        "--no-wait", action="store_true", help="return as soon as it is done, do not wait for the drain"
    )
    parser.add_argument("--reason", metavar="TEXT", help="why, for the history")
    generation_option(parser)
    api_options(parser)


def run(args: argparse.Namespace) -> int:
    """Switch, say so at once, then follow the drain."""
    parser: Parser = args.parser
    client = Client.of(args.admin, args.cacert)
    if any("=" in word for word in args.words):
        targets = _targets(parser, args.words)
        body: dict[str, Any] = {"services": targets}
        return change(client, args, "/v1/switch", body)
    named, pool = service_and_pool(parser, args.words)
    service = sole_service(client, named)
    return change(client, args, service_path(service, "switch"), {"to": pool} if pool else {})


def _targets(parser: Parser, words: list[str]) -> dict[str, str]:
    targets: dict[str, str] = {}
    for word in words:
        service, _, pool = word.partition("=")
        if not service or pool not in POOLS:
            parser.error(f"{word!r}: several services are switched as SERVICE=blue or SERVICE=green each")
        if service in targets:
            parser.error(f"{service!r} is named twice")
        targets[service] = pool
    return targets


def change(client: Client, args: argparse.Namespace, path: str, body: Mapping[str, Any]) -> int:
    """Ask for a switch or a rollback, print what it did, and wait for the drain unless told not to.

    Raises:
        CliError: It was refused or failed; the reasons come upstream by upstream.
    """
    said = {**body, "force": args.force, **({"reason": args.reason} if args.reason else {})}
    try:
        if args.json:
            wait = "switched" if args.no_wait else "drained"
            answer = client.send("POST", path, {**said, "wait": wait}, if_match(args), timeout=LONGEST_DRAIN)
            print(answer.text)
            return DONE
        answer = client.send("POST", path, {**said, "wait": "switched"}, if_match(args))
    except ApiError as error:
        if error.slug == "not-healthy":
            error.remedy = f"nothing was changed; to do it all the same: {_typed(args)} --force"
        raise
    results = answer.data.get("services", [answer.data])
    for result in results:
        print(_done(result), flush=True)
    if args.no_wait:
        return DONE
    olds = [Old(result["service"], other(result["live"])) for result in results]
    return Follower(client).follow(olds)


def other(pool: str) -> str:
    """The other one of the two."""
    return POOLS[1 - POOLS.index(pool)]


def _done(result: Mapping[str, Any]) -> str:
    live, milliseconds = result["live"], result["switched_in_ms"]
    if not milliseconds:
        return f"{result['service']}: {live} is live already (generation {result['generation']}), nothing was changed"
    took = f"{milliseconds:.1f} ms" if milliseconds < 1000 else duration(milliseconds / 1000)
    return f"{result['service']}: {other(live)} -> {live}, live now (generation {result['generation']}, {took})"


def _typed(args: argparse.Namespace) -> str:
    return " ".join(["bgproxy", args.verb, *args.words])
