"""The tap of a service: what looks at its live requests, and copies a sample of them for the controller to repeat.

A worker repeats nothing itself. It copies a request as it goes to the upstream and the answer as it goes to the client, gives both to
the controller, and has used up a *credit* with it; without one, a request is counted as dropped and costs nothing more. So whatever
the idle pool does, a live request waits for nothing, and no more is held here than credits times two bodies (`MirrorSpec.body_bytes`)
and two heads.

What is left out: requests that name a pool (previews), upgrades, requests that were mirrored before, those whose body is larger than
may be copied, and those without a whole answer. An answer that is larger or is a stream (`text/event-stream`) is given to the
controller as soon as that is known, without its body.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Final

from bgproxy.http1.chunked import ChunkedBody
from bgproxy.http1.errors import ProtocolError
from bgproxy.http1.response import is_event_stream
from bgproxy.model.snapshot import MirrorSpec
from bgproxy.proxy.recent import Recent
from bgproxy.switchboard.messages import Mirrored

if TYPE_CHECKING:
    from bgproxy.http1.names import NameTable
    from bgproxy.http1.response import ResponseHead
    from bgproxy.proxy.choice import Memory
    from bgproxy.proxy.exchange import Exchange
    from bgproxy.proxy.runtime import Pool, Service

#: Seconds that a live answer may take; until then it holds a credit.
PATIENCE: Final = 30.0

_MARK: Final = b"\nx-bgproxy-mirror:"


class Tap:
    """What looks at the live requests of one service, in one worker: for a comparison, for the next warm-up, or for both."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.mirror: Mirror | None = None
        self.recent: Recent | None = None

    def see(self, exchange: Exchange, memory: Memory) -> None:
        """A request has been claimed, and nothing of it was sent yet."""
        if memory.preview >= 0:
            return
        if self.recent is not None:
            self.recent.see(exchange.method, exchange.target)
        if self.mirror is not None:
            self.mirror.see(exchange)

    def credit(self, number: int, count: int) -> None:
        """So many more may be copied for a deployment; for another than the present one, that means nothing."""
        mirror = self.mirror
        if mirror is not None and mirror.spec.number == number:
            mirror.credits += count

    def most(self, limit: int) -> tuple[tuple[str, int], ...]:
        """The targets seen most of late."""
        return self.recent.most(limit) if self.recent is not None else ()

    def sweep(self, now: float) -> None:
        """Give up what takes too long, and store the counts."""
        if self.mirror is not None:
            self.mirror.sweep(now)

    def age(self) -> None:
        """A minute has passed."""
        if self.recent is not None:
            self.recent.halve()

    def relinked(self) -> None:
        """Another controller has come: it knows nothing of the credits that the former one gave."""
        if self.mirror is not None:
            self.mirror.close()
            self.mirror.credits = 0

    def close(self) -> None:
        """The service is gone."""
        if self.mirror is not None:
            self.mirror.close()
            self.mirror = None


def tapped(tap: Tap | None, service: Service) -> Tap | None:
    """The tap that a service is to have now, by its spec; what goes on of the former one is kept."""
    spec = service.spec
    mirror = spec.mirror
    if tap is not None and tap.mirror is not None and tap.mirror.spec != mirror:
        tap.close()
    if mirror is None and not spec.note_recent:
        return None
    if tap is None:
        tap = Tap(spec.name)
    if mirror is not None and tap.mirror is None:
        tap.mirror = Mirror(spec.name, mirror, service.pools[mirror.pool])
    if not spec.note_recent:
        tap.recent = None
    elif tap.recent is None:
        tap.recent = Recent()
    return tap


class Mirror:
    """The sampling for one deployment."""

    def __init__(self, service: str, spec: MirrorSpec, pool: Pool) -> None:
        self.service = service
        self.spec = spec
        self.pool = pool
        self.share: float = spec.share
        self.methods = frozenset([method.encode() for method in spec.methods])
        self.body_bytes: int = spec.body_bytes
        self.credits = 0
        self.copied = 0  # since the last sweep
        self.dropped = 0
        self.captures: set[Capture] = set()

    def see(self, exchange: Exchange) -> None:
        """Copy it, if its turn has come and somebody has time for it."""
        fields = exchange.fields
        if exchange.pool is not self.pool or exchange.method not in self.methods or fields.upgrade:
            return
        if self.share < 100.0 and random.random() * 100.0 >= self.share:  # noqa: S311 - a sample, no secret
            return
        if self.credits <= 0 or fields.length > self.body_bytes:
            self.dropped += 1
            return
        if _MARK in exchange.head.lower():
            return
        self.credits -= 1
        capture = Capture(self, exchange)
        self.captures.add(capture)
        exchange.capture = capture
        exchange.plain = False

    def sweep(self, now: float) -> None:
        """Give up those that have waited for their answer for too long: they hold credits. Store the counts."""
        for capture in [capture for capture in self.captures if capture.since + PATIENCE <= now]:
            capture.give_up()
        self.flush()

    def flush(self) -> None:
        """Store the counts in the cells."""
        if self.copied or self.dropped:
            self.pool.count_mirrored(self.copied, self.dropped)
            self.copied = 0
            self.dropped = 0

    def close(self) -> None:
        """The comparison is over: no copy is needed any more."""
        for capture in list(self.captures):
            capture.end()
        self.flush()


class Capture:
    """The copy of one request and of its answer, while they pass."""

    def __init__(self, mirror: Mirror, exchange: Exchange) -> None:
        self.mirror = mirror
        self.exchange: Exchange | None = exchange
        self.since = exchange.started
        # Not lists of what came: a body that comes byte by byte would take forty times its size.
        self.request = bytearray()
        self.status = 0
        self.head = b""
        self.framed = False  # the answer comes in chunks
        self.answer = bytearray()

    def sent(self, data: bytes) -> None:
        """More of the request's body, framed as it goes on."""
        if self.exchange is None:
            return
        if len(self.request) + len(data) > self.mirror.body_bytes:
            self.give_up()
        else:
            self.request += data

    def answered(self, response: ResponseHead, *, framed: bool) -> None:
        """The answer's head has come; nothing of its body has been given here yet."""
        exchange = self.exchange
        if exchange is None:
            return
        self.status = response.status
        self.head = response.forwarded
        self.framed = framed
        if exchange.method == b"HEAD" or response.bodyless:
            return
        if response.length > self.mirror.body_bytes or is_event_stream(response):
            self.tell(complete=False)

    def came(self, data: bytes) -> None:
        """More of the answer's body."""
        if self.exchange is None:
            return
        if len(self.answer) + len(data) > self.mirror.body_bytes:
            self.tell(complete=False)
        else:
            self.answer += data

    def ended(self) -> None:
        """The answer is complete."""
        self.tell(complete=True)

    def tell(self, *, complete: bool) -> None:
        """Give it to the controller."""
        exchange = self.exchange
        if exchange is None:
            return
        context = exchange.context
        if not exchange.request_done or context.tell is None:  # it was answered before it was whole
            self.give_up()
            return
        mirror = self.mirror
        try:
            body = bytes(self.request)
            if exchange.fields.chunked:
                body = data_of(body, context.request_names)
            answer = bytes(self.answer) if complete else b""
            if complete and self.framed:
                answer = data_of(answer, context.response_names)
        except ProtocolError:  # it cannot be: they were judged as they came
            self.give_up()
            return
        mirror.copied += 1
        message = Mirrored(
            service=mirror.service,
            number=mirror.spec.number,
            method=exchange.method,
            target=exchange.target,
            head=exchange.head,
            body=body,
            status=self.status,
            answer_head=self.head,
            answer=answer,
            complete=complete,
            seconds=time.monotonic() - self.since,
        )
        self.end()
        context.tell(message)

    def give_up(self) -> None:
        """There will be nothing to compare; its credit is there for the next one."""
        exchange = self.exchange
        if exchange is None:
            return
        self.mirror.dropped += 1
        self.mirror.credits += 1
        self.end()

    def end(self) -> None:
        """Copy no more, and keep nothing. Idempotent."""
        exchange = self.exchange
        if exchange is not None:
            self.exchange = None
            exchange.capture = None
        self.request = bytearray()
        self.answer = bytearray()
        self.mirror.captures.discard(self)


def data_of(body: bytes, names: NameTable) -> bytes:
    """A whole body in chunks without its coding."""
    return ChunkedBody(names, data_only=True).feed(body)
