"""The answers that bgproxy makes itself: a status, a short body, and a Proxy-Status that names the reason (RFC 9209)."""

from __future__ import annotations

import json
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

#: Seconds after which trying again makes sense, said with every 503.
RETRY_AFTER: Final = 1

_CLOSE: Final = b"Connection: close\r\n"
#: What may be asked of a service, in general; what of it an upstream serves is its own business.
_ALLOW: Final = b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"


def reason_phrase(status: int) -> str:
    """The standard phrase of a status (RFC 9110 section 15)."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def answer(
    status: int,
    error: str,
    detail: str,
    request_id: bytes,
    *,
    close: bool,
    as_json: bool = False,
    head_only: bool = False,
    retry_after: int = 0,
    extra: bytes = b"",
) -> bytes:
    """A whole response.

    `error` is a Proxy-Status error type (RFC 9209 section 2.3), `detail` one sentence for people. `as_json` gives
    problem+json (RFC 9457), else plain text. 503 always carries Retry-After. `extra` are further lines of the head, each
    with its CRLF. What is no error, a redirection, has none to name: `error` is "".
    """
    phrase = reason_phrase(status)
    if as_json:
        problem = {"type": "about:blank", "title": phrase, "status": status, "detail": detail}
        problem["instance"] = "urn:bgproxy:request:" + request_id.decode("latin-1")
        body = json.dumps(problem).encode() + b"\n"
        kind = b"application/problem+json"
    else:
        body = f"{status} {phrase}: {detail}\n".encode()
        kind = b"text/plain; charset=utf-8"
    if status == HTTPStatus.SERVICE_UNAVAILABLE and not retry_after:
        retry_after = RETRY_AFTER
    head = b"HTTP/1.1 %d %b\r\nDate: %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nCache-Control: no-store\r\n" % (
        status,
        phrase.encode(),
        formatdate(usegmt=True).encode(),
        kind,
        len(body),
    )
    head += b"X-Request-ID: %b\r\n" % request_id + extra
    if error:
        head += b"Proxy-Status: bgproxy; error=%b\r\n" % error.encode()
    if retry_after:
        head += b"Retry-After: %d\r\n" % retry_after
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        head += _ALLOW  # RFC 9110 section 15.5.6
    if close:
        head += _CLOSE
    return head + b"\r\n" if head_only else head + b"\r\n" + body


def answer_options(request_id: bytes, extra: bytes = b"") -> bytes:
    """The answer to an OPTIONS that ends here (RFC 9110 sections 7.6.2 and 9.3.7); the connection ends with it."""
    return b"".join(
        [
            b"HTTP/1.1 200 OK\r\nDate: %b\r\nContent-Length: 0\r\n" % formatdate(usegmt=True).encode(),
            _ALLOW,
            b"X-Request-ID: %b\r\n" % request_id,
            extra,
            _CLOSE,
            b"\r\n",
        ]
    )


def wants_json(block: bytes) -> bool:
    """Whether a header block's Accept asks for JSON; looked at only when there is an error to tell."""
    for line in block.lower().split(b"\r\n"):
        if line.startswith(b"accept:"):
            return b"json" in line
    return False
