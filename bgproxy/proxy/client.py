"""A connection from a client: request heads, request bodies, and the order of answers.

One request at a time is answered; what a client sends ahead (pipelining) waits, bounded, and is taken up in order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from bgproxy.http1.chunked import ChunkedBody
from bgproxy.http1.errors import BadRequest, LastHop, ProtocolError
from bgproxy.http1.request import MAX_LINE, parse_request_line, without_empty_lines
from bgproxy.model.connection import CLIENT_STEPS, illegal
from bgproxy.proxy.answers import answer, answer_options, wants_json
from bgproxy.proxy.balance import pick
from bgproxy.proxy.choice import Memory, choose, remember
from bgproxy.proxy.exchange import BEGUN, Exchange
from bgproxy.proxy.heads import Listener, RequestHeads
from bgproxy.proxy.routes import match
from bgproxy.switchboard.layout import (
    OVER_BODY,
    OVER_HEAD,
    OVER_TINY_CHUNKS,
    REFUSED_ADDRESS,
    SLOW_BODY,
    SLOW_READER,
    TIMEOUT_BODY,
    TIMEOUT_HEADER,
    TIMEOUT_IDLE,
    TIMEOUT_TUNNEL,
    TIMEOUT_WRITE,
)

if TYPE_CHECKING:
    from bgproxy.proxy.context import Context
    from bgproxy.proxy.runtime import Pool, Service
    from bgproxy.proxy.tunnel import Tunnel

# model.connection.ClientState and ClientEvent, as constants (a test holds them equal).
IDLE: Final = 0
HEAD: Final = 1
BUSY: Final = 2
TUNNEL: Final = 3
LINGERING: Final = 4
CLOSED: Final = 5
BYTES: Final = 0
REQUEST: Final = 1
ANSWERED: Final = 2
UPGRADED: Final = 3
ENDING: Final = 4
LOST: Final = 5

#: Seconds for which an ended connection is still read, so that the client reads our answer and not a reset (9112 9.6).
LINGER: Final = 2.0
#: What may wait of requests sent ahead before reading stops.
AHEAD: Final = 64 * 1024
#: When a client's unsent answer exceeds the first, its upstream is not read until it falls to the second.
HIGH_WATER: Final = 64 * 1024
LOW_WATER: Final = 16 * 1024

#: Bytes of a header block that is kept for the next connection from the same address.
_SHORT: Final = 4096

_NO_SERVICES: Final[list[Service]] = []

# Why reading is paused; it goes on when no reason is left.
_WAITS: Final = 1  # for a connection to the upstream, or with too much sent ahead
_SERVER_FULL: Final = 2  # the upstream does not take the body as fast as it comes
_THROTTLED: Final = 4  # it brings too many tiny chunks
_SECOND: Final = 1.0


class ClientConnection(RequestHeads):
    """The protocol of one client connection (asyncio.Protocol by shape; uvloop asks for no more)."""

    running: bool = False
    tunnel: Tunnel | None = None
    body_left: int = 0
    chunks: ChunkedBody | None = None
    closed_because: str = ""
    empty_lines: int = 0  # that came before the request whose number is the next
    empty_before: int = -1
    chunks_since: float = 0.0  # CLOCK_MONOTONIC, from when on tiny chunks are counted
    counted: bool = False  # among those of its address
    # Where the last request went, and what led there: it holds for the next one with the same block.
    candidates: list[Service] = _NO_SERVICES
    names: Any = None  # tls.Names that Host may say; None: any

    def __init__(self, context: Context, listener: Listener) -> None:
        super().__init__(context, listener)
        self.transport: Any = None
        self.write: Callable[[bytes], None] = _no_write
        self.state: int = IDLE
        self.buffer = b""
        self.exchange: Exchange | None = None
        self.deadline = 0.0
        self.paused = 0
        self.write_paused = False
        self.eof = False
        self.routed: int = -1  # the context's generation for which the next three hold
        self.only: Service | None = None  # the candidate that takes every path
        self.memory: Memory | None = None

    def __repr__(self) -> str:
        return f"<ClientConnection {self.peer} state={self.state} exchange={self.exchange!r}>"

    def step(self, event: int) -> None:
        """Go to the next state by the table; an illegal event raises and changes nothing."""
        after = CLIENT_STEPS[event * 6 + self.state]
        if after < 0:
            raise illegal("client connection", self.state, event)
        self.state = after

    # --- the protocol -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        context = self.context
        self.transport = transport
        self.write = self.transport.write
        context.accepted += 1
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.peer = str(peer[0])
            self.trusted = context.trusted.holds(self.peer)
            if not self.trusted:
                known = context.recent.get(self.peer)
                if known is not None and known.listener is self.listener:
                    self.learn_from(known)
        self.id_prefix = f"{context.id_base}{context.accepted:06x}-".encode()
        if context.full() and not context.make_room():
            context.refused += 1
            self._turn_away("too many connections")
            return
        if context.per_address and self.peer and not self.trusted:
            if not context.take_address(self.peer):
                context.hits[REFUSED_ADDRESS] += 1
                self._turn_away("too many connections from this address")
                return
            self.counted = True
        context.clients.add(self)
        self.deadline = context.now + context.timeouts.header

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        state = self.state
        if state == IDLE:
            if self.meet_again(data):
                self._serve(b"")
            else:
                self._run(data)
        elif state == BUSY:
            if self.body_left or self.chunks is not None:
                self._body(data)
            else:
                self._ahead(data)
        elif state == TUNNEL:
            tunnel = self.tunnel
            if tunnel is not None:
                tunnel.client_data(data)
        elif state == HEAD:
            held = self.buffer
            if b"\n" not in data and self._goes_on(held, len(data)):
                self.buffer = held + data
                return
            self.buffer = b""
            self._run(held + data)

    def _turn_away(self, detail: str) -> None:
        """One connection too many: say so, and end it."""
        self.closed_because = detail
        self.write(answer(503, "connection_limit_reached", detail, self.id_prefix, close=True))
        self.transport.close()
        self.state = CLOSED

    def eof_received(self) -> bool:
        """The client sends no more; True keeps the connection open for the answer (RFC 9112 section 9.6)."""
        state = self.state
        self.eof = True
        if state == BUSY:
            exchange = self.exchange
            if exchange is not None and exchange.request_done:  # over TLS, uvloop ends the connection whatever is said
                return not self.listener.secure
            self.closed_because = "client left within its request"
        elif state == TUNNEL and self.tunnel is not None:
            return self.tunnel.client_eof() and not self.listener.secure
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended, from whichever side."""
        if not self.closed_because:
            self.closed_because = "client closed" if exc is None else f"client: {exc}"
        self.context.clients.discard(self)
        if self.counted:
            self.counted = False
            self.context.leave_address(self.peer)
        self.deadline = 0.0
        if self.state != CLOSED:
            self.step(LOST)
        tunnel = self.tunnel
        if tunnel is not None:
            self.tunnel = None
            tunnel.end()
        exchange = self.exchange
        if exchange is not None:
            exchange.client_left()
        self.buffer = b""
        self.chunks = None
        self.memory = None
        if 0 < self.rest_size <= _SHORT and self.peer and not self.trusted and not self.fixed_id:
            self.context.keep_recent(self)
        self.transport = None
        self.write = _no_write

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered: its upstream waits."""
        self.write_paused = True
        exchange = self.exchange
        if exchange is not None and exchange.server is not None:
            exchange.server.pause()
        if self.state != LINGERING:
            self.deadline = self.context.now + self.context.timeouts.stream_idle

    def resume_writing(self) -> None:
        """The client has read on."""
        self.write_paused = False
        context = self.context
        exchange = self.exchange
        if exchange is not None:
            self.deadline = 0.0
            if exchange.server is not None:
                exchange.server.resume()
        if self.state == TUNNEL:
            self.deadline = context.now + context.timeouts.stream_idle
        elif self.state == IDLE:
            self.deadline = context.now + context.timeouts.client_idle

    # --- reading ----------------------------------------------------------------------------------------------------

    def pause(self, reason: int = _WAITS) -> None:
        """Stop reading for a reason."""
        if not self.paused and self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()
        self.paused |= reason

    def resume(self, reason: int = _WAITS) -> None:
        """The reason is gone; read on if no other is left."""
        if not self.paused:
            return
        self.paused &= ~reason
        if not self.paused and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def server_full(self) -> None:
        """The upstream takes no more of the body for now."""
        self.pause(_SERVER_FULL)

    def server_ready(self) -> None:
        """The upstream takes more of the body."""
        self.resume(_SERVER_FULL)

    # --- heads ------------------------------------------------------------------------------------------------------

    def _run(self, data: bytes) -> None:
        """Take up requests, as long as there are whole ones and they are answered at once."""
        if self.running:
            self.buffer = data
            return
        self.running = True
        try:
            while data:
                self._head(data)
                if self.state != IDLE or not self.buffer:
                    break
                data = self.buffer
                self.buffer = b""
        except LastHop as last:
            self._answer_options(last.detail)
        except ProtocolError as error:
            looped = error.status == 508
            self.refuse(
                error.status, "proxy_loop_detected" if looped else "http_request_error", error.detail, close=True
            )
        finally:
            self.running = False

    def _head(self, data: bytes) -> None:
        self.head_only = False  # the last request's: what is refused before its method is known gets a body
        end = data.find(b"\r\n\r\n")
        line_end = data.find(b"\r\n")
        if line_end == 0:
            if self.empty_before != self.number:
                self.empty_before = self.number
                self.empty_lines = 0
            size = len(data)
            data = without_empty_lines(data, self.empty_lines)
            self.empty_lines += (size - len(data)) // 2
            if not data:
                return  # still nothing of a request
            end = data.find(b"\r\n\r\n")
            line_end = data.find(b"\r\n")
        if end == -1:
            self._partial(data, line_end)
            return
        self.judge(data, line_end, end)
        self.routed = -1
        self._serve(data[end + 4 :] if len(data) > end + 4 else b"")

    def _partial(self, data: bytes, line_end: int) -> None:
        """A head that is not complete: refuse now what can only be refused, else wait for the rest."""
        limit = self.context.limits.header_bytes
        if line_end > MAX_LINE or (line_end == -1 and len(data) > MAX_LINE):
            raise BadRequest(414, f"a request line of more than {MAX_LINE} bytes")
        if len(data) > limit:
            raise BadRequest(431, f"a head of more than {limit} bytes")
        if data.count(b"\n") != data.count(b"\r\n"):
            raise BadRequest(400, "a bare LF in the head")
        if line_end > 0:
            parse_request_line(data[:line_end])
        if self.state == IDLE:
            self.deadline = self.context.now + self.context.timeouts.header
        self.step(BYTES)
        self.buffer = data

    def _goes_on(self, held: bytes, more: int) -> bool:
        """Whether a head that has gone on within a line may still become a good one: it is not looked at again then."""
        limit = self.context.limits.header_bytes
        size = len(held) + more
        return size <= limit and (size <= MAX_LINE or held.find(b"\r\n", 0, MAX_LINE + 2) > 0)

    def _route(self) -> None:
        """Find out where requests with this header block may go."""
        context = self.context
        self.routed = context.generation
        candidates = self.candidates = context.routes.candidates(self.fields.hostname)
        self.only = candidates[0] if candidates and candidates[0].path == b"/" else None
        if self.listener.strict and self._turned_away():
            self.candidates = _NO_SERVICES
            self.only = None
        self.memory = None

    def _turned_away(self) -> bool:
        """Whether no request with this Host is served here: the listener redirects, or its certificate names others."""
        names = self.names
        return self.listener.redirect or (names is not None and not names.hold(self.fields.hostname))

    def _turn_to(self, rest: bytes) -> None:
        """Answer a request that is for another place: to https (RFC 9110 section 15.4.9), or another connection (15.5.20)."""
        host = self.fields.hostname
        if not self.listener.redirect:
            detail = "the certificate of this connection is not one for this host"
            self._reject(rest, 421, "http_request_denied", detail)
        elif not host or self.target == b"*":
            lacking = "path" if host else "Host"
            self._reject(rest, 400, "http_request_error", f"a request without a {lacking} cannot be sent to https")
        else:
            where = b"".join([b"Location: https://", host, self.listener.redirect_port, self.target, b"\r\n"])
            self._reject(rest, 308, "", "this host is served by https", extra=where)

    def _serve(self, rest: bytes) -> None:
        """A head has been judged: choose, and send it on. `rest` is what came behind it."""
        context = self.context
        now = time.monotonic()
        context.now = now
        if self.routed != context.generation:
            self._route()
        self.step(REQUEST)
        self.deadline = 0.0
        fields = self.fields
        service = self.only
        if service is None:
            service = match(self.candidates, self.target)
            if service is None:
                if self.listener.strict and self._turned_away():
                    self._turn_to(rest)
                    return
                context.unmatched += 1
                self._reject(rest, 404, "destination_not_found", "no service is configured for this host and path")
                return
        if fields.bodied:
            limit = context.limits.body_bytes
            if limit is not None and fields.length > limit:
                self._reject(rest, 413, "http_request_error", f"a body of more than {limit} bytes")
                return
        memory = self.memory
        if memory is None or memory.service is not service:
            memory = self.memory = remember(service, fields, self)

        # No await from here to `claim`: who is live is loaded, and the request is counted for that pool, in one
        # stretch. A drain that finds none in flight after a switch can trust it (switchboard/layout.py).
        live = context.board.live(service.slot)
        pool: Pool = service.pools[live]
        extra = self.listener.hsts
        if memory.plain:
            upstream = pick(pool, service.balance, memory.key)
        else:
            choice = choose(service, memory, live, self)
            pool = choice.pool
            upstream = choice.upstream
            extra += choice.extra
        if upstream is None:
            detail = f"no upstream of {service.name}/{pool.name} is up"
            self._reject(rest, 503, "destination_unavailable", detail, pool)
            return
        if service.expose_pool:
            extra += b"X-BGProxy-Pool: " + pool.name.encode() + b"\r\n"
        exchange = self.exchange = Exchange(self, service, pool, self.head(), now)
        if memory.key:
            exchange.key = memory.key
        if extra:
            exchange.extra = extra
            exchange.plain = False
        exchange.claim(upstream)

        if fields.bodied:
            exchange.request_done = False
            self.body_left = max(fields.length, 0)
            if fields.chunked:
                self.chunks = ChunkedBody(context.request_names)
                self.chunks_since = now
            self.deadline = now + context.timeouts.stream_idle
            if rest:
                self._body(rest)
            if exchange.done:
                return
        elif rest:
            self._ahead(rest)
        exchange.send()

    # --- bodies -----------------------------------------------------------------------------------------------------

    def _ahead(self, data: bytes) -> None:
        """Bytes of a later request: they wait for their turn."""
        self.buffer = self.buffer + data if self.buffer else data
        if len(self.buffer) > AHEAD:
            self.pause()

    def _body(self, data: bytes) -> None:
        exchange = self.exchange
        context = self.context
        chunks = self.chunks
        rest = b""
        if chunks is None:
            if len(data) > self.body_left:
                rest = data[self.body_left :]
                data = data[: self.body_left]
            self.body_left -= len(data)
            done = not self.body_left
        else:
            try:
                data = chunks.feed(data)
            except ProtocolError as error:
                self._broken_body(error)
                return
            done = chunks.done
            limit = context.limits.body_bytes
            if limit is not None and chunks.received > limit:
                self._broken_body(ProtocolError(413, f"a body of more than {limit} bytes"))
                return
            if done:
                rest = chunks.rest
                self.chunks = None
        self.deadline = 0.0 if done else context.now + context.timeouts.stream_idle
        if chunks is not None and chunks.tiny > context.limits.tiny_chunks and not done:
            self._throttle(chunks)
        if exchange is not None:
            if data:
                exchange.body(data)
            if done:
                exchange.body_done()
        if rest:
            self._ahead(rest)

    def _throttle(self, chunks: ChunkedBody) -> None:
        """It has brought more tiny chunks than it may in a second: within that second nothing more is read."""
        context = self.context
        left = self.chunks_since + _SECOND - context.now
        if left > 0.0:
            context.hits[OVER_TINY_CHUNKS] += 1
            self.pause(_THROTTLED)
            self.deadline = context.now + left
        else:
            self.chunks_since = context.now
            chunks.tiny = 0

    def _broken_body(self, error: ProtocolError) -> None:
        """The body turned out malformed or too long in its middle."""
        self.chunks = None
        self.body_left = 0
        self.context.bad_requests += 1
        exchange = self.exchange
        if exchange is None or exchange.progress == BEGUN:
            self.closed_because = error.detail
            if exchange is not None:
                exchange.abort(error.detail)
            self.close()
        else:
            exchange.fail(error.status, "http_request_error", error.detail)

    # --- answers ----------------------------------------------------------------------------------------------------

    def _reject(
        self, rest: bytes, status: int, error: str, detail: str, pool: Pool | None = None, extra: bytes = b""
    ) -> None:
        """Answer a well-formed request with an error of our own, and go on if it has no body."""
        if pool is not None:
            pool.count_rejected(status)
        bodyless = not self.fields.bodied
        if bodyless and rest:
            self.buffer = rest
        self.refuse(status, error, detail, close=not bodyless, extra=extra)

    def refuse(
        self, status: int, error: str, detail: str, *, close: bool, extra: bytes = b"", public: str = ""
    ) -> None:
        """Answer with an error of our own; `extra` are further lines of its head, `public` what the client reads for `detail`."""
        context = self.context
        exchange = self.exchange
        if exchange is None and self.state != BUSY:  # not a request at all, so not one that an id was given to
            context.bad_requests += 1
            close = True
            request_id = self.id_prefix + str(self.number).encode()
        else:
            request_id = self.request_id()
        if status == 413:
            context.hits[OVER_BODY] += 1
        elif status in (414, 431):
            context.hits[OVER_HEAD] += 1
        close = close or self.fields.close or context.stopping or self.eof
        as_json = wants_json(self.rest)
        extra = self.listener.hsts + extra
        data = answer(
            status,
            error,
            public or detail,
            request_id,
            close=close,
            as_json=as_json,
            head_only=self.head_only,
            extra=extra,
        )
        self.closed_because = detail
        self.write(data)
        if exchange is not None:
            exchange.status = status
            exchange.bytes_out += len(data)
            exchange.finish()
        elif context.access_log is not None:
            context.access_log.write_refused(self, status, detail, request_id)
        self.answered(keep=not close, linger=True)

    def _answer_options(self, why: str) -> None:
        """An OPTIONS that goes no further: answered here, and the connection ends, as it may have a body."""
        request_id = self.id_prefix + str(self.number).encode()
        self.closed_because = why
        self.write(answer_options(request_id, self.listener.hsts))
        if self.context.access_log is not None:
            self.context.access_log.write_refused(self, 200, why, request_id)
        self.answered(keep=False, linger=True)

    def answered(self, *, keep: bool, linger: bool = False) -> None:
        """The answer is complete: take up the next request, or end."""
        if self.state == CLOSED:
            return
        context = self.context
        if not keep or self.eof:
            if linger and not self.eof:
                self._linger()
            else:
                self.close()
            return
        self.step(ANSWERED)
        self.deadline = context.now + context.timeouts.client_idle
        if self.paused:
            self.paused = _WAITS
            self.resume()
        if self.buffer and not self.running:
            data = self.buffer
            self.buffer = b""
            self._run(data)

    def _linger(self) -> None:
        """Send nothing more, and read what still comes, so that no reset overtakes the answer (RFC 9112 section 9.6)."""
        self.step(ENDING)
        self.buffer = b""
        self.chunks = None
        self.deadline = self.context.now + LINGER
        if self.paused:
            self.paused = _WAITS
            self.resume()
        # uvloop cannot close one direction of TLS; the client knows the answer's length.
        if self.transport is not None and not self.transport.is_closing() and not self.listener.secure:
            self.transport.write_eof()

    def close(self) -> None:
        """End the connection, once what was written is sent; there is a deadline for that, too. Idempotent."""
        if self.transport is not None and not self.transport.is_closing():
            self.deadline = self.context.give_up
            self.transport.close()

    def is_ending(self) -> bool:
        """Whether it was closed by us, and what was written is still on its way."""
        return self.transport is not None and bool(self.transport.is_closing())

    # --- time -------------------------------------------------------------------------------------------------------

    def is_due(self, now: float) -> bool:
        """Whether a time-out or a drain deadline has passed."""
        if 0.0 < self.deadline <= now:
            return True
        exchange = self.exchange
        return exchange is not None and exchange.pool.draining_since >= 0.0 and 0.0 < exchange.deadline() <= now

    def due(self, now: float) -> None:
        """Do what the passed deadline asks for."""
        exchange = self.exchange
        state = self.state
        if not 0.0 < self.deadline <= now:
            if self.tunnel is not None:
                self.tunnel.restart()
            elif exchange is not None:
                exchange.cut()
            return
        self.deadline = 0.0
        if self.is_ending():
            self.expire(TIMEOUT_WRITE)
        elif self.paused & _THROTTLED:
            if self.chunks is not None:
                self.chunks.tiny = 0
            self.chunks_since = now
            self.deadline = now + self.context.timeouts.stream_idle
            self.resume(_THROTTLED)
        elif state == HEAD:
            self.expire(TIMEOUT_HEADER)
        elif state == BUSY:
            waits = exchange is not None and not exchange.request_done and not self.write_paused
            self.expire(TIMEOUT_BODY if waits else TIMEOUT_WRITE)
        elif state == TUNNEL and self.tunnel is not None and self.tunnel.code:
            self.tunnel.end()  # it was told to end, and has had its time for that
        elif state == TUNNEL:
            self.expire(TIMEOUT_WRITE if self.write_paused else TIMEOUT_TUNNEL)
        elif state == IDLE:
            self.expire(TIMEOUT_IDLE)
        elif self.write_paused:  # it lingers, and what it was told is unread
            self.abort()
        else:
            self.close()

    def expire(self, why: int) -> None:
        """The client has let us wait for too long: end what we waited for. `why` is one of switchboard.layout's, and counted."""
        self.context.hits[why] += 1
        exchange = self.exchange
        unread = why in (TIMEOUT_WRITE, SLOW_READER)
        if not self.closed_because:
            self.closed_because = "the client does not read its answer" if unread else "idle"
        if self.is_ending() or (exchange is None and (unread or self.write_paused)):
            self.abort()
        elif self.state == HEAD:
            self.refuse(408, "http_request_error", "the request's head did not come in time", close=True)
        elif self.state == BUSY and exchange is not None:
            if unread or exchange.progress == BEGUN:
                exchange.abort("the client does not read its answer" if unread else "the body did not come in time")
                self.abort()
            else:
                detail = "came too slowly" if why == SLOW_BODY else "did not come in time"
                exchange.fail(408, "http_request_error", f"the request's body {detail}")
        elif self.state == TUNNEL and self.tunnel is not None:
            self.tunnel.end()
            if unread:
                self.abort()
        else:
            self.close()

    def time_left(self, now: float) -> float:
        """What share of its time a client has left that waits for nothing but a request: 1.0 is all of it."""
        timeouts = self.context.timeouts
        limit = timeouts.header if not self.number or self.state == HEAD else timeouts.client_idle
        return (self.deadline - now) / limit

    def abort(self) -> None:
        """End the connection now; what was not sent is lost."""
        if self.transport is not None:
            self.transport.abort()

    def retire(self) -> None:
        """The worker is stopping: end an idle connection; a busy one ends with its answer."""
        if self.state == IDLE:
            self.closed_because = "stopping"
            self.close()
        elif self.state == TUNNEL and self.tunnel is not None:
            self.tunnel.restart(going_away=True)


def _no_write(data: bytes) -> None:  # noqa: ARG001 - stands in for a transport that has gone
    return
