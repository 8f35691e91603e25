"""What a client has time for, and what happens when it has let us wait for too long.

The sweep asks once in a while (`Context.sweep`); who is slow without ever being silent is found by `slow`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bgproxy.proxy.client_state import BUSY, HEAD, IDLE, SERVER_FULL, THROTTLED, TUNNEL
from bgproxy.proxy.exchange import BEGUN
from bgproxy.proxy.refusals import refuse
from bgproxy.switchboard.layout import (
    SLOW_BODY,
    SLOW_READER,
    TIMEOUT_BODY,
    TIMEOUT_HEADER,
    TIMEOUT_IDLE,
    TIMEOUT_TUNNEL,
    TIMEOUT_WRITE,
)

if TYPE_CHECKING:
    from bgproxy.proxy.client import ClientConnection


def is_due(client: ClientConnection, now: float) -> bool:
    """Whether a time-out or a drain deadline has passed."""
    if 0.0 < client.deadline <= now:
        return True
    exchange = client.exchange
    return exchange is not None and exchange.pool.draining_since >= 0.0 and 0.0 < exchange.deadline() <= now


def due(client: ClientConnection, now: float) -> None:
    """Do what the passed deadline asks for."""
    exchange = client.exchange
    state = client.state
    if not 0.0 < client.deadline <= now:
        if client.tunnel is not None:
            client.tunnel.restart()
        elif exchange is not None:
            exchange.cut()
        return
    client.deadline = 0.0
    if client.is_ending():
        expire(client, TIMEOUT_WRITE)
    elif client.paused & THROTTLED:
        if client.chunks is not None:
            client.chunks.tiny = 0
        client.chunks_since = now
        client.deadline = now + client.context.timeouts.stream_idle
        client.resume(THROTTLED)
    elif state == HEAD:
        expire(client, TIMEOUT_HEADER)
    elif state == BUSY and exchange is not None and client.paused & SERVER_FULL and not client.write_paused:
        exchange.body_stuck()
    elif state == BUSY:
        waits = exchange is not None and not exchange.request_done and not client.write_paused
        expire(client, TIMEOUT_BODY if waits else TIMEOUT_WRITE)
    elif state == TUNNEL and client.tunnel is not None and client.tunnel.is_restarting():
        client.tunnel.end()  # it was told to end, and has had its time for that
    elif state == TUNNEL:
        expire(client, TIMEOUT_WRITE if client.write_paused else TIMEOUT_TUNNEL)
    elif state == IDLE:
        expire(client, TIMEOUT_IDLE)
    elif client.write_paused:  # it lingers, and what it was told is unread
        client.abort()
    else:
        client.close()


def expire(client: ClientConnection, why: int) -> None:
    """The client has let us wait for too long: end what we waited for. `why` is one of switchboard.layout's, and counted."""
    client.context.hits[why] += 1
    exchange = client.exchange
    unread = why in (TIMEOUT_WRITE, SLOW_READER)
    if not client.closed_because:
        client.closed_because = "the client does not read its answer" if unread else "idle"
    if client.is_ending() or (exchange is None and (unread or client.write_paused)):
        client.abort()
    elif client.state == HEAD:
        refuse(client, 408, "http_request_error", "the request's head did not come in time", close=True)
    elif client.state == BUSY and exchange is not None:
        if unread or exchange.progress == BEGUN:
            exchange.abort("the client does not read its answer" if unread else "the body did not come in time")
            client.abort()
        else:
            detail = "came too slowly" if why == SLOW_BODY else "did not come in time"
            exchange.fail(408, "http_request_error", f"the request's body {detail}")
    elif client.state == TUNNEL and client.tunnel is not None:
        client.tunnel.end()
        if unread:
            client.abort()
    else:
        client.close()


def time_left(client: ClientConnection, now: float) -> float:
    """What share of its time a client has left that waits for nothing but a request: 1.0 is all of it."""
    timeouts = client.context.timeouts
    limit = timeouts.header if not client.number or client.state == HEAD else timeouts.client_idle
    return (client.deadline - now) / limit
