"""A connection from a client: request heads, request bodies, and the order of answers.

One request at a time is answered; what a client sends ahead (pipelining) waits, bounded, and is taken up in order.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from bgproxy.http1.chunked import ChunkedBody
from bgproxy.http1.errors import BadRequest, LastHop, ProtocolError
from bgproxy.http1.request import MAX_LINE, parse_request_line, without_empty_lines
from bgproxy.proxy.balance import pick
from bgproxy.proxy.bodies import ahead, take
from bgproxy.proxy.choice import Memory, choose, remember
from bgproxy.proxy.client_state import (
    ANSWERED,
    BUSY,
    BYTES,
    CLOSED,
    EMPTY,
    HEAD,
    IDLE,
    LINGERING,
    LOST,
    REQUEST,
    TUNNEL,
    UNREAD,
    WAITS,
    ClientState,
    no_write,
)
from bgproxy.proxy.exchange import Exchange
from bgproxy.proxy.refusals import answer_options, refuse, reject, turn_away, turn_to
from bgproxy.proxy.routes import match
from bgproxy.switchboard.layout import REFUSED_ADDRESS

if TYPE_CHECKING:
    from bgproxy.proxy.runtime import Pool, Service

#: Bytes of a header block that is kept for the next connection from the same address.
_SHORT: Final = 4096

_NO_SERVICES: Final[list[Service]] = []


class ClientConnection(ClientState):
    """The protocol of one client connection (asyncio.Protocol by shape; uvloop asks for no more)."""

    running: bool = False
    empty_lines: int = 0  # that came before the request whose number is the next
    empty_before: int = -1
    idle_until: float = 0.0  # the deadline that it had before the first byte of a head came
    counted: bool = False  # among those of its address
    # Where the last request went, and what led there: it holds for the next one with the same block.
    routed: int = -1  # the context's generation for which the next three hold
    candidates: list[Service] = _NO_SERVICES
    only: Service | None = None  # the candidate that takes every path
    memory: Memory | None = None
    names: Any = None  # tls.Names that Host may say; None: any

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
            turn_away(self, "too many connections")
            return
        if context.per_address and self.peer and not self.trusted:
            if not context.take_address(self.peer):
                context.hits[REFUSED_ADDRESS] += 1
                turn_away(self, "too many connections from this address")
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
                take(self, data)
            else:
                ahead(self, data)
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
        known = self in self.context.clients  # a reload reaches it: see `Context._judge_anew`
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
        if known and 0 < self.rest_size <= _SHORT and self.peer and not self.trusted and not self.fixed_id:
            self.context.keep_recent(self)
        self.transport = None
        self.write = no_write

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered: its upstream waits."""
        self.write_paused = True
        exchange = self.exchange
        if exchange is not None and exchange.server is not None:
            exchange.server.pause()
        if self.state <= HEAD:
            self.pause(UNREAD)
        if self.state == TUNNEL and self.tunnel is not None and self.tunnel.is_restarting():
            return  # how long it may take to end is set
        if self.state != LINGERING:
            self.deadline = self.context.now + self.context.timeouts.stream_idle

    def resume_writing(self) -> None:
        """The client has read on."""
        self.write_paused = False
        context = self.context
        exchange = self.exchange
        tunnel = self.tunnel
        if exchange is not None:
            if tunnel is None:
                self.deadline = 0.0
            if exchange.server is not None:
                exchange.server.resume()
        if self.state == TUNNEL:
            if tunnel is None or not tunnel.is_restarting():
                self.deadline = context.now + context.timeouts.stream_idle
        elif self.state == HEAD:
            self.deadline = context.now + context.timeouts.header
            self.resume(UNREAD)
        elif self.state == IDLE:
            self.deadline = context.now + context.timeouts.client_idle
            self.resume(UNREAD)
            if self.buffer and not self.running:
                self._run_on()

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
                if self.state != IDLE or not self.buffer or self.write_paused:
                    break
                data = self.buffer
                self.buffer = b""
        except LastHop as last:
            answer_options(self, last.detail)
        except ProtocolError as error:
            looped = error.status == 508
            refuse(
                self, error.status, "proxy_loop_detected" if looped else "http_request_error", error.detail, close=True
            )
        finally:
            self.running = False
        if self.eof:
            self._run_out()

    def _run_on(self) -> None:
        """Take up what was sent ahead."""
        data = self.buffer
        self.buffer = b""
        self._run(data)

    def _run_out(self) -> None:
        """The client sends no more: what it has left incomplete is not waited for."""
        exchange = self.exchange
        if self.state <= HEAD:
            if not self.write_paused:
                self.close()
        elif self.state == BUSY and exchange is not None and not exchange.request_done:
            self.closed_because = "client left within its request"
            self.close()

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
            if not data:  # still nothing of a request
                if self.state == HEAD:  # the line came in two pieces, which is no other thing than in one
                    self.step(EMPTY)
                    self.deadline = self.idle_until
                return
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
            self.idle_until = self.deadline
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
        if self.listener.strict and self.turned_away():
            self.candidates = _NO_SERVICES
            self.only = None
        self.memory = None

    def turned_away(self) -> bool:
        """Whether no request with this Host is served here: the listener redirects, or its certificate names others."""
        names = self.names
        return self.listener.redirect or (names is not None and not names.hold(self.fields.hostname))

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
                if self.listener.strict and self.turned_away():
                    turn_to(self, rest)
                    return
                context.unmatched += 1
                reject(self, rest, 404, "destination_not_found", "no service is configured for this host and path")
                return
        if fields.bodied:
            limit = context.limits.body_bytes
            if limit is not None and fields.length > limit:
                reject(self, rest, 413, "http_request_error", f"a body of more than {limit} bytes")
                return
        memory = self.memory
        if memory is None or memory.service is not service:
            memory = self.memory = remember(service, fields, self)

        # No await from here to `claim`: who is live is loaded, and the request is counted for that pool, in one
        # stretch. A drain that finds none in flight after a switch can trust it (switchboard/layout.py).
        routing = context.board.routing(service.slot)
        extra = b""
        if routing < 2 and memory.plain:
            pool: Pool = service.pools[routing]
            upstream = pick(pool, service.balance, memory.key)
        else:
            choice = choose(service, memory, routing, self)
            pool = choice.pool
            upstream = choice.upstream
            extra += choice.extra
        if upstream is None:
            detail = f"no upstream of {service.name}/{pool.name} is up"
            if memory.preview >= 0:
                pool.count_preview(503)
            reject(self, rest, 503, "destination_unavailable", detail, pool)
            return
        if service.expose_pool:
            extra += b"X-BGProxy-Pool: " + pool.name.encode() + b"\r\n"
        exchange = self.exchange = Exchange(self, service, pool, self.head(), now)
        if memory.marks:
            exchange.key = memory.key
            if memory.preview >= 0:
                exchange.preview = True
                exchange.plain = False
        if extra:
            exchange.extra = extra
            exchange.plain = False
        if self.listener.hsts:
            exchange.hsts = self.listener.hsts
            exchange.plain = False
        exchange.claim(upstream)
        if service.tap is not None:
            service.tap.see(exchange, memory)

        if fields.bodied:
            exchange.request_done = False
            self.body_left = max(fields.length, 0)
            if fields.chunked:
                self.chunks = ChunkedBody(context.request_names)
                self.chunks_since = now
            self.deadline = now + context.timeouts.stream_idle
            if rest:
                take(self, rest)
            if exchange.done:
                return
        elif rest:
            ahead(self, rest)
        exchange.send()

    # --- the end ----------------------------------------------------------------------------------------------------

    def answered(self, *, keep: bool, linger: bool = False) -> None:
        """The answer is complete: take up the next request, or end."""
        if self.state == CLOSED:
            return
        context = self.context
        if not keep or (self.eof and not self.buffer):
            if linger and not self.eof:
                self.linger()
            else:
                self.close()
            return
        self.step(ANSWERED)
        self.deadline = context.now + context.timeouts.client_idle
        if self.write_paused:
            self.pause(UNREAD)
            self.paused = UNREAD
            return
        if self.paused:
            self.paused = WAITS
            self.resume()
        if self.buffer and not self.running:
            self._run_on()

    def retire(self) -> None:
        """The worker is stopping: end an idle connection; a busy one ends with its answer."""
        if self.state == IDLE:
            self.closed_because = "stopping"
            self.close()
        elif self.state == TUNNEL and self.tunnel is not None:
            self.tunnel.restart(going_away=True)
