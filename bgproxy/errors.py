"""The exceptions of bgproxy, for every floor.

BgproxyError
├── ConfigError        the configuration has mistakes (all of them, in `.mistakes`)    exit 2
├── StartError         this process cannot start: an address is taken, state unreadable exit 2
├── StateError         the state store cannot be read or written
├── Refused            a change was refused as things stand; nothing was changed        exit 4
│   ├── NotHealthy     the pool that was asked for is not fit to be live (409)
│   ├── Busy           another change of the same service runs (409)
│   └── Stale          the caller's generation is not the current one (412)
├── NotFound           no such service, pool or upstream (404)
├── Invalid            a value in a request is not allowed (422)
└── Unavailable        a worker did not answer in time; nothing was changed (503)
"""

from __future__ import annotations

from dataclasses import dataclass


class BgproxyError(Exception):
    """Base of all; its text is fit to be shown to a user as it stands."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in a configuration: where it stands and what to do about it."""

    file: str
    line: int  # 1-based; 0 when the mistake has no line (a file that cannot be read)
    path: str  # "services.shop.pools.blue.upstreams[0]"; "" for the file as a whole
    message: str  # what was found, what is allowed, what to do next

    def __str__(self) -> str:
        """`file:line: path: message`, as compilers say it, so that editors can jump there."""
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


class ConfigError(BgproxyError):
    """A configuration has one or more mistakes; nothing of it was applied."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        self.mistakes = mistakes
        super().__init__("\n".join(str(mistake) for mistake in mistakes))


class StartError(BgproxyError):
    """The process cannot start; the text names the cause and the way on."""


class StateError(BgproxyError):
    """The state store cannot be read or written; the text names the file and the way on."""


class Refused(BgproxyError):  # noqa: N818 - the admin API's word for it, and not a fault
    """A change was refused as things stand, and nothing was changed.

    `details` are further lines for the reader, such as one reason an upstream.
    """

    def __init__(self, message: str, details: list[str] | None = None) -> None:
        super().__init__(message)
        self.details = details or []


class NotHealthy(Refused):
    """The pool that was asked for is not fit to take the traffic."""


class Busy(Refused):
    """Another change of the same service is running."""


class Stale(Refused):
    """The caller decided on an older generation than the current one."""


class NotFound(BgproxyError):  # noqa: N818 - as above
    """There is no such service, pool or upstream."""


class Invalid(BgproxyError):  # noqa: N818 - as above
    """A value in a request is not allowed; the text names the field and what is allowed."""


class Unavailable(BgproxyError):  # noqa: N818 - as above
    """A worker process did not answer in time; nothing was changed."""
