"""A connection to an upstream: it carries one request at a time, and is kept for the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from bgproxy.http1.chunked import LAST_CHUNK, ChunkedBody, chunk
from bgproxy.http1.errors import BadResponse, ProtocolError
from bgproxy.http1.response import ResponseHead, parse_response_head
from bgproxy.model.connection import SERVER_STEPS, illegal
from bgproxy.proxy.client_state import no_write
from bgproxy.proxy.exchange import BEGUN, INTERIM, NOTHING, Exchange
from bgproxy.proxy.tunnel import Tunnel

if TYPE_CHECKING:
    from bgproxy.proxy.context import Context
    from bgproxy.proxy.runtime import Upstream

# model.connection.ServerState and ServerEvent, as constants (a test holds them equal).
CONNECTING: Final = 0
IDLE: Final = 1
WAITING: Final = 2
ANSWERING: Final = 3
TUNNEL: Final = 4
CLOSED: Final = 5
CONNECTED: Final = 0
CLAIMED: Final = 1
HEAD: Final = 2
ANSWERED: Final = 3
UPGRADED: Final = 4
LOST: Final = 5

#: Interim responses before the final one; more are a mistake of the upstream's.
MAX_INTERIM: Final = 32
#: Longest response head.
MAX_HEAD: Final = 64 * 1024

_NO_RESPONSE: Final = ResponseHead()
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
_CLOSE: Final = b"Connection: close\r\n"
_CLOSE_END: Final = _CLOSE + b"\r\n"
_KEEP: Final = b"Connection: keep-alive\r\n"


class UpstreamConnection:
    """The protocol of one connection to an upstream (asyncio.Protocol by shape)."""

    tunnel: Tunnel | None = None
    body_left: int = 0
    until_close: bool = False
    chunks: ChunkedBody | None = None
    keep: bool = True  # may be used again after this answer
    ended: bool = False  # it has said that nothing more comes: over TLS, an answer that is cut short is told by that
    rechunk: bool = False  # a body that ends with the connection is chunked for the client
    client_keep: bool = True
    gap: bool = False  # an interim response has just ended
    # The memory of the last head: an upstream's repeats within a second.

    def __init__(self, context: Context, upstream: Upstream) -> None:
        self.context = context
        self.upstream = upstream
        self.transport: Any = None
        self.write: Callable[[bytes], None] = no_write
        self.last_response = _NO_RESPONSE
        self.state: int = CONNECTING
        self.exchange: Exchange | None = None
        self.reused = False
        self.buffer = b""
        self.interims = 0
        self.deadline = 0.0
        self.paused = False
        self.last_head = b""  # with its empty line
        self.last_size = 0  # of an answer with that head and all of its body; 0: not to be taken as a whole
        self.last_out = b""  # the head that goes to most clients

    def __repr__(self) -> str:
        return f"<UpstreamConnection {self.upstream.id} state={self.state} exchange={self.exchange!r}>"

    def step(self, event: int) -> None:
        """Go to the next state by the table; an illegal event raises and changes nothing."""
        after = SERVER_STEPS[event * 6 + self.state]
        if after < 0:
            raise illegal("upstream connection", self.state, event)
        self.state = after

    # --- the life of the connection ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The upstream has accepted."""
        self.transport = transport
        self.write = self.transport.write
        self.step(CONNECTED)
        self.context.servers.add(self)
        self.upstream.connections += 1
        self.upstream.pool.dirty = True

    def usable(self) -> bool:
        """Whether a request may be given to it."""
        return self.state == IDLE and not self.transport.is_closing()

    def start(self, exchange: Exchange, reused: bool) -> None:
        """Take a request."""
        self.step(CLAIMED)
        self.exchange = exchange
        self.reused = reused
        self.interims = 0
        context = self.context
        self.deadline = context.now + context.timeouts.response if exchange.request_done else 0.0
        if not exchange.plain:
            exchange.attached(self, reused=reused)
            return
        exchange.server = self
        self.write(exchange.head)
        if exchange.client.write_paused:
            self.pause()

    def send(self, data: bytes) -> None:
        """More of the request's body."""
        self.write(data)

    def sent_all(self) -> None:
        """The request is complete: from now on the answer is waited for."""
        if self.state == WAITING and not self.paused:
            self.deadline = self.context.now + self.context.timeouts.response

    def release(self) -> None:
        """Keep it for the next request, if there may be one."""
        upstream = self.upstream
        context = self.context
        if not upstream.keeps or upstream.pool.draining_since >= 0.0 or context.stopping:
            self.close()
            return
        self.deadline = context.now + context.timeouts.upstream_idle
        upstream.idle.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self.context.servers.discard(self)
        self.deadline = 0.0
        state = self.state
        self.step(LOST)
        upstream = self.upstream
        upstream.connections -= 1
        upstream.pool.dirty = True
        if state == IDLE and self in upstream.idle:
            upstream.idle.remove(self)
        tunnel = self.tunnel
        exchange = self.exchange
        self.exchange = None
        self.tunnel = None
        if tunnel is not None:
            tunnel.end()
        elif exchange is not None:
            if state == ANSWERING and self.until_close and exc is None and (self.ended or not upstream.secure):
                self._end_of_body(exchange)
            else:
                reason = "connection closed" if exc is None else str(exc).lower() or "connection reset"
                error = "connection_terminated"
                if exc is not None and upstream.secure:
                    from bgproxy.proxy.upstream_tls import why_lost  # noqa: PLC0415 - it imports ssl

                    text, word = why_lost(exc, upstream)
                    reason = text or reason
                    error = word or error
                reason += " within its answer" if state == ANSWERING else " before it answered"
                exchange.server_lost(reused=self.reused, reason=reason, error=error)
        self.transport = None
        self.write = no_write

    def eof_received(self) -> bool:
        """The upstream sends no more; a tunnel may still be written to."""
        self.ended = True
        if self.state == TUNNEL and self.tunnel is not None:
            return self.tunnel.server_eof() and not self.upstream.secure  # TLS ends both directions
        return False

    def close(self) -> None:
        """End the connection, once what was written is sent; there is a deadline for that, too. Idempotent."""
        if self.transport is not None and not self.transport.is_closing():
            self.deadline = self.context.give_up
            self.transport.close()

    def due(self) -> None:
        """A deadline has passed."""
        self.deadline = 0.0
        exchange = self.exchange
        if exchange is None:
            if self.transport is not None and self.transport.is_closing():
                self.transport.abort()  # it does not take what was written
            else:
                self.close()
        elif self.state == WAITING:
            limit = self.context.timeouts.response
            self.context.report(self.upstream, f"no answer within {limit:g}s")
            exchange.fail(504, "http_response_timeout", f"upstream {self.upstream.id}: no answer within {limit:g}s")
        elif exchange.timed:
            exchange.broken_off("its answer stalled")
        else:  # no event for a long time is no failed answer
            self.context.report(self.upstream, "its answer stalled")
            exchange.abort("its answer stalled")

    # --- flow control -----------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The upstream does not read as fast as the client sends."""
        if self.exchange is not None:
            self.exchange.client.server_full()
        elif self.tunnel is not None:
            self.tunnel.client.server_full()

    def resume_writing(self) -> None:
        """The upstream has read on."""
        if self.exchange is not None:
            self.exchange.client.server_ready()
        elif self.tunnel is not None:
            self.tunnel.client.server_ready()

    def pause(self) -> None:
        """Stop reading: the client does not read as fast. Its own time-out runs meanwhile, not the upstream's."""
        if not self.paused and self.transport is not None and not self.transport.is_closing():
            self.paused = True
            self.deadline = 0.0
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.paused:
            self.paused = False
            if self.transport is not None and not self.transport.is_closing():
                if self.state == ANSWERING:
                    self.deadline = self.context.now + self.context.timeouts.stream_idle
                elif self.state == WAITING and self.exchange is not None and self.exchange.request_done:
                    self.deadline = self.context.now + self.context.timeouts.response
                self.transport.resume_reading()

    # --- the answer -------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes from the upstream."""
        state = self.state
        exchange = self.exchange
        if exchange is None:
            if self.tunnel is not None:
                self.tunnel.server_data(data)
            else:
                self.close()  # nobody asked for anything: whatever it is, it must not answer the next request
            return
        if len(data) == self.last_size and exchange.plain and self._whole(data, exchange):
            return
        try:
            if state == WAITING:
                self._head(data, exchange)
            elif state == ANSWERING:
                self._body(data, exchange)
        except ProtocolError as error:
            self.close()
            exchange.server_lost(reused=False, reason=error.detail, error="http_protocol_error")

    def _whole(self, data: bytes, exchange: Exchange) -> bool:
        """Send on an answer that came in one piece, under the same head as the last one; False if it is none."""
        client = exchange.client
        if (
            self.state != WAITING
            or not data.startswith(self.last_head)
            or self.buffer
            or client.eof
            or self.paused
            or self.context.stopping
        ):
            return False
        self.state = IDLE  # what HEAD and ANSWERED make of WAITING
        response = self.last_response
        keep = not exchange.fields.close
        if not keep:
            out = b"".join([response.forwarded, _CLOSE_END, data[len(self.last_head) :]])
        elif response.untouched:
            out = data
        else:
            out = self.last_out + data[len(self.last_head) :]
        client.write(out)
        exchange.status = response.status
        exchange.bytes_out += len(out)
        self.exchange = None
        exchange.finish()
        self.release()
        client.answered(keep=keep)
        return True

    def _head(self, data: bytes, exchange: Exchange) -> None:
        if self.buffer:
            data = self.buffer + data
            self.buffer = b""
        while True:
            if self.gap and self.interims and data.startswith(b"\r\n"):
                self.gap = False  # some servers end a 100 with one empty line too many
                data = data[2:]
            end = data.find(b"\r\n\r\n")
            if end == -1:
                if len(data) > MAX_HEAD:
                    raise BadResponse(f"a response head of more than {MAX_HEAD} bytes")
                if data.count(b"\n") != data.count(b"\r\n"):
                    raise BadResponse("a bare LF in the header")  # now, since the end of such a head may never come
                self.buffer = data
                if exchange.progress == NOTHING:
                    exchange.progress = INTERIM  # something has come: no retry from here on
                return
            head = data[: end + 4]
            if head == self.last_head:
                response = self.last_response
            else:
                if end > MAX_HEAD:
                    raise BadResponse(f"a response head of more than {MAX_HEAD} bytes")
                response = parse_response_head(data[: end + 2], self.context.response_names)
                self._remember(head, response)
            if response.status >= 200:
                self._answer(data, end + 4, response, exchange)
                return
            if response.status == 101:
                self._upgrade(data[end + 4 :], response, exchange)
                return
            self.interims += 1
            self.gap = True
            if self.interims > MAX_INTERIM:
                raise BadResponse("too many interim responses")
            exchange.progress = INTERIM
            if exchange.fields.minor:  # a 1.0 client knows none (RFC 9110 section 15.2)
                exchange.client.write(response.forwarded + b"\r\n")
            data = data[end + 4 :]
            if not data:
                return

    def _remember(self, head: bytes, response: ResponseHead) -> None:
        """Keep what was decided about a head, and whether an answer with it can be taken as a whole."""
        self.last_head = head
        self.last_response = response
        lines = response.forwarded
        if response.chunked and not response.bodyless:
            lines += _CHUNKED
        self.last_out = lines + b"\r\n"
        self.last_size = 0
        if response.dated and not response.close and response.status >= 200:
            if response.bodyless:
                self.last_size = len(head)
            elif response.length >= 0:
                self.last_size = len(head) + response.length

    def _answer(self, data: bytes, start: int, response: ResponseHead, exchange: Exchange) -> None:
        """The final head: decide the framing, and send on what has come."""
        context = self.context
        client = exchange.client
        fields = exchange.fields
        self.step(HEAD)
        exchange.progress = BEGUN
        exchange.status = response.status
        self.chunks = None
        self.until_close = False
        self.rechunk = False
        self.keep = not response.close
        self.client_keep = not (
            fields.close or context.stopping or (client.eof and not client.buffer) or not exchange.request_done
        )
        got = len(data) - start
        whole = False
        if response.bodyless or exchange.method == b"HEAD":
            self.body_left = 0
            whole = True
            if got:
                self.keep = False  # bytes that nobody asked for: this connection is not to be trusted
        elif response.chunked:
            self.chunks = ChunkedBody(context.response_names, data_only=not fields.minor)
            if not fields.minor:
                self.client_keep = False
        elif response.length >= 0:
            self.body_left = response.length
            if got > response.length:
                self.keep = False
            whole = got >= response.length
        else:
            self.until_close = True
            self.keep = False
            if fields.minor:
                self.rechunk = True
            else:
                self.client_keep = False

        capture = exchange.capture
        if capture is not None:
            capture.answered(response, framed=self.chunks is not None and not self.chunks.data_only)

        # The plain case, one write: nothing to add, a client that stays, a body of known length or none.
        plain = response.dated and self.client_keep and fields.minor == 1 and not self.until_close
        if exchange.extra or exchange.hsts:
            plain = False
        if whole:
            body_end = start + self.body_left
            self.body_left = 0
            if capture is not None:
                capture.came(data[start:body_end])
            if plain and response.untouched and body_end == len(data) and len(self.last_out) == start:
                out = data
            else:
                out = (self.last_out if plain else self._head_out(response, exchange)) + data[start:body_end]
            exchange.bytes_out += len(out)
            client.write(out)
            self._end_of_body(exchange)
            return
        out = self.last_out if plain else self._head_out(response, exchange)
        if self.until_close or (self.chunks is not None and not got):
            exchange.streams(response)
        if got:
            # The head waits for what came with it: one write.
            self._body_out(out, data[start:], exchange)
        else:
            exchange.bytes_out += len(out)
            client.write(out)
        if self.exchange is exchange:
            if self.chunks is not None:
                exchange.streams(response)
            if not fields.minor and (self.until_close or self.chunks is not None):
                client.end_by_reset(True)
            if not self.paused:
                self.deadline = context.now + context.timeouts.stream_idle

    def _head_out(self, response: ResponseHead, exchange: Exchange) -> bytes:
        """The head for the client with everything that this exchange adds to it."""
        lines = [response.forwarded]
        if not response.dated:
            lines.append(self.context.date_line)
        lines.append(_extra(response, exchange))
        if exchange.fields.minor:
            if self.rechunk or (response.chunked and not response.bodyless):
                lines.append(_CHUNKED)
            if not self.client_keep:
                lines.append(_CLOSE)
        else:
            lines.append(_KEEP if self.client_keep else _CLOSE)
        lines.append(b"\r\n")
        return b"".join(lines)

    def _body(self, data: bytes, exchange: Exchange) -> None:
        if not self.paused:
            self.deadline = self.context.now + self.context.timeouts.stream_idle
        chunks = self.chunks
        if chunks is None and not self.until_close:  # the way of large answers, without a detour
            left = self.body_left - len(data)
            if left > 0:
                self.body_left = left
                exchange.bytes_out += len(data)
                if exchange.capture is not None:
                    exchange.capture.came(data)
                exchange.client.write(data)
                return
        self._body_out(b"", data, exchange)

    def _body_out(self, head: bytes, data: bytes, exchange: Exchange) -> None:
        """Send on bytes of the body, behind a head that may still be unsent."""
        chunks = self.chunks
        done = False
        if chunks is not None:
            try:
                data = chunks.feed(data)
            except ProtocolError:
                if head:
                    exchange.progress = INTERIM  # nothing of it has gone to the client: 502, not an answer cut short
                raise
            done = chunks.done
            if done and chunks.rest:
                self.keep = False
            if exchange.capture is not None:
                exchange.capture.came(data)
        elif self.until_close:
            if exchange.capture is not None:
                exchange.capture.came(data)
            if self.rechunk:
                data = chunk(data)
        else:
            if len(data) > self.body_left:
                data = data[: self.body_left]
                self.keep = False
            self.body_left -= len(data)
            done = not self.body_left
            if exchange.capture is not None:
                exchange.capture.came(data)
        out = head + data if head else data
        if out:
            exchange.bytes_out += len(out)
            exchange.client.write(out)
        if done:
            self._end_of_body(exchange)

    def _end_of_body(self, exchange: Exchange) -> None:
        """The answer is complete."""
        if exchange.capture is not None:
            exchange.capture.ended()
        client = exchange.client
        request_done = exchange.request_done
        self.exchange = None
        self.chunks = None
        self.deadline = 0.0
        if self.rechunk:
            client.write(LAST_CHUNK)
        if not self.client_keep and client.resets:
            client.end_by_reset(False)
        # `keep` is asked once more: a worker that began to stop, or a client that half-closed, ends with its answer.
        keep = self.client_keep and request_done
        if self.state == ANSWERING:
            if self.paused:
                self.resume()
            if self.keep and request_done:
                self.step(ANSWERED)
                exchange.finish()
                self.release()
            else:
                self.close()
                exchange.finish()
        else:
            exchange.finish()
        client.answered(keep=keep, linger=not request_done)

    # --- upgrades ---------------------------------------------------------------------------------------------------

    def _upgrade(self, rest: bytes, response: ResponseHead, exchange: Exchange) -> None:
        """101: a tunnel from here on, if the client asked for it (RFC 9110 section 7.8)."""
        if not exchange.fields.upgrade:
            raise BadResponse("it switched protocols unasked")
        self.step(UPGRADED)
        self.deadline = 0.0
        exchange.progress = BEGUN
        exchange.status = 101
        exchange.upgraded()
        upgrade = response.upgrade or exchange.fields.upgrade
        extra = _extra(response, exchange)
        head = b"".join([response.forwarded, extra, b"Connection: Upgrade\r\nUpgrade: ", upgrade, b"\r\n\r\n"])
        exchange.client.write(head)
        self.exchange = None
        self.tunnel = Tunnel(exchange, exchange.client, self, upgrade)
        self.tunnel.begin(rest)


def _extra(response: ResponseHead, exchange: Exchange) -> bytes:
    """The lines that an answer's head gets of us, beside those of its framing."""
    hsts = exchange.hsts
    if hsts and b"\nstrict-transport-security:" in response.forwarded.lower():
        return exchange.extra  # what the upstream says holds: a second one is not looked at (RFC 6797 section 8.1)
    return hsts + exchange.extra
