"""A client connection's reading of bytes, without the connection: the sans-I/O core driven as proxy/client.py drives it."""

from __future__ import annotations

from dataclasses import dataclass, field

import h11

from bgproxy.config.schema import Limits
from bgproxy.http1.chunked import ChunkedBody
from bgproxy.http1.errors import BadRequest, ProtocolError
from bgproxy.http1.names import NameTable
from bgproxy.http1.request import (
    MAX_LINE,
    RequestFields,
    parse_request_fields,
    parse_request_line,
    split_absolute,
    without_empty_lines,
)
from bgproxy.http1.response import parse_response_head

LIMITS = Limits()


@dataclass
class Forwarded:
    """One request as it would reach an upstream."""

    method: bytes
    target: bytes
    fields: RequestFields
    head: bytes
    body: bytes = b""
    complete: bool = False


@dataclass
class Reading:
    """What a connection's bytes came to."""

    requests: list[Forwarded] = field(default_factory=list)
    error: ProtocolError | None = None
    closed: bool = False  # the client said close: what follows is not read
    waiting: bool = False  # bytes of an unfinished request

    @property
    def verdict(self) -> str:
        if self.error is not None:
            return "reject"
        return "wait" if self.waiting else "accept"


def read_connection(data: bytes) -> Reading:
    """Read all that one client sends; every request is taken for answered as soon as it is complete."""
    reading = Reading()
    try:
        while data and not reading.closed:
            data = _read_one(reading, data)
    except ProtocolError as error:
        reading.error = error
    return reading


def _read_one(reading: Reading, data: bytes) -> bytes:
    data = without_empty_lines(data)
    if not data:
        return b""
    end = data.find(b"\r\n\r\n")
    line_end = data.find(b"\r\n")
    if end == -1:
        if data.count(b"\n") != data.count(b"\r\n"):
            raise BadRequest(400, "a bare LF in the head")
        if line_end > 0:
            parse_request_line(data[:line_end])
        reading.waiting = True
        return b""
    if line_end > MAX_LINE:
        raise BadRequest(414, "too long")
    if end > LIMITS.header_bytes:
        raise BadRequest(431, "too long")
    names = NameTable(frozenset({b"x-bgproxy-pool"}))
    method, target, minor = parse_request_line(data[:line_end])
    block = data[line_end + 2 : end + 2]
    authority = b""
    if method == b"CONNECT":
        raise BadRequest(501, "CONNECT")
    if target == b"*":
        if method != b"OPTIONS":
            raise BadRequest(400, "the target * goes with OPTIONS only")
    elif not target.startswith(b"/"):
        authority, target = split_absolute(target)
        if not authority:
            raise BadRequest(400, "no authority")
    fields = parse_request_fields(block, minor, names, LIMITS.headers, authority)
    host = b"" if fields.host else b"Host: localhost\r\n"
    head = b"%b %b HTTP/1.1\r\n%b%b\r\n" % (method, target, fields.forwarded, host)
    request = Forwarded(method, target, fields, head)
    reading.requests.append(request)
    rest = data[end + 4 :]
    if fields.chunked:
        chunks = ChunkedBody(names)
        request.body = chunks.feed(rest)
        request.complete = chunks.done
        rest = chunks.rest
    else:
        length = max(fields.length, 0)
        request.body = rest[:length]
        request.complete = len(rest) >= length
        rest = rest[length:]
    reading.waiting = not request.complete
    reading.closed = fields.close
    return rest if request.complete else b""


def reparse(request: Forwarded) -> tuple[h11.Request, bytes, list[tuple[bytes, bytes]]]:
    """What a strict server makes of a forwarded request: h11's head, the body's data, the trailers. Raises if it cannot."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(request.head + request.body)
    head = server.next_event()
    assert isinstance(head, h11.Request), head
    body = b""
    while True:
        event = server.next_event()
        if isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert request.complete
            assert server.trailing_data[0] == b""
            return head, body, list(event.headers)
        else:
            assert event is h11.NEED_DATA
            assert not request.complete, "a strict server waits for more than was forwarded"
            return head, body, []


def read_response(data: bytes) -> tuple[str, str]:
    """What an upstream's bytes, and then its end, come to for a plain GET: relay, truncated or bad; and why."""
    names = NameTable()
    try:
        while True:
            end = data.find(b"\r\n\r\n")
            if end == -1:
                return "bad", "the connection ended before it answered"
            response = parse_response_head(data[: end + 2], names)
            data = data[end + 4 :]
            if response.status == 101:
                return "bad", "it switched protocols unasked"
            if response.status >= 200:
                break
            data = data.removeprefix(b"\r\n")  # as a connection does behind a 1xx
        if response.bodyless:
            return "relay", ""
        if response.chunked:
            chunks = ChunkedBody(names)
            chunks.feed(data)
            return ("relay" if chunks.done else "truncated"), ""
    except ProtocolError as error:
        return "bad", error.detail
    return ("relay" if len(data) >= response.length else "truncated"), ""
