"""Upstream servers for tests: real sockets on free ports, which say what pool they are of and count what they get.

`Backend` runs in threads of the test, and each path of it does one thing that upstreams do (see `_PATHS`); a test adds its own
with `on`. `start_aiohttp` is an aiohttp server in a process of its own, for load.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

#: Seconds after which a thread that waits for its test gives up.
PATIENCE = 60.0


@dataclass
class Request:
    """One request as the upstream got it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    sock: socket.socket
    rest: bytes  # of the connection's bytes, behind the head
    raw: bytes  # the head
    keep: bool = True  # set to False to close the connection afterwards
    _read: bool = field(default=False, repr=False)

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    def query(self, name: str, default: str = "") -> str:
        return parse_qs(urlsplit(self.target).query).get(name, [default])[0]

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes, by its framing."""
        self._read = True
        if (self.header("Transfer-Encoding") or "").lower() == "chunked":
            while size := int(self._line().split(b";")[0], 16):
                yield from self._exactly(size)
                self._line()
            while self._line():
                pass
        else:
            yield from self._exactly(int(self.header("Content-Length") or 0))

    def body(self) -> bytes:
        return b"".join(self.pieces())

    def drop_body(self) -> None:
        """Read what the handler left unread, so that the connection can be used again."""
        if not self._read:
            for _ in self.pieces():
                pass

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, body: bytes | str = b"", status: str = "200 OK", *headers: str) -> None:
        """A response with Content-Length."""
        self.drop_body()
        data = body.encode() if isinstance(body, str) else body
        lines = "".join(f"{header}\r\n" for header in headers)
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n{lines}\r\n".encode()
        self.send(head if self.method == "HEAD" else head + data)

    def _line(self) -> bytes:
        while b"\r\n" not in self.rest:
            self._more()
        line, _, self.rest = self.rest.partition(b"\r\n")
        return line

    def _exactly(self, count: int) -> Iterator[bytes]:
        while count:
            if not self.rest:
                self._more()
            piece, self.rest = self.rest[:count], self.rest[count:]
            count -= len(piece)
            yield piece

    def _more(self) -> None:
        piece = self.sock.recv(1 << 18)
        if not piece:
            raise ConnectionAbortedError
        self.rest += piece


Handler = Callable[["Backend", Request], None]


class Backend:
    """An upstream of the pool `pool`; `with Backend("blue") as blue: ... blue.url`."""

    def __init__(self, pool: str = "blue", *, unix: str | None = None) -> None:
        self.pool = pool
        self.healthy = True
        self.gate = threading.Event()  # what /wait and /stream wait for; `release` opens it
        self.counts: Counter[str] = Counter()  # requests by path, health checks apart
        self.requests: list[Request] = []
        self.connections = 0
        self.open: set[socket.socket] = set()
        self._handlers: dict[str, Handler] = dict(_PATHS)
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        if unix is None:
            self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
            self.port = self._listener.getsockname()[1]
            self.url = f"http://127.0.0.1:{self.port}"
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(unix)
            self._listener.listen(1024)
            self.port, self.url = 0, f"unix://{unix}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def total(self) -> int:
        """Requests so far, health checks apart."""
        return self.counts.total()

    def on(self, path: str, handler: Handler) -> None:
        """Have `handler` answer requests for `path`."""
        self._handlers[path] = handler

    def script(self, path: str, *pieces: bytes, close: bool = False) -> None:
        """Answer `path` with raw bytes, piece by piece."""

        def play(backend: Backend, request: Request) -> None:
            request.drop_body()
            for piece in pieces:
                request.send(piece)
            request.keep = not close

        self.on(path, play)

    def release(self) -> None:
        """Let everything that waits go on, now and from now on."""
        self.gate.set()

    def refuse(self) -> None:
        """Stop listening and cut what is open: connections are refused from now on."""
        # close() alone does not wake the thread in accept(), which would serve one more.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in list(self.open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it and all its threads."""
        self.gate.set()
        self.refuse()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name=f"backend {self.pool}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.connections += 1
                self.open.add(sock)
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        buffer = b""
        try:
            while True:
                while b"\r\n\r\n" not in buffer:
                    piece = sock.recv(65536)
                    if not piece:
                        return
                    buffer += piece
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                line, *lines = head.decode("latin-1").split("\r\n")
                method, target, _ = line.split(" ", 2)
                fields = [(name, value.strip()) for name, _, value in (each.partition(":") for each in lines)]
                request = Request(method, target, fields, sock, buffer, head + b"\r\n\r\n")
                self._answer(request)
                if not request.keep or (request.header("Connection") or "").lower() == "close":
                    return
                buffer = request.rest
        except OSError:
            return  # the client, or the test, has gone
        finally:
            with self._lock:
                self.open.discard(sock)
            sock.close()

    def _answer(self, request: Request) -> None:
        if request.path == "/health" or (request.header("User-Agent") or "").startswith("bgproxy-health/"):
            _health(self, request)
            return
        with self._lock:
            self.counts[request.path] += 1
            self.requests.append(request)
        self._handlers.get(request.path, _name)(self, request)


# --- what the paths do ----------------------------------------------------------------------------------------------


def _name(backend: Backend, request: Request) -> None:
    """Anything else: the pool's name."""
    request.answer(backend.pool, "200 OK", f"X-Pool: {backend.pool}")


def _health(backend: Backend, request: Request) -> None:
    request.answer(b"", "200 OK" if backend.healthy else "503 Service Unavailable")


def _wait(backend: Backend, request: Request) -> None:
    """Answers once the test opens the gate: a slow request of exactly the length that the test wants."""
    request.drop_body()
    backend.gate.wait(PATIENCE)
    _name(backend, request)


def _stream(backend: Backend, request: Request) -> None:
    """Server-sent events without end, until the gate opens: then a last one, "end", and the final chunk."""
    request.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    number = 0
    opened = False
    while not opened:
        number += 1
        _chunk(request, f"data: {backend.pool} {number}\n\n".encode())
        opened = backend.gate.wait(0.02)
    _chunk(request, b"data: end\n\n")
    _chunk(request, b"")


def _chunk(request: Request, data: bytes) -> None:
    request.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def _echo(backend: Backend, request: Request) -> None:
    """The body back, with what the head was."""
    request.answer(request.body(), "200 OK", f"X-Pool: {backend.pool}")


def _head(backend: Backend, request: Request) -> None:
    """The request's head as the upstream saw it."""
    request.drop_body()
    request.answer(request.raw)


def _upload(backend: Backend, request: Request) -> None:
    """Length and SHA-256 of the body, which is never held whole."""
    digest, length = hashlib.sha256(), 0
    for piece in request.pieces():
        digest.update(piece)
        length += len(piece)
    request.answer(f"{backend.pool} {length} {digest.hexdigest()}")


def _download(backend: Backend, request: Request) -> None:
    """`?bytes=N` bytes of a pattern that differs by pool; `&chunked=1` without a length."""
    left, chunked = int(request.query("bytes", "0")), bool(request.query("chunked"))
    block = pattern(backend.pool)
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {left}"
    request.send(f"HTTP/1.1 200 OK\r\n{framing}\r\nX-Pool: {backend.pool}\r\n\r\n".encode())
    while left:
        piece = block[:left]
        left -= len(piece)
        if chunked:
            _chunk(request, piece)
        else:
            request.send(piece)
    if chunked:
        _chunk(request, b"")


def pattern(pool: str) -> bytes:
    """One block of what /download sends; it is sent over and over, the last one cut."""
    return (f"{pool}:".encode() * 65536)[:65536]


def _status(backend: Backend, request: Request) -> None:
    """`?code=503`."""
    request.answer(b"", f"{request.query('code', '500')} Made to order")


def _reset(backend: Backend, request: Request) -> None:
    """RST instead of an answer."""
    request.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.keep = False


def _close(backend: Backend, request: Request) -> None:
    """FIN instead of an answer."""
    request.keep = False


def _half(backend: Backend, request: Request) -> None:
    """Half of a body, then the end."""
    request.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 500)
    request.keep = False


def _silent(backend: Backend, request: Request) -> None:
    """Never an answer; ends when the client does, or the test."""
    with contextlib.suppress(OSError):
        while request.sock.recv(65536):
            pass
    request.keep = False


def _websocket(backend: Backend, request: Request) -> None:
    """Echo of frames (RFC 6455, one frame a message), each text with the pool's name before it; answers Close with Close."""
    key = (request.header("Sec-WebSocket-Key") or "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
    request.send(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
    )
    request.keep = False

    def take(count: int) -> bytes:
        return b"".join(request._exactly(count))

    while True:
        first, second = take(2)
        length = second & 0x7F
        if length >= 126:
            length = int.from_bytes(take(2 if length == 126 else 8), "big")
        mask = take(4) if second & 0x80 else b"\0\0\0\0"
        data = bytes(byte ^ mask[index % 4] for index, byte in enumerate(take(length)))
        opcode = first & 0x0F
        if opcode == 1:
            data = f"{backend.pool}:".encode() + data
        size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")
        request.send(bytes([0x80 | (10 if opcode == 9 else opcode)]) + size + data)
        if opcode == 8:
            return


_PATHS: dict[str, Handler] = {
    "/wait": _wait,
    "/stream": _stream,
    "/echo": _echo,
    "/head": _head,
    "/upload": _upload,
    "/download": _download,
    "/status": _status,
    "/reset": _reset,
    "/close": _close,
    "/half": _half,
    "/silent": _silent,
    "/ws": _websocket,
}


# --- a server in a process of its own, for load ---------------------------------------------------------------------


@dataclass
class Server:
    """An aiohttp upstream in its own process: GET / answers the pool's name, GET /count how many it has answered."""

    pool: str
    url: str
    process: subprocess.Popen[bytes]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()


def start_aiohttp(pool: str) -> Server:
    """Start one and wait until it serves."""
    process = subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__)), pool],
        stdout=subprocess.PIPE,  # -P: http.py beside it is not Python's
    )
    assert process.stdout is not None
    port = int(process.stdout.readline())
    return Server(pool, f"http://127.0.0.1:{port}", process)


def _main(pool: str) -> None:
    import uvloop
    from aiohttp import web

    answered = 0

    async def name(request: web.Request) -> web.Response:
        nonlocal answered
        if not request.headers.get("User-Agent", "").startswith("bgproxy-health/"):
            answered += 1
        await request.read()
        return web.Response(text=pool, headers={"X-Pool": pool, "X-At": str(time.monotonic())})

    async def count(_: web.Request) -> web.Response:
        return web.Response(text=str(answered))

    app = web.Application()
    app.router.add_get("/count", count)
    app.router.add_route("*", "/{path:.*}", name)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()

    web.run_app(app, sock=listener, print=None, access_log=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    _main(sys.argv[1])
