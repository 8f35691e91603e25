"""Connections that are opened and then left alone."""

from __future__ import annotations

import select
import socket
from types import TracebackType
from typing import Self

from bench.chatter import HELLO

GET = b"GET / HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: idle\r\nAccept: */*\r\n\r\n"


class Held:
    """Connections that have had one answer each, or have become WebSockets; closed at the end."""

    def __init__(self, port: int):
        self.port = port
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sock in self._sockets:
            sock.close()

    def more(self, count: int, *, websocket: bool = False) -> None:
        """Open so many, one after the other; `OSError` where one is refused."""
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", self.port), timeout=10)
            self._sockets.append(sock)
            sock.sendall(HELLO if websocket else GET)
            said = sock.recv(65536)
            while said and b"\r\n\r\n" not in said:
                said += sock.recv(65536)
            if not said.startswith(b"HTTP/1.1 101" if websocket else b"HTTP/1.1 200"):
                raise OSError(f"connection {len(self._sockets)}: {said[:200]!r}")

    def closed(self) -> int:
        """How many the proxy has closed by now."""
        poller = select.poll()
        known = {}
        for sock in self._sockets:
            known[sock.fileno()] = sock
            poller.register(sock, select.POLLIN)
        lost = 0
        for number, _ in poller.poll(0):
            try:
                lost += known[number].recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
            except OSError:
                lost += 1
        return lost
