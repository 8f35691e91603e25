"""The argument parser of a verb: argparse with this program's manners.

Mistakes become `UsageError`, help keeps the layout of its examples, and an option is never guessed from its first letters.
"""

from __future__ import annotations

import argparse
from difflib import get_close_matches
from shutil import get_terminal_size
from typing import NoReturn

from bgproxy.cli.exits import UsageError
from bgproxy.model.pool import POOLS


class Parser(argparse.ArgumentParser):
    """A parser that raises instead of leaving the program."""

    def __init__(self, verb: str, summary: str) -> None:
        super().__init__(
            prog=f"bgproxy {verb}".strip(),
            description=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def examples(self, *lines: tuple[str, str]) -> None:
        """Show these at the end of the help: a command, and what it does, above it where the terminal is narrow."""
        width = max(len(command) for command, _ in lines)
        fits = max(width + len(what) + 5 for _, what in lines) <= get_terminal_size().columns
        shown = [f"  {command:<{width}}   {what}" if fits else f"  # {what}\n  {command}" for command, what in lines]
        self.epilog = "\n".join(["examples:", *shown])

    def error(self, message: str) -> NoReturn:
        """Wrong usage: the message, the usage, and where to read more."""
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            word = unknown.split(" ")[0].partition("=")[0]
            near = get_close_matches(word, self._option_string_actions, n=1)
            message = f"unknown option {word!r}" if word.startswith("-") else f"{unknown!r} is one word too many"
            message += f"; did you mean {near[0]}?" if near else ""
        message = message.replace("invalid int value: ", "not a whole number: ")
        raise UsageError(f"{message}\n{self.format_usage().rstrip()}\n`{self.prog} --help` explains, with examples")


def api_options(parser: Parser) -> None:
    """The options of every verb that speaks to the admin API."""
    group = parser.add_argument_group("admin API")
    group.add_argument(
        "--admin",
        metavar="URL",
        help="its address: http://HOST:PORT, https://HOST:PORT or unix:/PATH (else BGPROXY_ADMIN, else http://127.0.0.1:8900); "
        "a token is taken from BGPROXY_TOKEN",
    )
    group.add_argument(
        "--cacert",
        metavar="FILE",
        help="with https: the authority that its certificate is from (else BGPROXY_CACERT, else those of the system); "
        "BGPROXY_CERT and BGPROXY_KEY: a certificate of ours",
    )
    group.add_argument("--json", action="store_true", help="print the answer of the API as it came")


def generation_option(parser: Parser) -> None:
    """The option that makes a change conditional."""
    parser.add_argument(
        "--if-generation",
        type=int,
        metavar="N",
        help="only if N is still the service's generation (as `status` shows it); else nothing changes, exit 4",
    )


def if_match(args: argparse.Namespace) -> dict[str, str]:
    """The header that `--if-generation` stands for."""
    return {} if args.if_generation is None else {"If-Match": f'"{args.if_generation}"'}


def service_and_pool(parser: Parser, words: list[str]) -> tuple[str | None, str | None]:
    """`[SERVICE] [POOL]` from what was typed; a lone `blue` or `green` is the pool.

    Raises:
        UsageError: There are more words than that, or the second one is no pool.
    """
    if len(words) > 2:
        parser.error(f"at most a service and a pool, not {len(words)} words: {' '.join(words)}")
    if len(words) == 2:
        if words[1] not in POOLS:
            parser.error(f"a pool is blue or green, not {words[1]!r}")
        return words[0], words[1]
    if not words:
        return None, None
    return (None, words[0]) if words[0] in POOLS else (words[0], None)
