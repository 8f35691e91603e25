"""`bgproxy pool set`: what a pool is made of, and the label of its version."""

from __future__ import annotations

import argparse

from bgproxy.cli.client import Client, service_path, sole_service
from bgproxy.cli.exits import DONE
from bgproxy.cli.parser import Parser, api_options, generation_option, if_match, service_and_pool
from bgproxy.cli.words import plural, printable


def configure(parser: Parser) -> None:
    """The command line of the verb."""
    parser.usage = "bgproxy pool set [SERVICE] blue|green [--upstream URL ...] [--version V] [options]"
    parser.add_argument("what", choices=["set"], help="what to do with it")
    parser.add_argument("words", nargs="*", metavar="SERVICE, POOL", help="which pool, of which service")
    parser.add_argument(
        "--upstream",
        action="append",
        metavar="URL",
        help="one of its upstreams; give it once for each, they replace the old ones",
    )
    parser.add_argument("--version", metavar="V", help="a label of yours: 2.0, a commit, a build number")
    generation_option(parser)
    api_options(parser)
    parser.examples(
        ("bgproxy pool set green --upstream http://127.0.0.1:9002 --version 2.0", "where the new version listens"),
        ("bgproxy pool set shop green --upstream http://web1:80 --upstream http://web2:80", "two upstreams"),
    )


def run(args: argparse.Namespace) -> int:
    """Change the pool, and say what it is now."""
    parser: Parser = args.parser
    named, pool = service_and_pool(parser, args.words)
    if pool is None:
        parser.error("which pool, blue or green?")
    body: dict[str, object] = {}
    if args.version is not None:
        body["version"] = args.version
    if args.upstream is not None:
        body["upstreams"] = args.upstream
    if not body:
        parser.error("nothing to set: say --upstream URL, --version V, or both")
    client = Client.of(args.admin, args.cacert)
    service = sole_service(client, named)
    answer = client.send("PUT", service_path(service, "pools", pool), body, if_match(args))
    if args.json:
        print(answer.text)
        return DONE
    now = answer.data["pools"][pool]
    ids = ", ".join(printable(upstream["id"]) for upstream in now["upstreams"])
    version = f"version {printable(now['version'])}, " if now["version"] else ""
    count = plural(len(now["upstreams"]), "upstream")
    print(f"{service}: {pool} has {version}{count}{f': {ids}' if ids else ''} (generation {answer.data['generation']})")
    for name in now["unresolved"]:
        print(f"  {printable(name['url'])}: {printable(name['reason'])}")
    return DONE
