"""What the planes say to each other over a link: a socket pair between the controller and one worker.

A message is a frozen dataclass, pickled, behind its length in four bytes (big-endian). Pickle is safe here: both ends
are processes of one program that were forked from one parent, and nobody else can reach the socket.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any, Final

from bgproxy.model.snapshot import ProxySpec, ServiceSpec

_LENGTH: Final = 4

# --- controller to worker -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The routing state, or the part of it that changed. Answered with `Ack(number)` once it is in force.

    With `whole`, services that are not named are gone; without, `removed` names those. `proxy` is None when unchanged.
    """

    number: int
    whole: bool
    services: tuple[ServiceSpec, ...]
    removed: tuple[str, ...] = ()
    proxy: ProxySpec | None = None


@dataclass(frozen=True, slots=True)
class DrainPool:
    """The pool is no longer live: close its idle connections, and end what is in flight at its deadline.

    A deadline is the later of `since` (CLOCK_MONOTONIC, seconds) and the start of the request, plus the service's drain
    time for its class.
    """

    service: str
    pool: int
    since: float


@dataclass(frozen=True, slots=True)
class UndrainPool:
    """The pool is live again, or its drain is over: no deadlines any more."""

    service: str
    pool: int


@dataclass(frozen=True, slots=True)
class Warm:
    """Open idle connections to pools (service, pool) ahead of a switch: as many as the live one needed within the last second.

    Answered with `Ack(number)` when they are open, or cannot be; at once where they are few.
    """

    number: int
    pools: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Flush:
    """Store every counter in the cells now. Answered with `Ack(number)`; afterwards zero in flight means zero."""

    number: int


# --- worker to controller -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of a worker; it is sent a whole snapshot in return."""

    worker: int
    pid: int


@dataclass(frozen=True, slots=True)
class Ack:
    """Snapshot, flush or warm `number` is done; and so are all snapshots and flushes before it."""

    number: int


@dataclass(frozen=True, slots=True)
class UpstreamFailed:
    """Live requests met failures of an upstream: `count` of them since the last such message."""

    upstream: str
    service: str
    pool: int
    count: int
    reason: str  # of the last one, fit for an operator


ToWorker = Snapshot | DrainPool | UndrainPool | Warm | Flush
ToController = Hello | Ack | UpstreamFailed


def encode(message: ToWorker | ToController) -> bytes:
    """A message as it goes over a link."""
    body = pickle.dumps(message, protocol=5)
    return len(body).to_bytes(_LENGTH, "big") + body


class Decoder:
    """Messages out of the bytes of a link, however they were split."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """The messages that `data` completes."""
        self._buffer += data
        messages: list[Any] = []
        while len(self._buffer) >= _LENGTH:
            end = _LENGTH + int.from_bytes(self._buffer[:_LENGTH], "big")
            if len(self._buffer) < end:
                break
            messages.append(pickle.loads(self._buffer[_LENGTH:end]))  # noqa: S301 - see the top of this file
            del self._buffer[:end]
        return messages
