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


@dataclass(frozen=True, slots=True)
class MirrorCredit:
    """So many more requests may be mirrored for deployment `number`. Without a credit, one is counted as dropped."""

    service: str
    number: int
    count: int


@dataclass(frozen=True, slots=True)
class AskRecent:
    """Which targets the GETs of a service had of late. Answered with `Recent(number)`, `limit` targets at the most."""

    number: int
    service: str
    limit: int


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


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A live request and its answer, as they went on; it has used up a credit, which comes back when it was compared.

    Bodies are without their transfer coding, but with their content coding. Where the answer's is not `complete`, because it is
    large or a stream, it is empty.
    """

    service: str
    number: int  # of the deployment
    method: bytes
    target: bytes
    head: bytes  # of the request, with its empty line
    body: bytes
    status: int
    answer_head: bytes  # status line and fields, each with its CRLF
    answer: bytes
    complete: bool
    seconds: float  # from the request's head to the answer's end; to its head where it is not complete


@dataclass(frozen=True, slots=True)
class Recent:
    """What `AskRecent(number)` asked for: targets and how often each was seen, the most first."""

    number: int
    service: str
    targets: tuple[tuple[str, int], ...]


ToWorker = Snapshot | DrainPool | UndrainPool | Warm | Flush | MirrorCredit | AskRecent
ToController = Hello | Ack | UpstreamFailed | Mirrored | Recent


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
