"""`bgproxy deploy`: the whole way of a new version to the users, shown as it goes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any, Final

from bgproxy.cli.client import Client, service_path, sole_service
from bgproxy.cli.exits import DONE, FAILED, INTERRUPTED
from bgproxy.cli.following import Follower, standing_by
from bgproxy.cli.parser import Parser, api_options, generation_option, if_match
from bgproxy.cli.repeating import post_once
from bgproxy.cli.sinks import sink_of
from bgproxy.cli.story import Deployment, outcome, stage_names
from bgproxy.cli.switch import other
from bgproxy.cli.terminal import show
from bgproxy.cli.words import duration, printable

_NOTES: Final = """\
The controller runs it: Ctrl-C ends the following only (`bgproxy follow`, `bgproxy abort`).
Exit status: 0 live and proven; 1 failed, rolled back, aborted, or not agreed to;
2 wrong usage; 3 the admin API cannot be reached, or was away for a minute;
4 refused: another deployment runs, no upstreams, a token without the right; 130 Ctrl-C."""

STRATEGIES: Final = ("all-at-once", "canary", "linear")


def configure(parser: Parser) -> None:
    """The command line of the verb."""
    parser.usage = "bgproxy deploy [SERVICE] [--version V] [--upstream URL ...] [options]"
    parser.add_argument("words", nargs="*", metavar="SERVICE", help="which service, where there are several")
    parser.add_argument("--version", metavar="V", help="a label of the new version: 2.0, a commit, a build number")
    parser.add_argument(
        "--upstream",
        action="append",
        metavar="URL",
        help="where the new version listens; give it once for each, they replace those of the idle pool",
    )
    parser.add_argument("--strategy", choices=STRATEGIES, help="another one than the configured")
    parser.add_argument("--reason", metavar="TEXT", help="why, for the history")
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask before it begins")
    waiting = parser.add_mutually_exclusive_group()
    waiting.add_argument("--no-wait", action="store_true", help="return as soon as it has begun")
    waiting_option(waiting)
    generation_option(parser)
    api_options(parser)
    parser.examples(
        ("bgproxy deploy --version 2.0", "to the idle pool, by the stages of the configuration"),
        ("bgproxy deploy shop --version 2.0 --upstream http://127.0.0.1:9002", "say where it listens"),
        ("bgproxy deploy --strategy canary --reason 'release 2.0'", "a share of the clients first"),
        ("bgproxy deploy --yes --version $GITHUB_SHA", "in CI: plain lines, and the exit status is the outcome"),
    )
    parser.epilog = f"{parser.epilog}\n\n{_NOTES}"


def waiting_option(parser: argparse._ActionsContainer) -> None:
    """Until when a deployment is followed."""
    parser.add_argument(
        "--wait",
        choices=("live", "retired"),
        default="live",
        help="return when the new version is live and proven (the default), or when the old one was retired too",
    )


def run(args: argparse.Namespace) -> int:
    """Say what is going to be done, have it begun, and follow it."""
    if len(args.words) > 1:
        parser: Parser = args.parser
        parser.error(f"one service is deployed at a time, not {len(args.words)}: {' '.join(args.words)}")
    client = Client.of(args.admin, args.cacert)
    name = sole_service(client, args.words[0] if args.words else None)
    headers = if_match(args)
    if not args.json:
        service = client.get(service_path(name)).data
        # While another one runs, what would be said of this one is wrong by the time that it could begin: it is refused.
        if service["deployment"] is None:
            show(_plan(service, args))
            if not args.yes and sys.stdin.isatty():
                refused = _refused()
                if refused is not None:
                    print("nothing was changed", flush=True)
                    return refused
                # To what was shown, and to nothing else.
                headers.setdefault("If-Match", f'"{service["generation"]}"')
    try:
        begun = post_once(client, service_path(name, "deployments"), _body(args), headers)
    except KeyboardInterrupt:
        print("whether the deployment has begun, `bgproxy status` tells", file=sys.stderr, flush=True)
        return INTERRUPTED
    if args.no_wait:
        print(begun.text if args.json else f"{printable(name)}: deployment {begun.data['id']} has begun")
        return DONE
    if not args.json:
        print(f"deployment {begun.data['id']} has begun", flush=True)
    return follow(client, args, begun.data["id"])


def _body(args: argparse.Namespace) -> dict[str, Any]:
    said = {
        "version": args.version,
        "upstreams": args.upstream,
        "strategy": args.strategy,
        "reason": args.reason,
    }
    return {name: value for name, value in said.items() if value is not None}


def _plan(service: Mapping[str, Any], args: argparse.Namespace) -> list[str]:
    """What is going to be done."""
    live, idle = service["live"], other(service["live"])
    pools, deploys = service["pools"], service["deploys"]
    version = pools[idle]["version"] if args.version is None else args.version
    strategy = args.strategy or deploys["strategy"]
    known = [upstream["url"] for name in ("upstreams", "unresolved") for upstream in pools[idle][name]]
    urls = args.upstream or known
    stages = list(deploys["stages"])
    if (args.upstream or args.version is not None) and "provisioning" not in stages:
        stages.insert(0, "provisioning")
    old, new = (
        f"{pool} {printable(label)}".rstrip() for pool, label in ((live, pools[live]["version"]), (idle, version))
    )
    return [
        f"{printable(service['service'])}: {old} -> {new}, {printable(strategy)}",
        f"  {idle}: {', '.join(map(printable, dict.fromkeys(urls))) or 'no upstreams'}",
        f"  stages: {stage_names(stages)}",
    ]


def _refused() -> int | None:
    """The exit status, if the answer is anything but yes."""
    try:
        return None if input("go on? [y/N] ").strip().lower() in {"y", "yes"} else FAILED
    except EOFError:
        print()
        return FAILED
    except KeyboardInterrupt:
        print()
        return INTERRUPTED


def follow(client: Client, args: argparse.Namespace, number: int) -> int:
    """Follow one that has begun; the exit status is its outcome."""
    suffix = f" --admin {args.admin}" if args.admin else ""
    sink = sink_of(json=args.json)
    follower = Follower(client, sink, suffix=suffix)
    try:
        answer = follower.follow(number, retired=args.wait == "retired")
    except KeyboardInterrupt:
        again, end = (f"`bgproxy {verb} {number}{suffix}`" for verb in ("follow", "abort"))
        print(f"deployment {number} goes on; {again} shows it again, {end} ends it", file=sys.stderr, flush=True)
        return INTERRUPTED
    last = answer.data
    if args.json:
        print(answer.text)
    else:
        sink.say(_last_line(last))
    return DONE if last["running"] or last["state"] == "succeeded" else FAILED


def _last_line(deployment: Deployment) -> str:
    left = standing_by(deployment)
    if left is None:
        return outcome(deployment)
    target = deployment["target"]
    label = f"{printable(deployment['service'])}: deployment {deployment['id']}"
    return f"{label}: {target} is live; {other(target)} stands by, retire in {duration(left)} runs by itself"
