"""How a verb ends: the exit statuses, and the exceptions that stand for them."""

from __future__ import annotations

from typing import Final

from bgproxy.errors import BgproxyError

DONE: Final = 0
FAILED: Final = 1  # it was tried and failed, or was rolled back
USAGE: Final = 2  # wrong usage or configuration
UNREACHABLE: Final = 3  # the admin API cannot be reached
REFUSED: Final = 4  # refused as things stand, or to whoever asks: 401, 403, 409, 412
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells count
PIPE_CLOSED: Final = 141  # 128 + SIGPIPE: nobody reads any more, and what was not printed was not waited for either


class CliError(BgproxyError):
    """Ends the verb with `status`; the text goes to stderr as it stands."""

    status: int = FAILED


class UsageError(CliError):
    """The command line, or an environment variable that stands for a part of it, is wrong."""

    status = USAGE


class UnreachableError(CliError):
    """Nothing answers at the admin address, or what answers is not bgproxy."""

    status = UNREACHABLE


class LostError(UnreachableError):
    """A request was sent, and no answer came: what was asked for may have been done."""
