"""One connection from a deployment to an upstream: HTTP/1.1 over TCP, TLS or a Unix socket, with a PROXY header if it wants one.

Answers are judged by `bgproxy.http1`, as strictly as those to live requests: what the proxy would not forward is not an answer here
either. No redirect is followed, no cookie kept, no proxy of the environment asked, nothing decompressed.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from bgproxy.control.probing import words
from bgproxy.http1.chunked import ChunkedBody
from bgproxy.http1.errors import BadResponse, ProtocolError
from bgproxy.http1.names import NameTable
from bgproxy.http1.response import ResponseHead, parse_response_head
from bgproxy.model.snapshot import Address, TlsSpec

if TYPE_CHECKING:
    import ssl

#: Bytes of an answer's head, and interim answers before the final one; as of those to live requests.
MAX_HEAD: Final = 64 * 1024
MAX_INTERIM: Final = 32

#: Why there was no answer.
Kind = Literal["", "refused", "timed out", "reset", "rubbish", "other"]


@dataclass(frozen=True, slots=True)
class Way:
    """How one upstream is reached: where, and what comes before HTTP."""

    id: str
    address: Address
    host: str  # of the Host field
    prelude: bytes = b""  # a PROXY header, in the clear
    tls: TlsSpec | None = None  # None: in the clear
    server_name: str = ""  # with TLS: asked for, and looked for in the certificate


class Unanswered(Exception):  # noqa: N818 - says what it was
    """There is no answer; the text says why, for an operator."""

    def __init__(self, kind: Kind, reason: str, *, fresh: bool = True) -> None:
        super().__init__(reason)
        self.kind: Kind = kind
        self.fresh = (
            fresh  # False: a kept connection was closed with nothing said, so that asking again is no second try
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came."""

    status: int
    fields: tuple[tuple[str, str], ...]  # latin-1
    body: bytes
    cut: bool  # there was more of the body than was to be kept


class Wire(asyncio.Protocol):
    """A connection. `open` it, `ask` as long as `reusable`, `close` it; one question at a time."""

    def __init__(self, way: Way, names: NameTable) -> None:
        self._way = way
        self._names = names
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Reply] | None = None
        self._asked = 0
        self.reusable = False
        self._head_only = False
        self._keep = 0
        self._whole = False
        self._begin()

    def _begin(self) -> None:
        self._held = bytearray()  # of a head
        self._interims = 0
        self._gap = False  # an interim answer has just ended
        self._head: ResponseHead | None = None
        self._fields: tuple[tuple[str, str], ...] = ()
        self._chunks: ChunkedBody | None = None
        self._left = -1  # bytes of the body that are to come; -1: until the end of the connection
        self._body = bytearray()
        self._cut = False
        self._any = False  # a byte of the answer has come

    # --- what is asked of it ----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, and shake hands. Raises `Unanswered`; whoever cancels it leaves nothing open."""
        loop = asyncio.get_running_loop()
        try:
            context = self._context()
            sock = await self._connected(loop)
            try:
                if isinstance(self._way.address, str):
                    await loop.create_unix_connection(lambda: self, sock=sock)
                else:
                    name = self._way.server_name if context is not None else None
                    await loop.create_connection(lambda: self, sock=sock, ssl=context, server_hostname=name)
            except BaseException:
                self.close()
                sock.close()
                raise
        except OSError as error:
            raise self._unopened(error) from None
        except ValueError as error:  # of a name that no certificate can have
            raise Unanswered("other", str(error)) from None
        if self._transport is None:  # it was lost as soon as it stood
            raise Unanswered("reset", "the connection was closed as soon as it stood")
        self.reusable = True

    def _context(self) -> ssl.SSLContext | None:
        tls = self._way.tls
        if tls is None:
            return None
        if tls.trouble:
            raise Unanswered("other", tls.trouble)
        from bgproxy.config.upstream_tls import context_of  # noqa: PLC0415 - it imports ssl, which most can do without

        return context_of(tls.verify, tls.authorities, tls.chain, tls.secret)

    async def _connected(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        address = self._way.address
        family = (
            socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        )
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await loop.sock_connect(sock, address)
            if self._way.prelude:
                await loop.sock_sendall(sock, self._way.prelude)
        except BaseException:
            sock.close()
            raise
        return sock

    def _unopened(self, error: OSError) -> Unanswered:
        if isinstance(error, ConnectionRefusedError | FileNotFoundError):
            return Unanswered("refused", words(error))
        if self._way.tls is not None:
            from bgproxy.config.upstream_tls import explain  # noqa: PLC0415 - as above

            text = explain(error, self._way.server_name)[0]
            if text:
                return Unanswered("other", text)
        return Unanswered("reset" if isinstance(error, ConnectionError) else "other", words(error))

    async def ask(self, request: bytes, *, head_only: bool = False, keep: int = 0, whole: bool = True) -> Reply:
        """Send a request, and have its answer. Raises `Unanswered`; whoever cancels it closes the connection.

        At most `keep` bytes of the body are kept; with `whole` the others are read and dropped, else it ends there.
        """
        if self._transport is None or not self.reusable:
            raise Unanswered("reset", "the connection was closed before it was asked", fresh=not self._asked)
        self._begin()
        self._head_only, self._keep, self._whole = head_only, keep, whole
        self._asked += 1
        self.reusable = False
        waiter: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiter = waiter
        self._transport.write(request)
        try:
            return await waiter
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._waiter = None

    def close(self) -> None:
        """End it at once. Idempotent."""
        self.reusable = False
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    # --- what the loop tells it -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands, with TLS where that is wanted."""
        self._transport = transport  # type: ignore[assignment] # uvloop's does not inherit from asyncio.Transport

    def eof_received(self) -> bool:
        """The upstream has said all."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """It is over, from whichever side."""
        self._transport = None
        self.reusable = False
        if self._waiter is None:
            return
        head = self._head
        if head is not None and self._left == -1 and self._chunks is None and error is None:
            self._end(again=False)  # the body ended with the connection
        elif head is not None:
            self._fail("reset", f"the answer broke off after {len(self._body)} bytes of its body{_because(error)}")
        elif self._any:
            self._fail("reset", f"the answer broke off within its head{_because(error)}")
        else:
            reason = f"the connection was closed before it answered{_because(error)}"
            self._fail("reset", reason, fresh=self._asked == 1)

    def data_received(self, data: bytes) -> None:
        """Bytes of the answer."""
        if self._waiter is None or self._waiter.done():
            self.close()  # it speaks without having been asked
            return
        self._any = True
        try:
            if self._head is None:
                data = self._take_head(data)
                if self._head is None:
                    return
            self._take_body(data)
        except ProtocolError as error:
            self._fail("rubbish", f"not an HTTP answer: {error.detail}")

    # --- reading ----------------------------------------------------------------------------------------------------

    def _take_head(self, data: bytes) -> bytes:
        """Find the final head; what came behind it."""
        held = self._held
        looked = max(len(held) - 3, 0)  # no end of a head begins before that
        held += data
        at = 0
        while True:
            if self._gap and held.startswith(b"\r\n", at):
                self._gap = False  # some servers end a 100 with one empty line too many
                at += 2
            end = held.find(b"\r\n\r\n", max(at, looked))
            if (end if end != -1 else len(held)) - at > MAX_HEAD:
                raise BadResponse(f"a head of more than {MAX_HEAD} bytes")
            if end == -1:
                del held[:at]
                self._check_begun(b"\n" in data)
                return b""
            head = parse_response_head(bytes(held[at : end + 2]), self._names)
            if head.status >= 200:
                self._head = head
                self._fields = _fields(bytes(held[at:end]))
                self._frame(head)
                rest = bytes(held[end + 4 :])
                held.clear()
                return rest
            if head.status == 101:
                raise BadResponse("it switched protocols unasked")
            self._interims += 1
            if self._interims > MAX_INTERIM:
                raise BadResponse("too many interim responses")
            self._gap = True
            at = end + 4

    def _check_begun(self, lines: bool) -> None:
        """Refuse now what cannot become a head, since its end may never come."""
        held = self._held
        if self._gap and held == b"\r":
            return
        begin = held[:7]
        if begin != b"HTTP/1."[: len(begin)]:
            raise BadResponse("not an HTTP/1 status line")
        if lines and held.count(b"\n") != held.count(b"\r\n"):
            raise BadResponse("a bare LF in the header")

    def _frame(self, head: ResponseHead) -> None:
        if head.bodyless or self._head_only:
            self._left = 0
        elif head.chunked:
            self._chunks = ChunkedBody(self._names, data_only=True)
        else:
            self._left = head.length

    def _take_body(self, data: bytes) -> None:
        chunks = self._chunks
        if chunks is not None:
            self._put(chunks.feed(data))
            if chunks.done:
                self._end(again=not chunks.rest)
        elif self._left == -1:
            self._put(data)
        else:
            mine = data[: self._left]
            self._put(mine)
            self._left -= len(mine)
            if not self._left:
                self._end(again=len(mine) == len(data))
        if self._cut and not self._whole:
            self._end(again=False)

    def _put(self, data: bytes) -> None:
        room = self._keep - len(self._body)
        if len(data) > room:
            self._cut = True
            data = data[: max(room, 0)]
        self._body += data

    def _end(self, *, again: bool) -> None:
        head, waiter = self._head, self._waiter
        if head is None or waiter is None or waiter.done():
            return
        waiter.set_result(Reply(head.status, self._fields, bytes(self._body), self._cut))
        self.reusable = again and not head.close
        if not self.reusable:
            self.close()

    def _fail(self, kind: Kind, reason: str, *, fresh: bool = True) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(Unanswered(kind, reason, fresh=fresh))
        self.close()


def _fields(head: bytes) -> tuple[tuple[str, str], ...]:
    """The fields of a head that was judged good."""
    lines = head.decode("latin-1").split("\r\n")[1:]
    return tuple((name, value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines))


def _because(error: Exception | None) -> str:
    if error is None:
        return ""
    return f": {words(error)}" if isinstance(error, OSError) else f": {error}"
