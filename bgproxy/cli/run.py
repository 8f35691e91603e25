"""`bgproxy run`: the proxy itself, in the foreground, from a file or from flags."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bgproxy.cli.exits import USAGE
from bgproxy.cli.parser import Parser
from bgproxy.cli.sources import default_file, text_of_flags
from bgproxy.config import source
from bgproxy.errors import ConfigError
from bgproxy.process import supervisor


def configure(parser: Parser) -> None:
    """The command line of the verb."""
    parser.usage = (
        "bgproxy run [-c FILE]\n       bgproxy run --blue URL --green URL [--listen ADDRESS] [--admin ADDRESS] ..."
    )
    parser.add_argument("-c", "--config", metavar="FILE", help="else ./bgproxy.yaml, else /etc/bgproxy/bgproxy.yaml")
    flags = parser.add_argument_group("without a file")
    flags.add_argument(
        "--listen", action="append", default=[], metavar="ADDRESS", help="HOST:PORT or unix:/PATH (127.0.0.1:8080)"
    )
    flags.add_argument("--blue", action="append", default=[], metavar="URL", help="an upstream of blue; once for each")
    flags.add_argument(
        "--green", action="append", default=[], metavar="URL", help="an upstream of green; once for each"
    )
    flags.add_argument("--admin", metavar="ADDRESS", help="where the admin API listens (127.0.0.1:8900)")
    flags.add_argument("--workers", metavar="N", help="worker processes (one a CPU)")
    flags.add_argument("--state-dir", metavar="DIR", help="where the state is kept")
    parser.examples(
        ("bgproxy run -c bgproxy.yaml", "until SIGTERM or Ctrl-C: what is in flight ends, then exit 0"),
        ("bgproxy run --blue http://127.0.0.1:9001 --green http://127.0.0.1:9002", "without a file"),
        ("kill -HUP PID", "the file anew, as `bgproxy reload` does"),
    )


def run(args: argparse.Namespace) -> int:
    """Load the configuration, then be the supervisor until the end."""
    parser: Parser = args.parser
    flags = {
        "--listen": args.listen,
        "--blue": args.blue,
        "--green": args.green,
        "--admin": args.admin,
        "--workers": args.workers,
        "--state-dir": args.state_dir,
    }
    given = [flag for flag, value in flags.items() if value not in (None, [])]
    path: str | None = None
    text: str | None = None
    if args.config is not None and given:
        parser.error(f"{', '.join(given)}: with -c, this is said in the file")
    if not given:
        path = str(Path(args.config or default_file()).absolute())  # `reload` must find the same file
    elif not args.blue and not args.green:
        parser.error("without a file, say at least --blue URL or --green URL")
    else:
        text = text_of_flags(
            listen=args.listen,
            blue=args.blue,
            green=args.green,
            admin=args.admin,
            workers=args.workers,
            state_dir=args.state_dir,
        )
    try:
        config = source.load(path, text, warn=lambda warning: print(warning, file=sys.stderr))
    except ConfigError as error:
        for mistake in error.mistakes:
            print(mistake, file=sys.stderr)
        return USAGE
    return supervisor.run(config, config_source=path, config_text=text)
