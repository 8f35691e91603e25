"""What is answered here and not by an upstream: requests that are refused, misplaced or malformed, and failed ones.

Functions of a client's connection; the bytes of the answers are made by `answers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bgproxy.proxy import answers
from bgproxy.proxy.client_state import BUSY, CLOSED
from bgproxy.switchboard.layout import OVER_BODY, OVER_HEAD

if TYPE_CHECKING:
    from bgproxy.proxy.client import ClientConnection
    from bgproxy.proxy.runtime import Pool


def reject(
    client: ClientConnection,
    rest: bytes,
    status: int,
    error: str,
    detail: str,
    pool: Pool | None = None,
    extra: bytes = b"",
) -> None:
    """Answer a well-formed request with an error of our own, and go on if it has no body."""
    if pool is not None:
        pool.count_rejected(status)
    bodyless = not client.fields.bodied
    if bodyless and rest:
        client.buffer = rest
    refuse(client, status, error, detail, close=not bodyless, extra=extra)


def refuse(
    client: ClientConnection, status: int, error: str, detail: str, *, close: bool, extra: bytes = b"", public: str = ""
) -> None:
    """Answer with an error of our own; `extra` are further lines of its head, `public` what the client reads for `detail`."""
    context = client.context
    exchange = client.exchange
    if exchange is None and client.state != BUSY:  # not a request at all, so not one that an id was given to
        context.bad_requests += 1
        close = True
        request_id = client.id_prefix + str(client.number).encode()
    else:
        request_id = client.request_id()
    if status == 413:
        context.hits[OVER_BODY] += 1
    elif status in (414, 431):
        context.hits[OVER_HEAD] += 1
    close = close or client.fields.close or context.stopping or (client.eof and not client.buffer)
    as_json = answers.wants_json(client.rest)
    extra = client.listener.hsts + extra
    data = answers.answer(
        status,
        error,
        public or detail,
        request_id,
        close=close,
        as_json=as_json,
        head_only=client.head_only,
        extra=extra,
    )
    client.closed_because = detail
    client.write(data)
    if exchange is not None:
        exchange.status = status
        exchange.bytes_out += len(data)
        exchange.finish()
    elif context.access_log is not None:
        context.access_log.write_refused(client, status, detail, request_id)
    client.answered(keep=not close, linger=True)


def answer_options(client: ClientConnection, why: str) -> None:
    """An OPTIONS that goes no further: answered here, and the connection ends, as it may have a body."""
    request_id = client.id_prefix + str(client.number).encode()
    client.closed_because = why
    client.write(answers.answer_options(request_id, client.listener.hsts))
    if client.context.access_log is not None:
        client.context.access_log.write_refused(client, 200, why, request_id)
    client.answered(keep=False, linger=True)


def turn_away(client: ClientConnection, detail: str) -> None:
    """One connection too many: say so, and end it."""
    client.closed_because = detail
    client.write(answers.answer(503, "connection_limit_reached", detail, client.id_prefix, close=True))
    client.transport.close()
    client.state = CLOSED


def turn_to(client: ClientConnection, rest: bytes) -> None:
    """Answer a request that is for another place: to https (RFC 9110 section 15.4.9), or another connection (15.5.20)."""
    host = client.fields.hostname
    if not client.listener.redirect:
        detail = "the certificate of this connection is not one for this host"
        reject(client, rest, 421, "http_request_denied", detail)
    elif not host or client.target == b"*":
        lacking = "path" if host else "Host"
        reject(client, rest, 400, "http_request_error", f"a request without a {lacking} cannot be sent to https")
    else:
        where = b"".join([b"Location: https://", host, client.listener.redirect_port, client.target, b"\r\n"])
        reject(client, rest, 308, "", "this host is served by https", extra=where)
