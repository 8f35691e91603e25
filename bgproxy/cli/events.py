"""`bgproxy events`: what happened of late, and with --follow what happens."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Final, NoReturn

from bgproxy.cli.client import ApiError, Client
from bgproxy.cli.exits import DONE, UnreachableError
from bgproxy.cli.history import event_line
from bgproxy.cli.parser import Parser, api_options
from bgproxy.cli.sse import Event, EventStream

RETRY: Final = 1.0  # seconds between two tries to be connected again
PATIENCE: Final = 60.0  # seconds of tries without success, before giving up
QUIET: Final = 0.5  # seconds without an event after which all that is remembered has come


def configure(parser: Parser) -> None:
    """The command line of the verb."""
    parser.add_argument("service", nargs="?", metavar="SERVICE", help="only what concerns this service")
    parser.add_argument(
        "--follow", "-f", action="store_true", help="go on until Ctrl-C, through restarts of the admin API"
    )
    api_options(parser)
    parser.examples(
        ("bgproxy events", "what is remembered: checks, switches, drains, workers"),
        ("bgproxy events --follow --json | jq .message", "one JSON object a line, as it happens"),
    )


def run(args: argparse.Namespace) -> int:
    """Print events."""
    client = Client.of(args.admin, args.cacert)
    if args.follow:
        follow(client, args.service, lambda event: _show(event, args))
    with EventStream(client, 0, args.service, silence=QUIET) as stream:
        for event in stream:
            _show(event, args)
    return DONE


def _show(event: Event, args: argparse.Namespace) -> None:
    print(json.dumps(event) if args.json else event_line(event), flush=True)


def follow(
    client: Client,
    service: str | None,
    show: Callable[[Event], None],
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> NoReturn:
    """Show events as they come, without a gap where the connection breaks.

    Raises:
        UnreachableError: The API was not there at the start, or has been away for `PATIENCE` seconds.
        ApiError: It does not let us.
    """
    last_id: int | None = None
    stream = EventStream(client, None, service)
    while True:
        with stream:
            for event in stream:
                show(event)
                last_id = stream.last_id
        print("the admin API is away; trying to go on where it broke off", file=sys.stderr, flush=True)
        deadline = now() + PATIENCE
        while True:
            try:
                stream = EventStream(client, last_id, service)
                break
            except (UnreachableError, ApiError) as error:
                if now() >= deadline or (isinstance(error, ApiError) and error.http_status != 503):
                    raise
                sleep(RETRY)
