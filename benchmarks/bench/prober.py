"""Asks over kept connections which pool answers, one request after the other. Run: prober.py PORT CONNECTIONS PAUSE_US FILE.

Writes a line a request: when it was sent (seconds since the epoch), what came, and how many microseconds that took. What
came is the pool, `error` (no answer, or a bad one), or `closed` (the proxy had closed the connection while it idled;
nothing is lost by that, the time to open it anew is in the next line).
Ends at SIGTERM.
"""

from __future__ import annotations

import select
import signal
import socket
import sys
import time
from contextlib import suppress

GET = b"GET / HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: prober\r\nAccept: */*\r\n\r\n"


def ask(sock: socket.socket) -> str:
    """One request: the pool that the body names."""
    sock.sendall(GET)
    said = sock.recv(65536)
    while said and not said.endswith((b"blue\n", b"green\n", b"0\r\n\r\n")):
        piece = sock.recv(65536)
        if not piece:
            return "error"
        said += piece
    if not said.startswith(b"HTTP/1.1 200"):
        return "error"
    return "blue" if b"\nblue\n" in said else "green"


def idle_end(sock: socket.socket) -> bool:
    """Whether the other side has closed it, before anything is sent."""
    return bool(select.select((sock,), (), (), 0)[0])


def probe(port: int, connections: int, pause: float, lines: list[str]) -> None:
    """Until SIGTERM."""
    sockets: list[socket.socket | None] = [None] * connections
    number = 0
    while True:
        sock = sockets[number]
        if sock is not None and idle_end(sock):
            lines.append(f"{time.time():.6f} closed 0\n")
            sock.close()
            sock = None
        sent = time.time()
        try:
            if sock is None:
                sock = socket.create_connection(("127.0.0.1", port), timeout=5)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pool = ask(sock)
        except OSError:
            pool = "error"
        lines.append(f"{sent:.6f} {pool} {(time.time() - sent) * 1e6:.0f}\n")
        if pool == "error" and sock is not None:
            sock.close()
            sock = None
        sockets[number] = sock
        number = (number + 1) % connections
        time.sleep(max(0.0, sent + pause - time.time()))


def main() -> None:
    port, connections, pause, target = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) / 1e6, sys.argv[4]
    lines: list[str] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        probe(port, connections, pause, lines)
    with open(target, "w") as file:  # noqa: PTH123 - written once, at the end: nothing while it measures
        file.writelines(lines)


if __name__ == "__main__":
    main()
