"""HTTP/1.1 messages by the letter of RFC 9112, for tests: one way to write each thing, and everything else is refused.

Independent of bgproxy's own parser and nothing like it: expressions taken from the grammar, over a whole message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.1\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9])( [\t \x21-\x7e\x80-\xff]*)?\r\n")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):([\t \x21-\x7e\x80-\xff]*)\r\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n")
#: With its extensions (RFC 9112 section 7.1.1), 256 bytes at the most. A token ends where no more of it comes.
_OWS = rb"[\t ]*"
_QUOTED = rb'"(?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[^\x00-\x08\x0a-\x1f\x7f])*"'
_EXTENSION = _OWS + rb";" + _OWS + _TOKEN + rb"(?:" + _OWS + rb"=" + _OWS + rb"(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?"
_EXTENDED_CHUNK = re.compile(rb"(?=[^\r]{0,256}\r)([0-9A-Fa-f]{1,16})(?:(?=;)(?:" + _EXTENSION + rb")+)?\r\n")
_BEGUN_CHUNK = re.compile(rb"[0-9A-Fa-f]{0,16}\r?\Z")
_NUMBER = re.compile(rb"[0-9]{1,18}")

Fields = list[tuple[bytes, bytes]]


class NotStrictError(Exception):
    """It is not what the grammar allows."""


class IncompleteError(Exception):
    """It may become a message yet."""


@dataclass
class Message:
    """A request or a response."""

    start: tuple[bytes, ...]  # method and target; or the status
    fields: Fields  # as spelt, without the white space around values
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    end: int = 0  # where it ends in the data
    closed: bool = False  # its body ended with the connection

    def all(self, name: bytes) -> list[bytes]:
        """The values of a field, given in lower case."""
        return [value for known, value in self.fields if known.lower() == name]


def read_request(data: bytes, at: int = 0) -> Message:
    """The request at a place of the data. Raises `NotStrictError`, `IncompleteError`."""
    match = _REQUEST_LINE.match(data, at)
    if match is None:
        raise NotStrictError(f"a request line: {data[at : at + 80]!r}")
    fields, at = _fields(data, match.end())
    message = Message((match[1], match[2]), fields)
    if len(message.all(b"host")) != 1:
        raise NotStrictError("not one Host")
    _read_body(message, data, at, b"")
    return message


def read_response(data: bytes, at: int, method: bytes, *, ended: bool, to_old: bool = False) -> Message:
    """The response at a place of the data, to a request of that method. Raises as `read_request` does.

    `ended`: the connection has. `to_old`: the client speaks HTTP/1.0, and knows no chunks.
    """
    match = _STATUS_LINE.match(data, at)
    if match is None:
        raise NotStrictError(f"a status line: {data[at : at + 80]!r}")
    fields, at = _fields(data, match.end())
    message = Message((match[1],), fields, end=at)
    status = int(match[1])
    if to_old and (message.all(b"transfer-encoding") or status < 200):
        raise NotStrictError("a client of HTTP/1.0 does not know that")
    if status < 200 or status == 204:
        if message.all(b"content-length") or message.all(b"transfer-encoding"):
            raise NotStrictError("a length where there is no body")
        return message
    if status == 304 or method == b"HEAD":
        _framing(message)
        return message
    _read_body(message, data, at, None if ended else b"")
    return message


def _fields(data: bytes, at: int) -> tuple[Fields, int]:
    fields = []
    while not data.startswith(b"\r\n", at):
        match = _FIELD.match(data, at)
        if match is None:
            raise NotStrictError(f"a field line: {data[at : at + 80]!r}")
        fields.append((match[1], match[2].strip(b" \t")))
        at = match.end()
    return fields, at + 2


def _framing(message: Message) -> tuple[bool, int]:
    """Whether it is chunked, and its length, -1 without."""
    lengths, codings = message.all(b"content-length"), message.all(b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise NotStrictError("more than one way to tell where it ends")
    if codings and codings != [b"chunked"]:
        raise NotStrictError(f"a coding: {codings[0]!r}")
    if lengths and not _NUMBER.fullmatch(lengths[0]):
        raise NotStrictError(f"a length: {lengths[0]!r}")
    return bool(codings), int(lengths[0]) if lengths else -1


def _read_body(message: Message, data: bytes, at: int, without: bytes | None) -> None:
    """`without`: the body where none is announced; None: all that is there."""
    chunked, length = _framing(message)
    if chunked:
        at = _chunks(message, data, at)
    elif length >= 0:
        if len(data) - at < length:
            raise IncompleteError("a body")
        message.body = data[at : at + length]
        at += length
    elif without is None:
        message.body = data[at:]
        message.closed = True
        at = len(data)
    else:
        message.body = without
    message.end = at


def ends_of_chunks(data: bytes) -> int:
    """Where the chunked body at the start of the data ends, extensions allowed; -1: it does not, or is no such body."""
    try:
        return _chunks(Message((), []), data, 0, _EXTENDED_CHUNK)
    except (NotStrictError, IncompleteError):
        return -1


def _chunks(message: Message, data: bytes, at: int, size_line: re.Pattern[bytes] = _CHUNK) -> int:
    while True:
        match = size_line.match(data, at)
        if match is None:
            if _BEGUN_CHUNK.match(data, at):
                raise IncompleteError("a chunk size")
            raise NotStrictError(f"a chunk size: {data[at : at + 40]!r}")
        size = int(match[1], 16)
        at = match.end()
        if not size:
            break
        if not b"\r\n".startswith(data[at + size : at + size + 2]):
            raise NotStrictError("the end of a chunk")
        if len(data) < at + size + 2:
            raise IncompleteError("a chunk")
        message.body += data[at : at + size]
        at += size + 2
    if data.find(b"\r\n\r\n", at - 2) == -1:
        raise IncompleteError("trailers")
    message.trailers, at = _fields(data, at)
    return at
