"""Responses: from an upstream's bytes to what the client is sent (RFC 9112 sections 4 and 6)."""

from __future__ import annotations

from typing import Final

from bgproxy.http1.bytesets import DIGITS, OWS, SECTION
from bgproxy.http1.errors import BadResponse
from bgproxy.http1.names import (
    CONNECTION,
    CONTENT_LENGTH,
    DATE,
    DROP,
    PLAIN,
    PROTECTED,
    REPEATING,
    TRANSFER_ENCODING,
    UPGRADE,
    NameTable,
)
from bgproxy.http1.request import parse_content_length

#: A response with more fields than this is rubbish; the limit of requests is the operator's, this one is ours.
MAX_FIELDS: Final = 1000


class ResponseHead:
    """What one response head says, and what of it is forwarded."""

    def __init__(self) -> None:
        self.status = 0
        self.minor = 1
        self.length = -1  # Content-Length; -1 without
        self.chunked = False
        self.close = False  # the upstream will close
        self.bodyless = False  # 1xx, 204, 304: no body whatever the fields say (RFC 9112 section 6.3)
        self.upgrade = b""
        self.dated = False
        self.forwarded = b""  # status line and fields that go on, each with its CRLF, without the empty line
        self.untouched = False  # `forwarded` is what came, to the byte


#: What a head of events says (in lower case), with a space or without.
_EVENTS: Final = b"\ncontent-type: text/event-stream"
_EVENTS_TOO: Final = b"\ncontent-type:text/event-stream"


def is_event_stream(response: ResponseHead) -> bool:
    """Whether the answer is one of events (WHATWG HTML section 9.2), which ends when somebody has enough of it."""
    head = response.forwarded.lower()
    return _EVENTS in head or _EVENTS_TOO in head


def parse_response_head(head: bytes, names: NameTable) -> ResponseHead:
    """Judge and edit a response head: its lines with their CRLFs, without the empty line. Raises `BadResponse`."""
    response = ResponseHead()
    if head.translate(None, SECTION):
        raise BadResponse("a control character in the header")
    lines = head.split(b"\r\n")
    lines.pop()
    count = len(lines)
    if head.count(b"\n") != count or head.count(b"\r") != count:
        raise BadResponse("a bare CR or LF in the header")
    if count > MAX_FIELDS:
        raise BadResponse("too many header fields")
    _parse_status_line(response, lines[0])

    known = names.known
    connection = b""
    codings = b""
    edited = response.minor == 0
    kept = [b"HTTP/1.1" + lines[0][8:] if edited else lines[0]]
    del lines[0]
    for line in lines:
        name, separator, value = line.partition(b":")
        kind = known.get(name, -1) if separator else -1
        if kind == -1:
            kind = names.learn(name) if separator else -1
            if kind == -1:
                raise BadResponse("a header line that is none")
        if kind in (PLAIN, REPEATING):
            kept.append(line)
        elif kind == DATE:
            response.dated = True
            kept.append(line)
        elif kind == CONTENT_LENGTH:
            length = parse_content_length(value.strip(OWS))
            if length == -1 or response.length != -1:
                raise BadResponse("Content-Length is not one number")
            response.length = length
            if response.bodyless and response.status != 304:
                edited = True  # must not be sent in 1xx and 204 (RFC 9110 section 8.6)
            else:
                kept.append(line)
        elif kind == CONNECTION:
            connection = connection + b"," + value if connection else value
            edited = True
        elif kind == TRANSFER_ENCODING:
            codings = codings + b"," + value.strip(OWS)  # never empty then: an empty one is rubbish, not absent
            edited = True
        elif kind == UPGRADE:
            response.upgrade = value.strip(OWS)
            edited = True
        elif kind == DROP:
            edited = True
        else:
            kept.append(line)

    response.close = response.minor == 0
    if connection:
        kept = _apply_connection(response, connection, kept)
    if codings:
        if codings.lower() != b",chunked":
            raise BadResponse("a transfer coding that is not chunked")
        if response.length != -1:
            raise BadResponse("both Transfer-Encoding and Content-Length")
        if response.minor == 0:
            raise BadResponse("Transfer-Encoding in an HTTP/1.0 response")
        if response.bodyless and response.status != 304:
            raise BadResponse("Transfer-Encoding in a response that has no body")
        response.chunked = True
    response.untouched = not edited
    if edited:
        kept.append(b"")
        response.forwarded = b"\r\n".join(kept)
    else:
        response.forwarded = head
    return response


def _parse_status_line(response: ResponseHead, line: bytes) -> None:
    """`HTTP/1.x SP 3DIGIT SP [reason]` (RFC 9112 section 4); the last space may be missing, as everywhere."""
    if not line.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")):
        raise BadResponse("not an HTTP/1 status line")
    code = line[9:12]
    if len(code) != 3 or code.translate(None, DIGITS) or line[12:13] not in (b"", b" "):
        raise BadResponse("a status that is not three digits")
    response.minor = 1 if line[7:8] == b"1" else 0
    response.status = int(code)
    if not 100 <= response.status <= 599:
        raise BadResponse(f"a status of {response.status}")
    response.bodyless = response.status < 200 or response.status in (204, 304)


def _apply_connection(response: ResponseHead, connection: bytes, kept: list[bytes]) -> list[bytes]:
    """Obey Connection, and take out what it nominates (RFC 9110 section 7.6.1)."""
    nominated: set[bytes] = set()
    options = [option.strip(OWS) for option in connection.lower().split(b",")]
    for name in options:
        if name and name not in (b"close", b"keep-alive", b"upgrade") and name not in PROTECTED:
            nominated.add(name)
    if b"close" in options:
        response.close = True
    elif response.minor == 0:
        response.close = b"keep-alive" not in options
    if nominated:
        kept = kept[:1] + [line for line in kept[1:] if line.partition(b":")[0].lower() not in nominated]
    return kept
