"""The command `bgproxy`: finds the verb, lets it do its work, and turns what goes wrong into a text and an exit status.

A verb is a module of this package with `configure(parser)` and `run(args) -> status`. Only the one that was asked for is
imported: `run` becomes the supervisor, which should carry nothing that it does not need.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Final

from bgproxy import __version__
from bgproxy.cli.exits import DONE, FAILED, INTERRUPTED, PIPE_CLOSED, USAGE, CliError, UsageError
from bgproxy.cli.parser import Parser
from bgproxy.errors import BgproxyError, ConfigError, StartError


@dataclass(frozen=True, slots=True)
class Verb:
    """A word of the command line, and the module that does it."""

    name: str
    module: str
    summary: str


GROUPS: Final[dict[str, tuple[Verb, ...]]] = {
    "see it work": (
        Verb("demo", "bgproxy.cli.demo.verb", "a small shop in two versions, a proxy before it, some traffic"),
    ),
    "run it": (
        Verb("run", "bgproxy.cli.run", "run the proxy in the foreground"),
        Verb("check", "bgproxy.cli.check", "check configuration files: every mistake, with its line"),
        Verb("schema", "bgproxy.cli.schema", "print the JSON Schema of the configuration"),
        Verb("reload", "bgproxy.cli.reload", "take the configuration file anew, whole or not at all"),
        Verb("version", "bgproxy.cli.version", "print the version"),
    ),
    "move the traffic": (
        Verb("switch", "bgproxy.cli.switch", "all new requests to the other pool, in one instant"),
        Verb("rollback", "bgproxy.cli.rollback", "back to the pool that was live before"),
        Verb(
            "deploy", "bgproxy.cli.deploy", "verify the idle pool, switch to it, watch it; back by itself if it is bad"
        ),
        Verb(
            "follow", "bgproxy.cli.follow", "show a deployment that was begun elsewhere; its outcome is the exit status"
        ),
        Verb("approve", "bgproxy.cli.approve", "let a deployment go on that waits for it"),
        Verb("abort", "bgproxy.cli.abort", "end a deployment, and undo what it has changed"),
        Verb("pool", "bgproxy.cli.pool", "pool set: the upstreams and the version of a pool"),
        Verb("upstream", "bgproxy.cli.upstream", "upstream drain, maint, ready: one upstream out and back"),
    ),
    "look": (
        Verb("status", "bgproxy.cli.status", "pools, versions, health, what is in flight, what a drain waits for"),
        Verb("history", "bgproxy.cli.history", "what was changed, when, by whom, why"),
        Verb("events", "bgproxy.cli.events", "what happened of late, and with --follow what happens"),
    ),
}
VERBS: Final = {verb.name: verb for verbs in GROUPS.values() for verb in verbs}

_EXAMPLES: Final = """\
first steps:
  bgproxy demo                                    in one terminal; it says what to open and to type
  bgproxy run --blue http://127.0.0.1:9001 --green http://127.0.0.1:9002
  bgproxy status                                  who is live, is the other one healthy
  bgproxy switch                                  live in one instant; returns when the old pool is empty
  bgproxy rollback                                and back

The verbs that move or look speak to the admin API: --admin URL or BGPROXY_ADMIN (http://127.0.0.1:8900); BGPROXY_TOKEN.
Exit status: 0 done; 1 tried and failed; 2 wrong usage or configuration; 3 the admin API cannot be reached; 4 refused.
`bgproxy VERB --help` explains a verb, with examples."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (else the process's own) and return the exit status; never raises."""
    status = _guarded(sys.argv[1:] if argv is None else argv)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _pipe_closed()
    return status


def _guarded(argv: list[str]) -> int:
    """The verb's exit status, whatever happens in it."""
    try:
        return _dispatch(argv)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return _pipe_closed()
    except SystemExit as end:  # argparse, after it has printed a help
        return end.code if isinstance(end.code, int) else DONE
    except CliError as error:
        return _said(error, error.status)
    except (ConfigError, StartError) as error:
        return _said(error, USAGE)
    except BgproxyError as error:
        return _said(error, FAILED)
    except OSError as error:
        return _said(error, FAILED)
    except Exception as error:  # the last line: no traceback reaches a user
        if os.environ.get("BGPROXY_DEBUG"):
            raise
        return _said(f"this is a fault of bgproxy: {error!r}; with BGPROXY_DEBUG=1 it says where", FAILED)


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0].startswith("-"):
        overview = _overview()
        word = next((word for word in argv if word in VERBS), None)
        if word is not None and not {"-h", "--help", "--version"} & set(argv):
            before = " ".join(argv[: argv.index(word)])
            raise UsageError(f"options stand behind the verb: bgproxy {word} {before}\n`bgproxy --help` explains them")
        overview.parse_args(argv)
        overview.print_help(sys.stderr)
        return USAGE
    name, *rest = argv
    verb = VERBS.get(name)
    if verb is None:
        near = get_close_matches(name, VERBS, n=1)
        hint = f"did you mean `bgproxy {near[0]}`?" if near else f"there are {', '.join(VERBS)}"
        raise UsageError(f"unknown verb {name!r}; {hint}\n`bgproxy --help` explains them")
    module = import_module(verb.module)
    parser = Parser(verb.name, f"{verb.summary[0].upper()}{verb.summary[1:]}.")
    module.configure(parser)
    args = parser.parse_intermixed_args(rest)
    args.parser, args.verb = parser, verb.name
    status: int = module.run(args)
    return status


def _overview() -> Parser:
    parser = Parser("", "A reverse proxy for blue/green deployments: move all traffic in one instant, lose nothing.")
    parser.usage = "bgproxy VERB [SERVICE] [options]"
    lines = []
    for group, verbs in GROUPS.items():
        lines += [f"{group}:", *(f"  {verb.name:<10}{verb.summary}" for verb in verbs), ""]
    parser.epilog = "\n".join([*lines, _EXAMPLES])
    parser.add_argument("--version", action="version", version=f"bgproxy {__version__}")
    return parser


def _said(text: object, status: int) -> int:
    print(f"bgproxy: {text}", file=sys.stderr)
    return status


def _pipe_closed() -> int:
    """Whoever read our output is gone: give stdout a place to go, so that the interpreter's last flush is quiet too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE_CLOSED
