"""A client connection's request heads: judged, edited, and remembered.

What a client sends over one connection differs from request to request in its request line and in little else. So a
connection remembers its last header block with all that was decided about it (architecture.md): the same bytes again
cost one comparison, a block in which a few values differ costs the judging of these alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bgproxy.http1.bytesets import TARGET_TABLE
from bgproxy.http1.errors import BadRequest, LastHop
from bgproxy.http1.request import (
    MAX_LINE,
    METHODS,
    RequestFields,
    parse_request_fields,
    parse_request_line,
    split_absolute,
)

if TYPE_CHECKING:
    from bgproxy.proxy.context import Context

#: The ends of heads: the number of a request on its connection ends its id.
_ENDS: Final = [b"%d\r\n\r\n" % number for number in range(1000)]
#: Methods that a block which was met may come with; TRACE is looked at closely each time.
_REMEMBERED: Final = frozenset(METHODS) - {b"TRACE"}
_SPECIAL: Final = frozenset({b"CONNECT", b"TRACE"})
#: What goes on as trusted peers have sent it, under these names.
_KEPT: Final = (b"forwarded", b"x-real-ip", b"x-bgproxy-mirror")
#: What a client proves itself by: a TRACE goes on without, so that no upstream can echo it (RFC 9110 section 9.3.8).
_CREDENTIALS: Final = frozenset({b"cookie", b"authorization", b"proxy-authorization"})


class Listener:
    """What a client's connection knows of the listener that it came through."""

    def __init__(
        self,
        port: int,
        *,
        unix: bool,
        tls: bool = False,
        hsts: float | None = None,
        redirect: int | None = None,
        client_certificates: bool = False,
    ) -> None:
        self.port = str(port).encode()
        self.unix = unix
        self.secure = tls
        self.redirect = redirect is not None
        #: What stands in a Location behind the host.
        self.redirect_port = b"" if redirect is None or redirect == 443 else b":%d" % redirect
        #: Clients may show a certificate, which upstreams are told of: no connection's lines are another's.
        self.client_certificates = client_certificates
        #: Not every request is for a service: asked where a header block is routed, so plain HTTP pays nothing.
        self.strict = tls or self.redirect
        self.scheme = b"https" if tls else b"http"
        #: A line for every answer (RFC 6797 section 7.2).
        self.hsts = b"" if hsts is None else b"Strict-Transport-Security: max-age=%d\r\n" % int(hsts)
        #: What stands between the client's address and the host in most heads.
        self.proto = b"\r\nX-Forwarded-Proto: " + self.scheme + b"\r\nX-Forwarded-Host: "
        #: What follows X-Forwarded-Host in most heads.
        self.tail = b"\r\nX-Forwarded-Port: " + self.port


class RequestHeads:
    """The head of the current request of a connection, and the memory of it."""

    method: bytes = b""
    target: bytes = b""  # in origin form, or `*`
    line: bytes = b""  # the request line that goes on, with its CRLF
    head_only: bool = False  # a HEAD: even our own errors have no body
    peer: str = ""
    trusted: bool = False  # the peer's forwarding fields are believed
    id_prefix: bytes = b""  # of the request ids that are made here
    client_cert: bytes = b""  # a whole line that says who the client proved to be (RFC 9440 section 2)
    forwarded: bytes = b""  # of the header block
    tail_host: bytes = b""  # for which it was made
    tail_usual: bool = False  # it holds for every block with that host

    def __init__(self, context: Context, listener: Listener) -> None:
        self.context = context
        self.listener = listener
        self.fields = RequestFields()
        self.number = 0  # of the request on its connection
        self.rest = b""  # of the last head: all that followed its request line, where it may be met again
        self.rest_size = 0  # 0: nothing to be met
        self.tail = b""  # what we add to the block, up to the request id
        self.fixed_id = False  # the request id is the client's

    def meet_again(self, data: bytes) -> bool:
        """Take a whole head whose block is the last one's, but for values that nobody looks at.

        False where it must be looked at closely.
        """
        length = len(data)
        size = self.rest_size
        if not size or length > self.context.short_head:
            return False
        forwarded = b""
        if size < length and data.endswith(self.rest):
            line = data[: length - size]
        else:
            lines = data.split(b"\r\n")
            forwarded = self.fields.forwards(data, lines)
            if not forwarded:
                return False
            line = lines[0] + b"\r\n"
        parts = line.split(b" ")
        if len(parts) != 3 or parts[2] != b"HTTP/1.1\r\n":
            return False
        method = parts[0]
        target = parts[1]
        if not target.startswith(b"/") or target.translate(TARGET_TABLE) != target or method not in _REMEMBERED:
            return False
        if forwarded:
            self.forwarded = forwarded
            self.rest = data[len(line) :]
            self.rest_size = len(self.rest)
        self.number += 1
        self.method = method
        self.target = target
        self.line = line
        self.head_only = method == b"HEAD"
        return True

    def judge(self, data: bytes, line_end: int, end: int) -> None:
        """Take a head: `data[:line_end]` is its request line, at `end` its empty line begins. Raises `BadRequest`."""
        if line_end > MAX_LINE:
            raise BadRequest(414, f"a request line of more than {MAX_LINE} bytes")
        if end > self.context.limits.header_bytes:
            raise BadRequest(431, f"a head of more than {self.context.limits.header_bytes} bytes")
        self.number += 1
        method, target, minor = parse_request_line(data[:line_end])
        self.method = method
        self.head_only = method == b"HEAD"
        block = data[line_end + 2 : end + 2]
        if not target.startswith(b"/") or method in _SPECIAL:
            self._other_form(method, target, minor, block)
            return
        self.target = target
        self.line = data[: line_end + 2] if minor else b"%b %b HTTP/1.1\r\n" % (method, target)
        context = self.context
        self.rest_size = 0  # the parser may raise
        self.fields = parse_request_fields(block, minor, context.request_names, context.limits.headers)
        self.forwarded = self.fields.forwarded
        self._set_tail()
        self.rest = data[line_end + 2 : end + 4]
        self.rest_size = len(self.rest) if self.fields.again else 0

    def forget(self) -> None:
        """What was decided about the last block holds no more: another table of names, other limits."""
        self.rest_size = 0
        self.fields.places = []

    def learn_from(self, other: RequestHeads) -> None:
        """Begin with what another connection through the same listener, from the same address, remembers."""
        if self.listener.client_certificates:
            return  # the other's lines name another client
        self.fields = other.fields
        self.forwarded = other.forwarded
        self.rest = other.rest
        self.rest_size = other.rest_size
        self.tail = other.tail
        self.tail_host = other.tail_host
        self.tail_usual = other.tail_usual

    def _other_form(self, method: bytes, target: bytes, minor: int, block: bytes) -> None:
        """A target that is no path: `*`, or a URL, whose authority replaces Host (RFC 9112 section 3.2); or TRACE."""
        authority = b""
        if method == b"CONNECT":
            raise BadRequest(501, "CONNECT is not served here")
        if target == b"*":
            if method != b"OPTIONS":
                raise BadRequest(400, "the target * goes with OPTIONS only")
        elif not target.startswith(b"/"):
            authority, path = split_absolute(target)
            if not authority:
                raise BadRequest(400, "the target is a URL without a host")
            # For OPTIONS a URL without a path means the server as a whole (RFC 9112 section 3.2.4).
            target = b"*" if method == b"OPTIONS" and target.partition(b"://")[2] == authority else path
        context = self.context
        self.rest_size = 0
        self.fields = parse_request_fields(block, minor, context.request_names, context.limits.headers, authority)
        self.forwarded = self.fields.forwarded
        self.target = target
        self.line = b"%b %b HTTP/1.1\r\n" % (method, target)
        self.rest = block  # of which our own errors want to know what the client accepts
        self.fields.places = []  # another block with this authority is another matter
        if method == b"TRACE":
            self._clear_trace()
        self._set_tail()

    def _clear_trace(self) -> None:
        """A TRACE has no body, and goes on without what must not be echoed (RFC 9110 section 9.3.8)."""
        if self.fields.bodied:
            raise BadRequest(400, "TRACE with a body")
        lines = self.forwarded.split(b"\r\n")
        kept = [line for line in lines if line.partition(b":")[0].lower() not in _CREDENTIALS]
        self.forwarded = b"\r\n".join(kept)

    def _count_hop(self) -> None:
        """Max-Forwards: TRACE and OPTIONS go on so many times, and no more (RFC 9110 section 7.6.2)."""
        method = self.method
        left = self.fields.max_forwards
        if method != b"TRACE" and method != b"OPTIONS":  # noqa: PLR1714 - a set is made anew each time by mypyc
            return
        if left < 0:
            raise BadRequest(400, "Max-Forwards is not one number")
        if not left:
            if method == b"OPTIONS":
                raise LastHop
            raise BadRequest(405, "TRACE is not answered here")
        lines = self.forwarded.split(b"\r\n")
        for index, line in enumerate(lines):
            name = line.partition(b":")[0]
            if name.lower() == b"max-forwards":
                lines[index] = b"%b: %d" % (name, left - 1)
        self.forwarded = b"\r\n".join(lines)

    def head(self) -> bytes:
        """The head as it goes to the upstream."""
        number = self.number
        if self.fixed_id:
            return b"".join([self.line, self.forwarded, self.tail, self.fields.request_id, b"\r\n\r\n"])
        last = _ENDS[number] if number < 1000 else b"%d\r\n\r\n" % number
        return b"".join([self.line, self.forwarded, self.tail, self.id_prefix, last])

    def _set_tail(self) -> None:
        """Make what we add to a block: who the client is, how it came, and the request's id."""
        fields = self.fields
        usual = fields.again and not self.trusted and not fields.upgrade
        if usual and fields.host:
            if not self.tail_usual or fields.host != self.tail_host:
                peer = self.peer.encode() or b"unknown"
                host = fields.host
                pieces = [self.client_cert, b"X-Forwarded-For: ", peer, self.listener.proto, host]
                self.tail = b"".join([*pieces, self.listener.tail, self.context.via_tail])
                self.tail_host = host
                self.tail_usual = True
            self.fixed_id = False
            return
        self.tail_usual = False
        if fields.max_forwards != -1:
            self._count_hop()
        forwarding: dict[bytes, bytes] = {}
        if self.trusted:
            for name, value in fields.forwarding:
                known = forwarding.get(name)
                forwarding[name] = value if known is None else known + b", " + value
        before = forwarding.get(b"x-forwarded-for", b"")
        peer = self.peer.encode()
        lines = [
            b"" if fields.host else b"Host: localhost\r\n",
            self.client_cert,
            b"X-Forwarded-For: ",
            before + b", " + peer if before else peer or b"unknown",
            b"\r\nX-Forwarded-Proto: ",
            forwarding.get(b"x-forwarded-proto", self.listener.scheme),
            b"\r\nX-Forwarded-Host: ",
            forwarding.get(b"x-forwarded-host", fields.host),
            b"\r\nX-Forwarded-Port: ",
            forwarding.get(b"x-forwarded-port", self.listener.port),
            b"\r\nVia: 1.%d %b\r\n" % (fields.minor, self.context.pseudonym),
        ]
        lines.extend(b"%b: %b\r\n" % (name, forwarding[name]) for name in _KEPT if name in forwarding)
        if fields.upgrade:
            lines.append(b"Connection: Upgrade\r\nUpgrade: " + fields.upgrade + b"\r\n")
        self.fixed_id = self.trusted and bool(fields.request_id)
        lines.append(b"X-Request-ID: ")
        self.tail = b"".join(lines)

    def request_id(self) -> bytes:
        """The id of the current request, as upstreams and error answers name it."""
        return self.fields.request_id if self.fixed_id else self.id_prefix + str(self.number).encode()
