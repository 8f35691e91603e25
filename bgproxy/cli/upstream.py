"""`bgproxy upstream`: takes one upstream out of its pool, for a while, and back."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from bgproxy.cli.client import Client, service_path, sole_service
from bgproxy.cli.exits import DONE, UsageError
from bgproxy.cli.parser import Parser, api_options
from bgproxy.cli.words import listed, printable
from bgproxy.model.pool import POOLS

_STATES = ("drain", "maint", "ready")


def configure(parser: Parser) -> None:
    """The command line of the verb."""
    parser.usage = "bgproxy upstream drain|maint|ready [SERVICE] [POOL] URL [options]"
    parser.add_argument(
        "state", choices=_STATES, help="drain: nothing new, still checked; maint: not checked either; ready: back"
    )
    parser.add_argument(
        "words", nargs="+", metavar="SERVICE, POOL, URL", help="which one; URL or id as `status` shows it"
    )
    parser.add_argument("--reason", metavar="TEXT", help="why, for the history")
    api_options(parser)
    parser.examples(
        ("bgproxy upstream drain http://127.0.0.1:9001", "it ends what it has and gets nothing new"),
        ("bgproxy upstream maint shop 127.0.0.1:9001", "the same, and it is not checked meanwhile"),
        ("bgproxy upstream ready shop green 127.0.0.1:9001", "where both pools have it, name the pool"),
    )


def run(args: argparse.Namespace) -> int:
    """Change the state by hand, and say what the upstream is now."""
    parser: Parser = args.parser
    *before, wanted = args.words
    pool = before.pop() if before and before[-1] in POOLS else None
    if len(before) > 1:
        parser.error(f"a service, a pool and a URL at the most, not {len(args.words)} words")
    client = Client.of(args.admin, args.cacert)
    service = sole_service(client, before[0] if before else None)
    pool, upstream = _find(client.get(service_path(service)).data, pool, wanted)
    body = {"state": args.state, **({"reason": args.reason} if args.reason else {})}
    answer = client.send("PUT", service_path(service, "pools", pool, "upstreams", upstream, "state"), body)
    if args.json:
        print(answer.text)
        return DONE
    for found in answer.data["pools"][pool]["upstreams"]:
        if upstream in {found["id"], found["url"]}:
            print(f"{service}: {pool} {printable(found['id'])} is {found['state']} now")
    return DONE


def _find(service: Mapping[str, Any], pool: str | None, wanted: str) -> tuple[str, str]:
    """The pool, and the id or URL by which the API knows the upstream.

    Raises:
        UsageError: There is no such upstream, or both pools have it and neither was named.
    """
    url = wanted.rstrip("/")
    found: dict[str, str] = {}
    known: list[str] = []
    for name in POOLS if pool is None else (pool,):
        for upstream in service["pools"][name]["upstreams"]:
            known.append(f"{name} {printable(upstream['id'])}")
            if url in {upstream["id"], upstream["url"].rstrip("/")}:
                found[name] = upstream["id"] if url == upstream["id"] else upstream["url"]
    if len(found) == 1:
        return next(iter(found.items()))
    if found:
        raise UsageError(f"{listed(found)} both have {wanted}: name the pool before it")
    raise UsageError(f"{service['service']} has no upstream {wanted!r}; it has {listed(known) or 'none'}")
