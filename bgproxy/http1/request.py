"""Requests: from bytes to what has to be known about them, and to the bytes that go on (RFC 9112 sections 2 to 6).

A head is two things here: the request line, parsed every time, and the header block, which one connection tends to
repeat to the byte; `RequestFields` is all that was decided about a block, so that it can be remembered.
"""

from __future__ import annotations

from typing import Final

from bgproxy.http1.bytesets import DIGITS, HEXDIGITS, LINE, LINE_TABLE, OWS, SECTION, TARGET_TABLE, TOKEN
from bgproxy.http1.bytesets import HOST as HOST_BYTES
from bgproxy.http1.errors import BadRequest
from bgproxy.http1.names import (
    CONNECTION,
    CONTENT_LENGTH,
    COOKIE,
    DROP,
    EXPECT,
    EXTRA,
    FORWARDED,
    HOST,
    MAX_FORWARDS,
    OURS,
    OURS_PREFIX,
    PLAIN,
    PROTECTED,
    REPEATING,
    REQUEST_ID,
    TRANSFER_ENCODING,
    UPGRADE,
    VIA,
    NameTable,
)

#: Longest request line (RFC 9112 section 3 recommends at least 8000 octets): 414 beyond.
MAX_LINE: Final = 16 * 1024
#: Empty lines before a request: 400 beyond.
MAX_EMPTY_LINES: Final = 2
#: Longest method: 501 beyond.
MAX_METHOD: Final = 32
#: A body announced longer than this is taken for an attack on somebody's arithmetic.
MAX_LENGTH_DIGITS: Final = 18

#: method -> (safe, idempotent), RFC 9110 section 9.2
METHODS: Final = {
    b"GET": (True, True),
    b"HEAD": (True, True),
    b"OPTIONS": (True, True),
    b"TRACE": (True, True),
    b"PUT": (False, True),
    b"DELETE": (False, True),
    b"POST": (False, False),
    b"PATCH": (False, False),
}


#: Never appended to: what a fresh `RequestFields` has for lists.
_NONE: Final[list[bytes]] = []
_NOWHERE: Final[list[int]] = []
_NOTHING: Final[list[tuple[int, int, bytes]]] = []


class RequestFields:
    """What one header block says, and what of it is forwarded. Once it is made, nothing of that is changed any more."""

    chunked: bool = False
    upgrade: bytes = b""  # the Upgrade value where Connection nominates it; b"" otherwise
    expect: bool = False  # Expect: 100-continue
    max_forwards: int = -1  # -2: it is no number, or there are two
    again: bool = True  # the block may be met again: of HTTP/1.1, and nothing in it goes by the method
    cookies: bytes = b""  # all Cookie lines, joined as RFC 6265 section 5.4 would
    request_id: bytes = b""
    forwarding: tuple[tuple[bytes, bytes], ...] = ()  # of kind FORWARDED, as sent: (lower name, value)

    def __init__(self) -> None:
        self.minor = 1
        self.forwarded = b""  # the lines that go on, each with its CRLF; Host among them
        self.host = b""  # Host's value, as sent
        self.hostname = b""  # lower case, without port and trailing dot: what routes are matched by
        self.length = -1  # Content-Length; -1 without
        self.bodied = False  # a body follows
        self.close = False  # the client said close, or is of 1.0 and did not say keep-alive
        self.extra: dict[bytes, bytes] | None = None  # lower name -> value, of the names that services asked for
        # How the block was made into `forwarded`, for one that differs a little.
        self.lines = _NONE  # of the block, as they came
        self.kept = _NONE  # those that go on; empty where all do
        self.places = _NOWHERE  # where in `kept` a line stands that is forwarded unread; -1 for every other line
        # Of the lines that are forwarded unread, those that differed before: index and place, name and colon.
        self.varying = _NOTHING

    def forwards(self, head: bytes, lines: list[bytes]) -> bytes:
        """What is forwarded of another head's block, if all that was decided about this one holds for it too.

        `lines` is the whole head, split at its CRLFs. It holds where the blocks differ in nothing but the values of
        fields that are forwarded unread: these values alone are judged. b"": it needs a judgement of its own.
        """
        known = self.lines
        # A request line and an empty line more; behind the CRLF of that one stands nothing, as behind a block's last.
        if len(lines) != len(known) + 2 or len(self.places) != len(known) - 1 or lines[-1]:
            return b""
        rest = lines[1:-1]
        kept = self.kept[:]
        for index, place, name in self.varying:
            line = rest[index]
            if not line.startswith(name) or line.translate(LINE_TABLE) != line:
                return b""
            rest[index] = known[index]
            if kept:
                kept[place] = line
        if rest != known:
            return self.forwards(head, lines) if self._vary(rest) else b""
        return b"\r\n".join(kept) if kept else head[len(lines[0]) + 2 : -2]

    def _vary(self, rest: list[bytes]) -> bool:
        """Whether the lines that differ here may; each is judged by itself from now on, and the others compared all at once."""
        varying = self.varying[:]
        for index, before in enumerate(self.lines):
            if rest[index] == before:
                continue
            if index == len(self.places) or self.places[index] < 0:
                return False
            varying.append((index, self.places[index], before.partition(b":")[0] + b":"))
        self.varying = varying
        return True


def parse_request_line(line: bytes) -> tuple[bytes, bytes, int]:
    """A request line without its CRLF: method, target, minor version.

    Raises `BadRequest` with 400, 501 (method too long) or 505 (RFC 9112 section 3).
    """
    parts = line.split(b" ")
    if len(parts) != 3:
        raise BadRequest(400, "a request line is a method, a target and a version, with one space between")
    method = parts[0]
    target = parts[1]
    version = parts[2]
    if version == b"HTTP/1.1":
        minor = 1
    elif version == b"HTTP/1.0":
        minor = 0
    else:
        if version.startswith(b"HTTP/") and version[6:7] == b"." and _digit(version[5:6]) and _digit(version[7:]):
            raise BadRequest(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
        raise BadRequest(400, "the version is not HTTP/1.1 or HTTP/1.0")
    if method not in METHODS:
        if not method or method.translate(None, TOKEN):
            raise BadRequest(400, "the method is not a token")
        if len(method) > MAX_METHOD:
            raise BadRequest(501, "the method is too long")
    if not target or target.translate(TARGET_TABLE) != target:
        raise BadRequest(400, "the target has a character that may not stand there raw")
    return method, target, minor


def without_empty_lines(data: bytes, before: int = 0) -> bytes:
    """The bytes of a request without the empty lines before it; `before` says how many have been taken off already.

    One is to be ignored (RFC 9112 section 2.2), two are taken by nginx, HAProxy and Caddy alike; more are refused.
    """
    for _ in range(before, MAX_EMPTY_LINES):
        data = data.removeprefix(b"\r\n")
    if data.startswith(b"\r\n"):
        raise BadRequest(400, "empty lines before the request")
    return data


def _digit(char: bytes) -> bool:
    return len(char) == 1 and char in DIGITS


def split_absolute(target: bytes) -> tuple[bytes, bytes]:
    """An absolute-form target: its authority, and the origin-form that is forwarded (RFC 9112 section 3.2.2)."""
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        raise BadRequest(400, "the target is neither a path nor an http URL")
    end = len(rest)
    for mark in (b"/", b"?"):
        at = rest.find(mark)
        if 0 <= at < end:
            end = at
    path = rest[end:]
    return rest[:end], path if path.startswith(b"/") else b"/" + path


def hostname_of(value: bytes) -> bytes:
    """The name in a Host value, lower-cased, without port and trailing dot; `BadRequest` if it is none (9110 7.2)."""
    if not value or value.translate(None, HOST_BYTES):
        raise BadRequest(400, "Host is not a host name with an optional port")
    if value.startswith(b"["):
        name, separator, port = value.partition(b"]")
        if not separator or name[1:].translate(None, HEXDIGITS + b":.v") or len(name) < 3:
            raise BadRequest(400, "Host is not a valid IPv6 address")
        name += b"]"
        if port and not port.startswith(b":"):
            raise BadRequest(400, "Host has something behind its address")
        port = port[1:]
    else:
        name, separator, port = value.partition(b":")
        if not name or b"[" in name or b"]" in name:
            raise BadRequest(400, "Host has no name")
        if b"%" in name and _bad_escape(name):
            raise BadRequest(400, "Host has a broken percent escape")
    if port and (len(port) > 5 or port.translate(None, DIGITS) or int(port) > 65535):
        raise BadRequest(400, "Host has a port that is none")
    return name.lower().rstrip(b".")


def _bad_escape(name: bytes) -> bool:
    return any(len(piece) < 2 or piece[:2].translate(None, HEXDIGITS) for piece in name.split(b"%")[1:])


def parse_content_length(value: bytes) -> int:
    """1*DIGIT and nothing else (RFC 9110 section 8.6); -1 if it is not."""
    if not value or value.translate(None, DIGITS) or len(value) > MAX_LENGTH_DIGITS:
        return -1
    return int(value)


def parse_request_fields(
    block: bytes, minor: int, names: NameTable, max_headers: int, authority: bytes = b""
) -> RequestFields:
    """Judge and edit a header block: its lines with their CRLFs, without the empty line.

    `authority` is that of an absolute-form target, which replaces Host. Raises `BadRequest`.
    """
    fields = RequestFields()
    fields.minor = minor
    fields.again = minor == 1
    lines = block.split(b"\r\n")
    total = len(lines) - 1  # behind the last CRLF stands nothing
    if total > max_headers:
        raise BadRequest(431, f"more than {max_headers} header fields")

    known = names.known
    judged = names.lines
    hosts = 0
    connection = b""
    codings = b""
    upgrade = b""
    expect = b""
    edited = False
    kept: list[bytes] = []
    places: list[int] = []
    for line in lines:
        if line in judged:
            places.append(len(kept))
            kept.append(line)
            continue
        name, separator, value = line.partition(b":")
        if not separator:
            if not line and len(places) == total:
                break
            _check_line(line)
            raise BadRequest(400, "a header line without a colon")
        if line.translate(LINE_TABLE) != line:
            _check_line(line)
        kind = known.get(name, -1)
        if kind == -1:
            kind = names.learn(name)
            if kind == -1:
                raise BadRequest(400, "a header name with a character that may not stand in one")
        if kind == PLAIN:
            places.append(len(kept))
            kept.append(line)
            continue
        if kind == REPEATING:
            names.learn_line(line)
            places.append(len(kept))
            kept.append(line)
            continue
        places.append(-1)
        value = value.strip(OWS)
        if kind == HOST:
            hosts += 1
            if authority:
                hostname_of(value)  # it is replaced, and must be valid all the same (RFC 9112 section 3.2)
                fields.host = authority
                kept.append(b"Host: " + authority)
                edited = True
            else:
                fields.host = value
                kept.append(line)
        elif kind == COOKIE:
            fields.cookies = fields.cookies + b"; " + value if fields.cookies else value
            kept.append(line)
        elif kind == CONNECTION:
            connection = connection + b"," + value if connection else value
            edited = True
        elif kind == CONTENT_LENGTH:
            if fields.length != -1:
                raise BadRequest(400, "more than one Content-Length")
            fields.length = parse_content_length(value)
            if fields.length == -1:
                raise BadRequest(400, "Content-Length is not a number")
            kept.append(line)
        elif kind == TRANSFER_ENCODING:
            codings = codings + b"," + value if codings else b"," + value
            edited = True  # the line is written anew, in the one form that every back end reads alike
        elif kind == DROP:
            edited = True
        elif kind == UPGRADE:
            upgrade = upgrade + b", " + value if upgrade else value
            edited = True
        elif kind == FORWARDED:
            fields.forwarding += ((name.lower(), value),)
            edited = True
        elif kind == REQUEST_ID:
            fields.request_id = value
            edited = True
        elif kind == EXPECT:
            expect = expect + b"," + value.lower() if expect else value.lower()
            kept.append(line)
        elif kind == EXTRA:
            if fields.extra is None:
                fields.extra = {}
            fields.extra[name.lower()] = value
            if name.lower().startswith(OURS_PREFIX):
                edited = True
            else:
                kept.append(line)  # it may be an application's too, and be passed on by it
        elif kind == MAX_FORWARDS:
            # What it asks for goes by the method, which is not known here, and is another one in the next request.
            first = fields.max_forwards == -1
            fields.max_forwards = parse_content_length(value) if first else -2
            if fields.max_forwards == -1:
                fields.max_forwards = -2
            fields.again = False
            kept.append(line)
        elif kind == VIA:
            if is_in_via(value, names.pseudonym):
                raise BadRequest(508, "it has been here before, says its Via: an upstream leads back to this bgproxy")
            kept.append(line)
        elif kind == OURS:
            edited = True
        else:
            kept.append(line)

    if authority and not hosts:
        fields.host = authority
        if minor == 1:
            raise BadRequest(400, "Host is missing")
        kept.insert(0, b"Host: " + authority)
        places.clear()
        edited = True
    elif hosts != 1 and (hosts or minor):
        raise BadRequest(400, "Host is missing" if not hosts else "more than one Host")
    if fields.host or hosts:
        hostname = names.hosts.get(fields.host)
        if hostname is None:
            hostname = hostname_of(fields.host)
            names.learn_host(fields.host, hostname)
        fields.hostname = hostname
    if codings:
        _set_codings(fields, codings[1:], minor)
        kept.append(b"Transfer-Encoding: chunked")
    if expect:
        if expect != b"100-continue":
            raise BadRequest(417, "an expectation that is not 100-continue")
        fields.expect = minor == 1
    fields.close = minor == 0
    fields.bodied = fields.length > 0 or fields.chunked
    if connection == b"keep-alive":  # what browsers say, and nothing to look for in it
        fields.close = False
    elif connection:
        before = len(kept)
        kept = _apply_connection(fields, connection, kept, upgrade)
        if len(kept) != before:
            places.clear()  # they do not hold any more
    if edited:
        kept.append(b"")
        fields.kept = kept
        fields.forwarded = b"\r\n".join(kept)
    else:
        fields.forwarded = block
    fields.lines = lines
    fields.places = places
    return fields


def _check_line(line: bytes) -> None:
    """Raise for a byte that may stand in no line: a control character, a CR or LF alone (RFC 9112 section 2.2)."""
    if line.translate(None, SECTION):
        raise BadRequest(400, "a control character in the header")
    if line.translate(None, LINE):
        raise BadRequest(400, "a bare CR or LF in the header")


def _set_codings(fields: RequestFields, codings: bytes, minor: int) -> None:
    """Transfer-Encoding: chunked, once, alone, in 1.1, without Content-Length (RFC 9112 sections 6.1 and 6.3)."""
    if minor == 0:
        raise BadRequest(400, "Transfer-Encoding in an HTTP/1.0 request")
    if fields.length != -1:
        raise BadRequest(400, "both Transfer-Encoding and Content-Length")
    if codings.lower() != b"chunked":
        tokens = [coding.strip(OWS).lower() for coding in codings.split(b",")]
        last = tokens[-1] == b"chunked" and b"chunked" not in tokens[:-1] and b"identity" not in tokens
        if last and all(is_token(token.split(b";")[0].strip(OWS)) for token in tokens):
            raise BadRequest(501, "a transfer coding that is not chunked")
        raise BadRequest(400, "Transfer-Encoding is not chunked")
    fields.chunked = True


def _apply_connection(fields: RequestFields, connection: bytes, kept: list[bytes], upgrade: bytes) -> list[bytes]:
    """Obey the options of Connection, and take out the lines that it nominates (RFC 9110 section 7.6.1)."""
    nominated: set[bytes] = set()
    if connection == b"close":
        fields.close = True
        return kept
    for option in connection.lower().split(b","):
        name = option.strip(OWS)
        if name == b"close":
            fields.close = True
        elif name == b"keep-alive":
            pass
        elif name == b"upgrade":
            if upgrade and fields.minor == 1 and fields.length <= 0 and not fields.chunked:
                fields.upgrade = upgrade
        elif name and name not in PROTECTED:
            nominated.add(name)
    if fields.minor == 0:
        options = [option.strip(OWS) for option in connection.lower().split(b",")]
        fields.close = b"keep-alive" not in options or b"close" in options
    if fields.upgrade and not _may_upgrade(fields.upgrade):
        fields.upgrade = b""
    if nominated:
        kept = [line for line in kept if line.partition(b":")[0].lower() not in nominated]
        if fields.extra:
            fields.extra = {name: value for name, value in fields.extra.items() if name not in nominated}
    return kept


def _may_upgrade(upgrade: bytes) -> bool:
    """Whether an Upgrade names protocols (RFC 9110 section 7.8), and HTTP/2 is nowhere in the list (http.md row 50).

    That would carry requests past every rule; and of what is no list nobody knows what an upstream finds in it.
    """
    for protocol in upgrade.lower().split(b","):
        parts = protocol.strip(OWS).split(b"/")
        if len(parts) > 2 or parts[0].startswith(b"h2c") or not all(is_token(part) for part in parts):
            return False
    return True


def cookie_value(cookies: bytes, name: bytes) -> bytes:
    """The value of the first cookie of that name (RFC 6265 section 5.4); b"" without one."""
    for pair in cookies.split(b";"):
        key, separator, value = pair.partition(b"=")
        if separator and key.strip(OWS) == name:
            return value.strip(OWS).strip(b'"')
    return b""


def is_in_via(via: bytes, pseudonym: bytes) -> bool:
    """Whether a Via says that a message came through who calls itself so, given in lower case (RFC 9110 section 7.6.3)."""
    for entry in via.lower().split(b","):
        parts = entry.split()
        if len(parts) > 1 and parts[1] == pseudonym:
            return True
    return False


def is_token(text: bytes) -> bool:
    """Whether a text is a token (RFC 9110 section 5.6.2)."""
    return bool(text) and not text.translate(None, TOKEN)


def printable(text: bytes, most: int = 200) -> str:
    """A peer's bytes, safe to show in a log line."""
    shown = text[:most].decode("latin-1")
    return "".join(char if char.isprintable() and ord(char) < 0x7F else f"\\x{ord(char):02x}" for char in shown)
