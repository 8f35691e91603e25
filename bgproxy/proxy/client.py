"""A connection from a client: request heads, request bodies, and the order of answers.

One request at a time is answered; what a client sends ahead (pipelining) waits, bounded, and is taken up in order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from bgproxy.http1.chunked import ChunkedBody
from bgproxy.http1.errors import BadRequest, ProtocolError
from bgproxy.http1.request import (
    MAX_LINE,
    RequestFields,
    parse_request_fields,
    parse_request_line,
    split_absolute,
    without_empty_lines,
)
from bgproxy.model.connection import CLIENT_STEPS, illegal
from bgproxy.proxy.answers import answer, wants_json
from bgproxy.proxy.balance import pick
from bgproxy.proxy.choice import Memory, choose
from bgproxy.proxy.exchange import BEGUN, Exchange
from bgproxy.proxy.routes import Routes, match

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

# Why reading is paused; it goes on when no reason is left.
_WAITS: Final = 1  # for a connection to the upstream, or with too much sent ahead
_SERVER_FULL: Final = 2  # the upstream does not take the body as fast as it comes

#: The ends of heads: the number of a request on its connection ends its id.
_ENDS: Final = [b"%d\r\n\r\n" % number for number in range(1000)]


class Listener:
    """What a client's connection knows of the listener that it came through."""

    def __init__(self, port: int, *, unix: bool) -> None:
        self.port = str(port).encode()
        self.unix = unix


class ClientConnection:
    """The protocol of one client connection (asyncio.Protocol by shape; uvloop asks for no more)."""

    def __init__(self, context: Context, listener: Listener) -> None:
        self.context = context
        self.listener = listener
        self.state = IDLE
        self.transport: Any = None
        self.write: Callable[[bytes], None] = _no_write
        self.peer = ""
        self.trusted = False
        self.id_prefix = b""
        self.number = 0
        self.head_only = False  # the current request is a HEAD: even our own errors have no body
        self.buffer = b""
        self.running = False
        self.exchange: Exchange | None = None
        self.tunnel: Tunnel | None = None
        self.body_left = 0
        self.chunks: ChunkedBody | None = None
        self.deadline = 0.0
        self.paused = 0
        self.write_paused = False
        self.eof = False
        self.closed_because = ""
        # The memory of the last head (architecture.md): everything that follows from these bytes follows again.
        self.last_block = b"\0"
        self.last_minor = -1
        self.last_names = context.request_names  # by which it was judged; another table, another judgement
        self.last_fields = RequestFields()
        self.last_head = b""  # what follows the request line, up to the number of the request id
        self.last_tail = b""  # the part of it that the header block does not change, as long as the host is the same
        self.last_tail_host = b""
        self.last_fixed_id = False
        self.last_routes: Routes | None = None
        self.last_candidates: list[Service] = []
        self.last_memory: Memory | None = None

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
        self.peer = str(peer[0]) if isinstance(peer, tuple) else ""
        self.trusted = context.trusted.holds(self.peer)
        self.id_prefix = f"{context.id_base}{context.accepted:06x}-".encode()
        if len(context.clients) >= context.max_connections:
            context.refused += 1
            self.closed_because = "too many connections"
            self.write(answer(503, "connection_limit_reached", "too many connections", self.id_prefix, close=True))
            self.transport.close()
            self.state = CLOSED
            return
        context.clients.add(self)
        self.transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        self.deadline = context.now + context.timeouts.header

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        state = self.state
        if state == IDLE:
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
            data = self.buffer + data
            self.buffer = b""
            self._run(data)

    def eof_received(self) -> bool:
        """The client sends no more; True keeps the connection open for the answer (RFC 9112 section 9.6)."""
        state = self.state
        self.eof = True
        if state == BUSY:
            exchange = self.exchange
            if exchange is not None and exchange.request_done:
                return True
            self.closed_because = "client left within its request"
        elif state == TUNNEL and self.tunnel is not None:
            return self.tunnel.client_eof()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended, from whichever side."""
        if not self.closed_because:
            self.closed_because = "client closed" if exc is None else f"client: {exc}"
        self.context.clients.discard(self)
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
        self.last_memory = None
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
        except ProtocolError as error:
            self.refuse(error.status, "http_request_error", error.detail, close=True)
        finally:
            self.running = False

    def _head(self, data: bytes) -> None:
        end = data.find(b"\r\n\r\n")
        line_end = data.find(b"\r\n")
        if line_end == 0:
            data = without_empty_lines(data)
            if not data:
                if self.state == HEAD:
                    self.buffer = b"\r\n"
                return  # still nothing of a request
            end = data.find(b"\r\n\r\n")
            line_end = data.find(b"\r\n")
        if end == -1:
            self._partial(data, line_end)
            return
        if line_end > MAX_LINE:
            raise BadRequest(414, f"a request line of more than {MAX_LINE} bytes")
        if end > self.context.limits.header_bytes:
            raise BadRequest(431, f"a head of more than {self.context.limits.header_bytes} bytes")
        self._request(data, line_end, end)

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

    def _request(self, data: bytes, line_end: int, end: int) -> None:
        """A whole head has come: judge it, choose, and send it on."""
        context = self.context
        now = time.monotonic()
        context.now = now
        self.number += 1
        method, target, minor = parse_request_line(data[:line_end])
        self.head_only = method == b"HEAD"
        block = data[line_end + 2 : end + 2]
        line: bytes
        if target.startswith(b"/") and method != b"CONNECT":
            if block == self.last_block and minor == self.last_minor and context.request_names is self.last_names:
                fields = self.last_fields
            else:
                fields = parse_request_fields(block, minor, context.request_names, context.limits.headers)
                self._remember(block, fields)
            line = data[: line_end + 2] if minor else b"%b %b HTTP/1.1\r\n" % (method, target)
        else:
            fields, target = self._other_form(method, target, minor, block)
            line = b"%b %b HTTP/1.1\r\n" % (method, target)
        if self.last_routes is not context.routes:
            self.last_routes = context.routes
            self.last_candidates = context.routes.candidates(fields.hostname)
        self.step(REQUEST)
        self.deadline = 0.0
        service = match(self.last_candidates, target)
        rest = data[end + 4 :] if len(data) > end + 4 else b""
        if service is None:
            context.unmatched += 1
            self._reject(fields, rest, 404, "destination_not_found", "no service is configured for this host and path")
            return
        limit = context.limits.body_bytes
        if limit is not None and fields.length > limit:
            self._reject(fields, rest, 413, "http_request_error", f"a body of more than {limit} bytes")
            return
        memory = self.last_memory
        if memory is None or not memory.current(service):
            memory = Memory(service, fields, self)
            self.last_memory = memory

        # No await from here to `claim`: who is live is loaded, and the request is counted for that pool, in one
        # stretch. A drain that finds none in flight after a switch can trust it (switchboard/layout.py).
        live = context.board.live(service.slot)
        pool: Pool = service.pools[live]
        extra = b""
        if memory.plain:
            upstream = pick(pool, service.balance, memory.key)
        else:
            choice = choose(service, memory, live, self)
            pool = choice.pool
            upstream = choice.upstream
            extra = choice.extra
        if upstream is None:
            detail = f"no upstream of {service.name}/{pool.name} is up"
            self._reject(fields, rest, 503, "destination_unavailable", detail, pool)
            return
        number = self.number
        last = _ENDS[number] if number < 1000 else b"%d\r\n\r\n" % number
        if self.last_fixed_id:
            last = b"\r\n\r\n"
        head = b"".join([line, self.last_head, last])
        exchange = Exchange(self, service, pool, method, fields, head)
        exchange.target = target
        exchange.key = memory.key
        if service.expose_pool:
            extra += b"X-BGProxy-Pool: " + pool.name.encode() + b"\r\n"
        exchange.extra = extra
        self.exchange = exchange
        exchange.claim(upstream)

        if fields.length > 0 or fields.chunked:
            exchange.request_done = False
            self.body_left = max(fields.length, 0)
            if fields.chunked:
                self.chunks = ChunkedBody(context.request_names)
            self.deadline = now + context.timeouts.stream_idle
            if rest:
                self._body(rest)
        elif rest:
            self._ahead(rest)
        if not exchange.done:
            exchange.send()

    def _other_form(self, method: bytes, target: bytes, minor: int, block: bytes) -> tuple[RequestFields, bytes]:
        """A target that is no path: `*`, or a URL, whose authority replaces Host (RFC 9112 section 3.2)."""
        context = self.context
        authority = b""
        if method == b"CONNECT":
            raise BadRequest(501, "CONNECT is not served here")
        if target == b"*":
            if method != b"OPTIONS":
                raise BadRequest(400, "the target * goes with OPTIONS only")
        else:
            authority, path = split_absolute(target)
            if not authority:
                raise BadRequest(400, "the target is a URL without a host")
            # For OPTIONS a URL without a path means the server as a whole (RFC 9112 section 3.2.4).
            target = b"*" if method == b"OPTIONS" and target.endswith(authority) else path
        fields = parse_request_fields(block, minor, context.request_names, context.limits.headers, authority)
        self._remember(b"\0", fields)
        return fields, target

    def _remember(self, block: bytes, fields: RequestFields) -> None:
        """Keep a block with what was decided, and with the head that it makes."""
        if fields.hostname != self.last_fields.hostname:
            self.last_routes = None  # other candidates
        self.last_block = block
        self.last_minor = fields.minor
        self.last_names = self.context.request_names
        self.last_fields = fields
        self.last_memory = None
        usual = fields.minor == 1 and not self.trusted and not fields.upgrade
        if usual and self.last_tail and fields.host == self.last_tail_host:  # another cookie, the same everything else
            self.last_fixed_id = False
            self.last_head = fields.forwarded + self.last_tail
            return
        forwarding: dict[bytes, bytes] = {}
        if self.trusted:
            for name, value in fields.forwarding:
                known = forwarding.get(name)
                forwarding[name] = value if known is None else known + b", " + value
        before = forwarding.get(b"x-forwarded-for", b"")
        peer = self.peer.encode()
        lines = [
            fields.forwarded,
            b"" if fields.host else b"Host: localhost\r\n",
            b"X-Forwarded-For: ",
            before + b", " + peer if before else peer or b"unknown",
            b"\r\nX-Forwarded-Proto: ",
            forwarding.get(b"x-forwarded-proto", b"http"),
            b"\r\nX-Forwarded-Host: ",
            forwarding.get(b"x-forwarded-host", fields.host),
            b"\r\nX-Forwarded-Port: ",
            forwarding.get(b"x-forwarded-port", self.listener.port),
            b"\r\nVia: 1.%d bgproxy\r\n" % fields.minor,
        ]
        lines.extend(
            b"%b: %b\r\n" % (name, forwarding[name]) for name in (b"forwarded", b"x-real-ip") if name in forwarding
        )
        if fields.upgrade:
            lines.append(b"Connection: Upgrade\r\nUpgrade: " + fields.upgrade + b"\r\n")
        self.last_fixed_id = self.trusted and bool(fields.request_id)
        lines.append(b"X-Request-ID: " + (fields.request_id if self.last_fixed_id else self.id_prefix))
        self.last_head = b"".join(lines)
        if usual:
            self.last_tail = self.last_head[len(fields.forwarded) :]
            self.last_tail_host = fields.host

    def request_id(self) -> bytes:
        """The id of the current request, as upstreams and error answers name it."""
        return self.last_fields.request_id if self.last_fixed_id else self.id_prefix + str(self.number).encode()

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
        if exchange is not None:
            if data:
                exchange.body(data)
            if done:
                exchange.body_done()
        if rest:
            self._ahead(rest)

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
        self, fields: RequestFields, rest: bytes, status: int, error: str, detail: str, pool: Pool | None = None
    ) -> None:
        """Answer a well-formed request with an error of our own, and go on if it has no body."""
        if pool is not None:
            pool.count_rejected(status)
        bodyless = fields.length <= 0 and not fields.chunked
        if bodyless and rest:
            self.buffer = rest
        self.refuse(status, error, detail, close=not bodyless)

    def refuse(self, status: int, error: str, detail: str, *, close: bool) -> None:
        """Answer with an error of our own."""
        context = self.context
        exchange = self.exchange
        if exchange is None and self.state != BUSY:  # not a request at all, so not one that an id was given to
            context.bad_requests += 1
            close = True
            request_id = self.id_prefix + str(self.number).encode()
        else:
            request_id = self.request_id()
        close = close or self.last_fields.close or context.stopping or self.eof
        as_json = wants_json(self.last_block)
        data = answer(status, error, detail, request_id, close=close, as_json=as_json, head_only=self.head_only)
        self.closed_because = detail
        self.write(data)
        if exchange is not None:
            exchange.status = status
            exchange.bytes_out += len(data)
            exchange.finish()
        elif context.access_log is not None:
            context.access_log.write_refused(self, status, detail, request_id)
        self.answered(keep=not close, linger=True)

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
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write_eof()

    def close(self) -> None:
        """End the connection, once what was written is sent. Idempotent."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()

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
        if not 0.0 < self.deadline <= now:
            if self.tunnel is not None:
                self.tunnel.restart()
            elif exchange is not None:
                exchange.cut()
            return
        self.deadline = 0.0
        if self.state == HEAD:
            self.refuse(408, "http_request_error", "the request's head did not come in time", close=True)
        elif self.state == BUSY and exchange is not None:
            if exchange.progress != BEGUN and not exchange.request_done:
                exchange.fail(408, "http_request_error", "the request's body did not come in time")
            else:
                exchange.abort("the client does not read its answer")
                self.abort()
        elif self.state == TUNNEL and self.tunnel is not None:
            self.closed_because = "idle"
            self.tunnel.end()
        else:
            if not self.closed_because:
                self.closed_because = "idle"
            self.abort() if self.write_paused else self.close()

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
