"""A raw HTTP/1.1 client over a blocking socket, for tests of what goes over the wire.

Nothing here is lenient or clever: bytes are sent as given, and a response is read as its framing says.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Self

#: Seconds that any single read may take.
PATIENCE = 10.0


class TruncatedError(Exception):
    """The peer closed in the middle of a response; `.data` is what came."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        super().__init__(f"closed in the middle of a response, after {data[-200:]!r}")


@dataclass
class Response:
    status: int
    reason: str
    headers: list[tuple[str, str]]  # as received, in order
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    version: str = "HTTP/1.1"

    def header(self, name: str, default: str | None = None) -> str | None:
        """The first value of a header, by any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), default)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def text(self) -> str:
        return self.body.decode()


class Client:
    """One connection; `address` is (host, port), or the path of a Unix socket."""

    def __init__(self, address: tuple[str, int] | str, *, timeout: float = PATIENCE, receive_buffer: int = 0) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(timeout)
        try:
            self.sock.connect(address)
        except OSError:
            self.sock.close()
            raise
        self.buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def request(
        self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Response:
        """Send a request and read its final response (1xx are passed over)."""
        self.send_request(method, target, headers, body)
        return self.read_response(method)

    def get(self, target: str = "/", **headers: str) -> Response:
        """GET; header names are written with underscores."""
        return self.request("GET", target, {name.replace("_", "-"): value for name, value in headers.items()})

    def send_request(
        self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> None:
        fields = {"Host": "test.example", **(headers or {})}
        if body is not None:
            fields.setdefault("Content-Length", str(len(body)))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.send(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + (body or b""))

    # --- reading ----------------------------------------------------------------------------------------------------

    def read_head(self) -> Response:
        """The next head, 1xx included."""
        head = self.read_until(b"\r\n\r\n").decode("latin-1")
        line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        version, status, reason = (*line.split(" ", 2), "")[:3]
        return Response(int(status), reason, [_field(each) for each in lines], version=version)

    def read_response(self, method: str = "GET") -> Response:
        """The next final response, whole.

        Raises:
            TruncatedError: the connection ended before the response did.
        """
        response = self.read_head()
        while response.status < 200 and response.status != 101:
            response = self.read_head()
        if method == "HEAD" or response.status in (101, 204, 304):
            return response
        if (response.header("Transfer-Encoding") or "").lower() == "chunked":
            self._read_chunked(response)
        elif (length := response.header("Content-Length")) is not None:
            response.body = self.read_exactly(int(length))
        else:
            response.body = self.read_all()
        return response

    def _read_chunked(self, response: Response) -> None:
        pieces = []
        while size := int(self.read_until(b"\r\n").split(b";")[0], 16):
            pieces.append(self.read_exactly(size))
            assert self.read_exactly(2) == b"\r\n"
        response.body = b"".join(pieces)
        while (line := self.read_until(b"\r\n")) != b"\r\n":
            response.trailers.append(_field(line.decode("latin-1").removesuffix("\r\n")))

    def read_until(self, end: bytes) -> bytes:
        while end not in self.buffer:
            self._more()
        found, _, self.buffer = self.buffer.partition(end)
        return found + end

    def read_exactly(self, count: int) -> bytes:
        pieces = [self.buffer[:count]]
        self.buffer = self.buffer[count:]
        missing = count - len(pieces[0])
        while missing:
            piece = self.sock.recv(min(missing, 1 << 20))
            if not piece:
                raise TruncatedError(b"".join(pieces))
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def read_all(self) -> bytes:
        """Everything until the peer closes."""
        pieces = [self.buffer]
        self.buffer = b""
        while piece := self.sock.recv(1 << 20):
            pieces.append(piece)
        return b"".join(pieces)

    def closed(self) -> bool:
        """Whether the peer has closed, or closes within the patience, without another byte."""
        try:
            return not self.buffer and self.sock.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def _more(self) -> None:
        piece = self.sock.recv(65536)
        if not piece:
            raise TruncatedError(self.buffer)
        self.buffer += piece


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value.strip()


def exchange(address: tuple[str, int] | str, data: bytes, *, timeout: float = PATIENCE) -> bytes:
    """Send `data` on a new connection, and all that comes back until the peer closes."""
    with Client(address, timeout=timeout) as client:
        client.send(data)
        return client.read_all()
