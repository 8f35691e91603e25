"""`bgproxy status`: what is live, what is healthy, what is in flight; with --watch, once a second."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NoReturn

from bgproxy.cli.client import Client, service_path
from bgproxy.cli.exits import DONE, UnreachableError
from bgproxy.cli.overview import page, section
from bgproxy.cli.parser import Parser, api_options
from bgproxy.cli.terminal import Paint, redraw, show

PERIOD: Final = 1.0  # seconds between two looks


def configure(parser: Parser) -> None:
    """The command line of the verb."""
    parser.add_argument("service", nargs="?", metavar="SERVICE", help="only this one")
    parser.add_argument("--watch", "-w", action="store_true", help="once a second until Ctrl-C, through restarts")
    api_options(parser)
    parser.examples(
        ("bgproxy status", "everything at a glance"),
        ("bgproxy status --watch", "beside a switch, to see the old pool drain"),
        ("bgproxy status shop --json | jq -r .live", "for a program: blue or green"),
    )


def run(args: argparse.Namespace) -> int:
    """Print the status, once or again and again."""
    client = Client.of(args.admin, args.cacert)
    if args.watch:
        watch(lambda: _lines(client, args))
    lines = _lines(client, args)
    if args.json:
        print("\n".join(lines))
    else:
        show(lines)
    return DONE


def _lines(client: Client, args: argparse.Namespace) -> list[str]:
    answer = client.get("/v1/status" if args.service is None else service_path(args.service))
    if args.json:
        return [answer.text]
    draw = page if args.service is None else section
    return draw(answer.data, Paint.of(sys.stdout), datetime.now(UTC))


def watch(look: Callable[[], list[str]], *, sleep: Callable[[float], None] = time.sleep) -> NoReturn:
    """Redraw for ever; once there was something to see, an API that is away is only said.

    Raises:
        UnreachableError: Nothing answered at the first look.
    """
    lines = look()
    while True:
        redraw(lines)
        sleep(PERIOD)
        try:
            lines = look()
        except UnreachableError as error:
            lines = [str(error)]
