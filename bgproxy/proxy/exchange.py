"""One request and its answer, between a client's connection and an upstream's.

An exchange is claimed for a pool and an upstream in one stretch without await, is counted in flight from there to its
end, and belongs to that pool until it ends. It sends the request, tries again where that is safe, and says afterwards
how it ended.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from bgproxy.http1.request import METHODS
from bgproxy.http1.response import ResponseHead, is_event_stream
from bgproxy.model.classes import REQUESTS, STREAMS, WEBSOCKETS
from bgproxy.proxy.balance import by_hash
from bgproxy.proxy.refusals import refuse
from bgproxy.switchboard.layout import BUCKET_BOUNDS, CODE_CELLS, NO_DESCRIPTOR, code_cell

if TYPE_CHECKING:
    from bgproxy.proxy.client import ClientConnection
    from bgproxy.proxy.mirror import Capture
    from bgproxy.proxy.runtime import Pool, Service, Upstream
    from bgproxy.proxy.upstream import UpstreamConnection

#: A body up to this size is kept while it is sent on a reused connection, so that an idempotent request can be repeated.
KEEP_FOR_RETRY: Final = 64 * 1024

#: What the upstream has answered so far.
NOTHING: Final = 0
INTERIM: Final = 1  # a 1xx
BEGUN: Final = 2  # the final head has gone to the client


#: (safe, idempotent) of a method that nobody knows.
_UNKNOWN: Final = (False, False)


class Exchange:
    """A request in flight."""

    upstream: Upstream | None = None
    server: UpstreamConnection | None = None
    progress: int = NOTHING
    retries: int = 0  # that were made
    key: int = 0  # of the client, where the balance hashes
    kept: list[bytes] | None = None  # of the body, as sent, while a retry may need it
    kept_size: int = 0
    status: int = 0
    timed: bool = True  # how long it takes is how long it was waited for: not of tunnels, nor of streams of events
    preview: bool = False  # it has named its pool
    extra: bytes = b""  # lines to add to the answer's head: Set-Cookie, X-BGProxy-Pool
    hsts: bytes = b""  # the listener's line, for an answer that has none of the upstream's
    tried: list[Upstream] | None = None
    capture: Capture | None = None  # the copy of it that is being made for the mirror

    def __init__(self, client: ClientConnection, service: Service, pool: Pool, head: bytes, now: float) -> None:
        self.client = client
        self.context = client.context
        self.service = service
        self.pool = pool
        method = self.method = client.method
        known = METHODS.get(method, _UNKNOWN)
        self.safe = known[0]
        self.idempotent = known[1]
        self.fields = client.fields
        self.target = client.target
        self.head = head  # as it goes to the upstream
        self.started = now
        self.kind: int = REQUESTS
        self.request_done = True
        self.plain = True  # no body comes, an answer needs nothing added for it, and it counts as most do
        self.pending: list[bytes] | None = None  # of the body, while there is no connection to send it on
        self.body_in = 0  # bytes
        self.bytes_out = 0
        self.done = False
        fields = self.fields
        if fields.bodied or not fields.minor or client.head_only:
            self.plain = False

    def __repr__(self) -> str:
        return f"<Exchange {self.method!r} {self.service.name}/{self.pool.name} {self.upstream} status={self.status}>"

    @property
    def bytes_in(self) -> int:
        """What was sent to the upstream."""
        return len(self.head) + self.body_in

    # --- claiming ---------------------------------------------------------------------------------------------------

    def claim(self, upstream: Upstream) -> None:
        """Count it for a pool and an upstream. No await between picking and this: the count is what a drain trusts."""
        self.upstream = upstream
        upstream.in_flight += 1
        upstream.requests += 1
        self.pool.enter(self.kind)
        if not self.safe:
            self.pool.unsafe += 1

    def send(self) -> None:
        """Put the head on a connection to the claimed upstream, a kept one if there is any."""
        upstream = self.upstream
        assert upstream is not None  # noqa: S101 - claimed before
        idle = upstream.idle
        while idle:
            server = idle.pop()
            if server.usable():
                server.start(self, True)
                return
        self.connect(upstream)

    def connect(self, upstream: Upstream) -> None:
        """Open a connection; the request waits for it."""
        from bgproxy.proxy.dial import dial  # noqa: PLC0415 - they know each other

        if not self.request_done:
            self.client.pause()  # what has come is kept in `pending`; more must not
        context = self.context
        context.own(context.loop.create_task(dial(self, upstream), name=f"connect {upstream.id}"))

    def connected(self, upstream: Upstream, server: UpstreamConnection) -> None:
        """The connection is there."""
        if self.done or self.server is not None or self.upstream is not upstream:
            if server.usable():
                server.release()  # the client has gone meanwhile; the next one gets the connection
        elif not server.usable():  # it has ended in the moment between
            reason = "connection closed before anything was sent"
            self.unreachable(upstream, reason, timed_out=False, error="connection_terminated")
        else:
            server.start(self, False)

    def unreachable(
        self, upstream: Upstream, reason: str, *, timed_out: bool, error: str = "connection_refused"
    ) -> None:
        """No connection could be made: nothing was sent, so another upstream may get any request."""
        self.context.report(upstream, reason)
        if self.done or self.upstream is not upstream:
            return
        if self.retries < self.service.retries and self._retry(fresh=False):
            return
        if timed_out:
            self.fail(504, "connection_timeout", f"upstream {upstream.id}: {reason}")
        else:
            self.fail(502, error, f"upstream {upstream.id}: {reason}", _public(error))

    def no_descriptor(self) -> None:
        """This process can open no connection to anybody: not the upstream's fault, and another one would not help."""
        self.context.hits[NO_DESCRIPTOR] += 1
        self.fail(503, "connection_limit_reached", "too many connections to upstreams are open")

    # --- the request's body -----------------------------------------------------------------------------------------

    def body(self, data: bytes) -> None:
        """More of the request's body, framed as it goes on."""
        self.body_in += len(data)
        if self.capture is not None:
            self.capture.sent(data)
        server = self.server
        if server is None:
            if self.pending is None:
                self.pending = [data]
            else:
                self.pending.append(data)
            return
        if self.kept is not None:
            self._keep(data)
        server.send(data)

    def _keep(self, data: bytes) -> None:
        self.kept_size += len(data)
        if self.kept_size > KEEP_FOR_RETRY:
            self.kept = None
        elif self.kept is not None:
            self.kept.append(data)

    def body_done(self) -> None:
        """The request is complete."""
        self.request_done = True
        if self.server is not None:
            self.server.sent_all()

    def attached(self, server: UpstreamConnection, *, reused: bool) -> None:
        """A connection has taken it: the head, and what of the body waits, go out in one write."""
        self.server = server
        pending = self.pending
        if reused and self.idempotent:
            self.kept = []
            self.kept_size = 0
            for data in pending or ():
                self._keep(data)
        if pending:
            self.pending = None
            server.write(b"".join([self.head, *pending]))
        else:
            server.write(self.head)
        client = self.client
        if client.write_paused:
            server.pause()
        if not self.request_done:
            client.resume()

    # --- trying again -----------------------------------------------------------------------------------------------

    def _retry(self, *, fresh: bool) -> bool:
        """Give it to another upstream of its pool; False if there is none. `fresh`: the same one may have it again."""
        upstream = self.upstream
        assert upstream is not None  # noqa: S101 - only what was claimed is tried again
        tried = self.tried = [*(self.tried or ()), upstream]
        others = [other for other in self.pool.ready if other not in tried]
        if others:
            chosen = min(others, key=_load) if self.key == 0 else (by_hash(self.pool, self.key) or others[0])
            if chosen in tried:
                chosen = others[0]
        elif fresh:
            chosen = upstream
        else:
            return False
        self.retries += 1
        self.pool.retries += 1
        upstream.in_flight -= 1
        chosen.in_flight += 1
        chosen.requests += 1
        self.upstream = chosen
        self.pool.dirty = True
        if self.kept:
            self.pending = self.kept
        self.kept = None
        self.server = None
        self.connect(chosen)
        self.client.server_ready()  # what the last one did not take is no reason to wait any more
        return True

    def server_lost(self, *, reused: bool, reason: str, error: str) -> None:
        """The upstream's connection ended, or broke the protocol, before the answer was complete."""
        server = self.server
        upstream = self.upstream
        if self.done or server is None or upstream is None:
            return
        if self.progress == BEGUN:
            self.broken_off(reason)
            return
        # A reused connection that ends before a byte of the answer is most often one that the upstream closed while
        # the request was on its way (RFC 9110 section 9.2.2): not its failure, and safe to repeat if idempotent.
        whole = self.plain or self.kept is not None  # all of it can be sent again
        may = reused and self.idempotent and self.progress == NOTHING and self.retries < self.service.retries
        if may and whole:
            self.server = None
            if self._retry(fresh=True):
                return
        self.server = None
        server.exchange = None  # where the connection is still there, it has nobody to answer to
        self.context.report(upstream, reason)
        self.fail(502, error, f"upstream {upstream.id}: {reason}", _public(error))

    # --- the answer -------------------------------------------------------------------------------------------------

    def streams(self, response: ResponseHead) -> None:
        """The answer has begun and has no announced end."""
        if self.kind == REQUESTS:
            self._become(STREAMS)
            if is_event_stream(response):
                self.timed = False
                self.plain = False

    def upgraded(self) -> None:
        """It is a tunnel from here on."""
        self.timed = False
        self.plain = False
        self._become(WEBSOCKETS)

    def _become(self, kind: int) -> None:
        # Entered before left: a drain must never see none where there is one.
        self.pool.enter(kind)
        self.pool.leave(self.kind)
        self.kind = kind

    def deadline(self) -> float:
        """CLOCK_MONOTONIC seconds by which its pool's drain ends it; 0.0 while there is no drain."""
        since = self.pool.draining_since
        if since < 0.0:
            return 0.0
        return max(since, self.started) + self.service.drain[self.kind]

    def finish(self) -> None:
        """The answer is complete; counted, and forgotten."""
        if self.done:
            return
        self.done = True
        self.client.exchange = None
        context = self.context
        pool = self.pool
        kind = self.kind
        pool.leave(kind)
        upstream = self.upstream
        if upstream is not None:
            upstream.in_flight -= 1
        if not self.safe:
            pool.unsafe -= 1
        now = time.monotonic()
        context.now = now
        took = now - self.started
        if self.plain:
            pool.buckets[bisect_left(BUCKET_BOUNDS, took)] += 1
            pool.duration_us += took * 1e6
        else:
            self._count(took)
        cell = CODE_CELLS.get(self.status, -1)
        pool.codes[cell if cell >= 0 else code_cell(self.status)] += 1
        pool.bytes_in += self.bytes_in
        pool.bytes_out += self.bytes_out
        if context.access_log is not None:
            context.access_log.write(self, took)

    def _count(self, took: float) -> None:
        """Count what is not plain: it may have no latency, and may say nothing of live users."""
        pool = self.pool
        bucket = -1
        if self.timed:
            bucket = bisect_left(BUCKET_BOUNDS, took)
            pool.buckets[bucket] += 1
            pool.duration_us += took * 1e6
        if self.preview:
            pool.count_preview(self.status, bucket)

    def fail(self, status: int, error: str, detail: str, public: str = "") -> None:
        """Answer with an error of our own; nothing of an answer has been sent. See `refusals.refuse`."""
        if self.done:
            return
        self._let_go()
        self.status = status
        refuse(self.client, status, error, detail, close=not self.request_done, public=public)

    def abort(self, reason: str) -> None:
        """End in the middle of an answer: the client sees that it is cut short, by a connection that ends early."""
        if self.done:
            return
        self._let_go()
        if self.progress != BEGUN:
            self.status = 499  # the client is the cause: it does not read
        client = self.client
        client.closed_because = reason
        self.finish()
        if client.resets:
            client.abort()  # over TLS, an end in order would say that this was all
        else:
            client.close()

    def broken_off(self, reason: str) -> None:
        """The upstream does not go on in the middle of its answer: its failure, and counted as one, whatever its head has said."""
        if self.done:
            return
        if self.upstream is not None:
            self.context.report(self.upstream, reason)
        self.status = 502
        self.abort(reason)

    def body_stuck(self) -> None:
        """The upstream has taken nothing more of the request's body for `timeouts.stream_idle`: its failure."""
        upstream = self.upstream
        assert upstream is not None  # noqa: S101 - it is connected
        reason = "it takes no more of the request's body"
        if self.progress == BEGUN:
            self.broken_off(reason)
        else:
            self.context.report(upstream, reason)
            self.fail(504, "connection_write_timeout", f"upstream {upstream.id}: {reason}")

    def client_left(self) -> None:
        """The client's connection has ended: so does what is done for it (499 in the log)."""
        if self.done:
            return
        self._let_go()
        if self.progress != BEGUN:
            self.status = 499
        self.finish()

    def cut(self) -> None:
        """The deadline of its class in a drain: 504 if nothing was sent, else the connection ends (product.md 5)."""
        self.pool.cut[self.kind] += 1
        self.pool.dirty = True
        if self.progress == BEGUN:
            self.abort("drain deadline")
        else:
            self.fail(504, "http_response_timeout", "the pool that it was sent to is being drained, and time is up")

    def _let_go(self) -> None:
        if self.capture is not None:
            self.capture.give_up()
        server = self.server
        if server is not None:
            self.server = None
            server.exchange = None
            server.close()


def _public(error: str) -> str:
    """What a client may know where the reason tells of certificates and files; empty where it may know it all."""
    if error.startswith("tls_") or error == "proxy_configuration_error":
        return "no secure connection to the upstream could be made"
    return ""


def _load(upstream: Upstream) -> int:
    return upstream.in_flight
