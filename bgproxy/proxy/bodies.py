"""The bodies of requests: where they end, what may be too much of them, and what comes behind them.

Functions of a client's connection (`ClientState` holds how much of a body is to come): they are called for requests with
a body, and for what a client sends ahead of its turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bgproxy.http1.errors import ProtocolError
from bgproxy.proxy.client_state import THROTTLED
from bgproxy.proxy.exchange import BEGUN
from bgproxy.switchboard.layout import OVER_TINY_CHUNKS

if TYPE_CHECKING:
    from bgproxy.http1.chunked import ChunkedBody
    from bgproxy.proxy.client import ClientConnection

#: Bytes that may wait of requests sent ahead before reading stops.
AHEAD: Final = 64 * 1024

#: The time within which tiny chunks are counted, in seconds.
_SECOND: Final = 1.0


def take(client: ClientConnection, data: bytes) -> None:
    """Bytes while a body is to come: of it, and perhaps of what follows it."""
    exchange = client.exchange
    context = client.context
    chunks = client.chunks
    rest = b""
    if chunks is None:
        if len(data) > client.body_left:
            rest = data[client.body_left :]
            data = data[: client.body_left]
        client.body_left -= len(data)
        done = not client.body_left
    else:
        try:
            data = chunks.feed(data)
        except ProtocolError as error:
            _broken(client, error)
            return
        done = chunks.done
        limit = context.limits.body_bytes
        if limit is not None and chunks.received > limit:
            _broken(client, ProtocolError(413, f"a body of more than {limit} bytes"))
            return
        if done:
            rest = chunks.rest
            client.chunks = None
    client.deadline = 0.0 if done else context.now + context.timeouts.stream_idle
    if chunks is not None and chunks.tiny > context.limits.tiny_chunks and not done:
        _throttle(client, chunks)
    if exchange is not None:
        if data:
            exchange.body(data)
        if done:
            exchange.body_done()
    if rest:
        ahead(client, rest)


def ahead(client: ClientConnection, data: bytes) -> None:
    """Bytes of a later request: they wait for their turn."""
    client.buffer = client.buffer + data if client.buffer else data
    if len(client.buffer) > AHEAD:
        client.pause()


def _throttle(client: ClientConnection, chunks: ChunkedBody) -> None:
    """It has brought more tiny chunks than it may in a second: within that second nothing more is read."""
    context = client.context
    left = client.chunks_since + _SECOND - context.now
    if left > 0.0:
        context.hits[OVER_TINY_CHUNKS] += 1
        client.pause(THROTTLED)
        client.deadline = context.now + left
    else:
        client.chunks_since = context.now
        chunks.tiny = 0


def _broken(client: ClientConnection, error: ProtocolError) -> None:
    """The body turned out malformed or too long in its middle."""
    client.chunks = None
    client.body_left = 0
    client.context.bad_requests += 1
    exchange = client.exchange
    if exchange is None or exchange.progress == BEGUN:
        client.closed_because = error.detail
        if exchange is not None:
            exchange.abort(error.detail)
        client.close()
    else:
        exchange.fail(error.status, "http_request_error", error.detail)
