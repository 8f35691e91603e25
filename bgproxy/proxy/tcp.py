"""Connections of any protocol, relayed byte for byte: what comes through a listener in `mode: tcp`.

A connection is here what a request is elsewhere. It is claimed for the pool that is live, and for one of its upstreams, in one
stretch without await; it is counted in flight (as a stream) from there to its end, and belongs to that pool until it ends.

How it ends:

    a side sends no more (FIN)      the other side is told so behind the last byte; the other direction goes on
    both sides send no more         both are closed, once what was written is sent
    a side breaks off (RST)         the other side is reset: what was cut short must not look whole
    no byte for `stream_idle`       both are reset
    a drain's deadline              both are reset, and counted as cut
    no upstream can be reached      the client is reset

TLS knows no half-close that others could be told of: where the client's side is TLS, the first side that ends, ends both.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from bgproxy.model.classes import STREAMS
from bgproxy.proxy.balance import SOURCE_HASH, by_hash, hash_of, pick
from bgproxy.proxy.canary import canary_of
from bgproxy.switchboard.layout import BUCKET_BOUNDS, NO_DESCRIPTOR, REFUSED_ADDRESS, TIMEOUT_TUNNEL

if TYPE_CHECKING:
    from bgproxy.proxy.context import Context
    from bgproxy.proxy.runtime import Pool, Service, Upstream

# Why an end is not read; it is again when no reason is left.
_CONNECTING: Final = 1  # nobody is there yet to take what it sends
_OTHER_FULL: Final = 2  # the other end does not take it as fast as it comes

#: socket(7): close sends a reset, and forgets what was not sent.
_RESET: Final = struct.pack("ii", 1, 0)


class End:
    """One of the two connections of a stream (asyncio.Protocol by shape)."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.write: Callable[[bytes], None] = _no_write
        self.paused = 0
        self.write_paused = False
        self.half = True  # this side can be told that the other sends no more, and go on

    def attach(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self.transport = transport
        self.write = self.transport.write
        self.half = bool(self.transport.can_write_eof())

    def detach(self) -> None:
        """The connection has ended."""
        self.transport = None
        self.write = _no_write

    def pause(self, reason: int) -> None:
        """Stop reading for a reason."""
        if not self.paused and self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()
        self.paused |= reason

    def resume(self, reason: int) -> None:
        """The reason is gone; read on if no other is left."""
        if not self.paused:
            return
        self.paused &= ~reason
        if not self.paused and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def write_eof(self) -> None:
        """Tell this side that nothing more comes, behind what was written."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write_eof()

    def close(self) -> None:
        """End it, once what was written is sent. Idempotent."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()

    def reset(self) -> None:
        """End it now, so that the other side sees that it was cut. Idempotent."""
        transport = self.transport
        if transport is None:
            return
        sock = transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):  # it is gone already
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()


class TcpClient(End):
    """The connection of a client, through a listener that is one service's."""

    stream: Stream | None = None
    peer: str = ""
    counted: bool = False  # among those of its address

    def __init__(self, context: Context, service: str) -> None:
        super().__init__()
        self.context = context
        self.service = service

    def __repr__(self) -> str:
        return f"<TcpClient {self.peer} {self.stream!r}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected: it gets an upstream at once, since many a protocol has the server speak first."""
        context = self.context
        self.attach(transport)
        context.accepted += 1
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.peer = str(peer[0])
        service = context.services.get(self.service)
        if context.full() and not context.make_room():
            context.refused += 1
            self.reset()
        elif service is None:
            context.unmatched += 1
            self.reset()
        elif self._take_address():
            self._claim(service)
        else:
            context.hits[REFUSED_ADDRESS] += 1
            self.reset()

    def _take_address(self) -> bool:
        """Count it among those of its address, where these are counted; False if there are as many as there may be."""
        context = self.context
        if not context.per_address or not self.peer or context.trusted.holds(self.peer):
            return True
        self.counted = context.take_address(self.peer)
        return self.counted

    def _claim(self, service: Service) -> None:
        context = self.context
        now = time.monotonic()
        context.now = now
        key = 0
        if service.balance == SOURCE_HASH or service.source_sessions:
            key = hash_of(self.peer.encode()) or 1

        # No await from here to `claim`: who is live is loaded, and the connection is counted for that pool, in one
        # stretch. A drain that finds none in flight after a switch can trust it (switchboard/layout.py).
        routing = context.board.routing(service.slot)
        pool: Pool = service.pools[routing & 1]
        if routing > 1:
            pool = canary_of(service, routing, self.peer, context.board.switched_at(service.slot))
        upstream = by_hash(pool, key) if service.source_sessions else pick(pool, service.balance, key)
        stream = self.stream = Stream(self, service, pool, key, now)
        if upstream is None:
            stream.fail(f"no upstream of {service.name}/{pool.name} is up")
            return
        stream.claim(upstream)
        stream.connect(upstream)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self.stream is not None:
            self.stream.client_data(data)

    def eof_received(self) -> bool:
        """The client sends no more; True keeps the connection open for what the upstream has to say."""
        return self.stream is not None and self.stream.client_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended, from whichever side."""
        self.detach()
        if self.counted:
            self.counted = False
            self.context.leave_address(self.peer)
        if self.stream is not None:
            self.stream.client_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read as fast as the upstream sends."""
        self.write_paused = True
        if self.stream is not None and self.stream.server is not None:
            self.stream.server.pause(_OTHER_FULL)

    def resume_writing(self) -> None:
        """The client has read on."""
        self.write_paused = False
        stream = self.stream
        if stream is not None:
            stream.touch()
            if stream.server is not None:
                stream.server.resume(_OTHER_FULL)


class TcpServer(End):
    """The connection to an upstream, for one stream."""

    def __init__(self, stream: Stream, upstream: Upstream, prelude: bytes = b"") -> None:
        super().__init__()
        self.stream = stream
        self.upstream = upstream
        self._prelude = prelude  # goes before the client's bytes: a PROXY header

    def __repr__(self) -> str:
        return f"<TcpServer {self.upstream.id}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The upstream has accepted."""
        self.attach(transport)
        self.upstream.connections += 1
        self.upstream.pool.dirty = True
        if self._prelude:
            self.write(self._prelude)
        self.stream.connected(self)

    def data_received(self, data: bytes) -> None:
        """Bytes from the upstream."""
        self.stream.server_data(data)

    def eof_received(self) -> bool:
        """The upstream sends no more; True keeps the connection open for what the client has to say."""
        return self.stream.server_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended, from whichever side."""
        self.detach()
        self.upstream.connections -= 1
        self.upstream.pool.dirty = True
        self.stream.server_lost(exc)

    def pause_writing(self) -> None:
        """The upstream does not read as fast as the client sends."""
        self.write_paused = True
        self.stream.client.pause(_OTHER_FULL)

    def resume_writing(self) -> None:
        """The upstream has read on."""
        self.write_paused = False
        self.stream.touch()
        self.stream.client.resume(_OTHER_FULL)


class Stream:
    """A connection in flight: who it is for, and the bytes that go through."""

    upstream: Upstream | None = None
    server: TcpServer | None = None
    retries: int = 0  # that were made
    tried: list[Upstream] | None = None
    pending: list[bytes] | None = None  # from the client, while there is no connection to send it on
    closed_because: str = ""

    def __init__(self, client: TcpClient, service: Service, pool: Pool, key: int, now: float) -> None:
        self.client = client
        self.context = client.context
        self.service = service
        self.pool = pool
        self.key = key  # of the client, where the balance hashes
        self.started = now
        self.deadline = 0.0  # of what is waited for; 0.0 while a connection is made, which has its own
        self.bytes_in = 0  # from the client
        self.bytes_out = 0
        self.client_ended = False  # sends no more
        self.server_ended = False
        self.over = False
        self.context.streams.add(self)

    def __repr__(self) -> str:
        return f"<Stream {self.service.name}/{self.pool.name} {self.upstream} in={self.bytes_in} out={self.bytes_out}>"

    # --- claiming and connecting ------------------------------------------------------------------------------------

    def claim(self, upstream: Upstream) -> None:
        """Count it for a pool and an upstream. No await between picking and this: the count is what a drain trusts."""
        self.upstream = upstream
        upstream.in_flight += 1
        upstream.requests += 1
        self.pool.enter(STREAMS)

    def connect(self, upstream: Upstream) -> None:
        """Open a connection to the upstream."""
        from bgproxy.proxy.dial import dial_stream  # noqa: PLC0415 - they know each other

        context = self.context
        context.own(context.loop.create_task(dial_stream(self, upstream), name=f"connect {upstream.id}"))

    def connected(self, server: TcpServer) -> None:
        """The connection is there, and what waited goes out on it."""
        if self.over or self.server is not None or self.upstream is not server.upstream:
            server.reset()  # the client has gone meanwhile
            return
        self.server = server
        client = self.client
        self.touch()
        pending = self.pending
        if pending is not None:
            self.pending = None
            server.write(b"".join(pending))
        if self.client_ended:
            server.write_eof()
        if client.write_paused:
            server.pause(_OTHER_FULL)
        client.resume(_CONNECTING)

    def unreachable(self, upstream: Upstream, reason: str) -> None:
        """No connection could be made, so nothing was sent: another upstream of the same pool may have it."""
        self.context.report(upstream, reason)
        if self.over or self.server is not None or self.upstream is not upstream:
            return
        if self.retries < self.service.retries:
            other = self._other(upstream)
            if other is not None:
                self.retries += 1
                self.pool.retries += 1
                self.pool.dirty = True
                upstream.in_flight -= 1
                other.in_flight += 1
                other.requests += 1
                self.upstream = other
                self.connect(other)
                return
        self.fail(f"upstream {upstream.id}: {reason}")

    def no_descriptor(self) -> None:
        """This process could open no connection, which is no fault of the upstream's."""
        self.context.hits[NO_DESCRIPTOR] += 1
        if not self.over:
            self.fail("no file descriptor is left for a connection to an upstream")

    def _other(self, upstream: Upstream) -> Upstream | None:
        """An upstream that was not tried yet; the one with the least in flight, or the next in the order of the hash."""
        tried = self.tried = [*(self.tried or ()), upstream]
        others = [other for other in self.pool.ready if other not in tried]
        if not others:
            return None
        if self.key:
            preferred = by_hash(self.pool, self.key)
            return preferred if preferred in others else others[0]
        return min(others, key=_load)

    # --- bytes ------------------------------------------------------------------------------------------------------

    def touch(self) -> None:
        """Something has moved: the idle time begins anew."""
        if not self.over:
            self.deadline = self.context.now + self.context.timeouts.stream_idle

    def client_data(self, data: bytes) -> None:
        """Bytes from the client."""
        self.bytes_in += len(data)
        server = self.server
        if server is not None:
            self.touch()
            server.write(data)
        elif self.pending is None:
            self.pending = [data]
            self.client.pause(_CONNECTING)
        else:
            self.pending.append(data)

    def server_data(self, data: bytes) -> None:
        """Bytes from the upstream."""
        self.bytes_out += len(data)
        self.touch()
        self.client.write(data)

    def client_eof(self) -> bool:
        """The client sends no more; whether its connection stays open."""
        self.client_ended = True
        if self.over or self.server_ended or not self.client.half:
            self.end("client closed")
            return False
        self.touch()
        if self.server is not None:
            self.server.write_eof()
        return True

    def server_eof(self) -> bool:
        """The upstream sends no more; whether its connection stays open."""
        self.server_ended = True
        if self.over or self.client_ended or not self.client.half:
            self.end("upstream closed")
            return False
        self.touch()
        self.client.write_eof()
        return True

    # --- the end ----------------------------------------------------------------------------------------------------

    def is_due(self, now: float) -> bool:
        """Whether a time-out or a drain's deadline has passed."""
        if 0.0 < self.deadline <= now:
            return True
        since = self.pool.draining_since
        return since >= 0.0 and not self.over and max(since, self.started) + self.service.drain[STREAMS] <= now

    def due(self, now: float) -> None:
        """Do what the passed deadline asks for."""
        if self.over:  # closed, but what was written is not taken
            self.deadline = 0.0
            self._reset()
        elif 0.0 < self.deadline <= now:
            self.context.hits[TIMEOUT_TUNNEL] += 1
            self.cut("idle")
        else:
            self.pool.cut[STREAMS] += 1
            self.cut("drain deadline")

    def end(self, reason: str) -> None:
        """Close both sides, once what was written is sent. Idempotent."""
        self._finish(reason)
        self.client.close()
        if self.server is not None:
            self.server.close()

    def cut(self, reason: str) -> None:
        """Reset both sides. Idempotent."""
        self._finish(reason)
        self._reset()

    def fail(self, reason: str) -> None:
        """There is no upstream for it."""
        self.pool.streams_failed += 1
        self.cut(reason)

    def client_lost(self, exc: Exception | None) -> None:
        """The client's connection has ended."""
        if not self.over:
            self.cut("client closed" if exc is None else f"client: {exc}".lower())
        self._forget()

    def server_lost(self, exc: Exception | None) -> None:
        """The upstream's connection has ended."""
        if not self.over:
            self.cut("upstream closed" if exc is None else f"upstream: {exc}".lower())
        self._forget()

    def _reset(self) -> None:
        self.client.reset()
        if self.server is not None:
            self.server.reset()

    def _forget(self) -> None:
        """The sweep need not look at it when both connections are gone."""
        if self.client.transport is None and (self.server is None or self.server.transport is None):
            self.context.streams.discard(self)

    def _finish(self, reason: str) -> None:
        """It is over: counted, and logged. What is written and not sent has as long as an idle stream."""
        if self.over:
            return
        self.touch()
        self.over = True
        self.pending = None
        self.closed_because = reason
        context = self.context
        pool = self.pool
        upstream = self.upstream
        now = time.monotonic()
        context.now = now
        took = now - self.started
        if upstream is not None:
            pool.leave(STREAMS)
            upstream.in_flight -= 1
        pool.streams += 1
        pool.buckets[bisect_left(BUCKET_BOUNDS, took)] += 1
        pool.duration_us += took * 1e6
        pool.bytes_in += self.bytes_in
        pool.bytes_out += self.bytes_out
        pool.dirty = True
        if context.access_log is not None:
            context.access_log.write_stream(self, took)


def _load(upstream: Upstream) -> int:
    return upstream.in_flight


def _no_write(data: bytes) -> None:  # noqa: ARG001 - stands in for a transport that has gone
    return
