"""The access log: one line of JSON a request, to standard output or a file, without ever holding up the loop.

Lines gather in memory and are written by the sweep. Before each piece the descriptor is asked whether it can take it;
a pipe that says so takes at least PIPE_BUF bytes without blocking (pipe(7)), unless another process fills it in between:
so pipes are opened for ourselves, and never block. What a stuck reader does not take is dropped, beyond a bound, and counted.
"""

from __future__ import annotations

import json
import os
import select
import stat
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from bgproxy.http1.request import printable
from bgproxy.logs import own_pipe

if TYPE_CHECKING:
    from bgproxy.proxy.client import ClientConnection
    from bgproxy.proxy.exchange import Exchange
    from bgproxy.proxy.tcp import Stream

STDOUT: Final = 1

_PIECE: Final = 4096  # PIPE_BUF on Linux
_SHORT_TARGET: Final = 1500  # what is kept of a target where its line would not fit a piece
_MOST_WAITING: Final = 4 * 1024 * 1024  # bytes
_PIECES_A_FLUSH: Final = 256


class AccessLog:
    """The access log of one worker; every worker appends to the same file, by lines."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.dropped = 0
        self._lines: list[bytes] = []
        self._waiting = 0
        self._left = b""
        self._fd = _opened(where)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)

    def write(self, exchange: Exchange, seconds: float) -> None:
        """Note an exchange that has ended."""
        client = exchange.client
        upstream = exchange.upstream
        self._add(
            {
                "time": datetime.fromtimestamp(time.time() - seconds, UTC).isoformat(timespec="milliseconds"),
                "service": exchange.service.name,
                "pool": exchange.pool.name,
                "upstream": upstream.id if upstream is not None else None,
                "client": client.peer,
                "method": printable(exchange.method),
                "target": printable(exchange.target, 8192),
                "host": printable(exchange.fields.host),
                "status": exchange.status,
                "duration_ms": round(seconds * 1000, 3),
                "bytes_in": exchange.bytes_in,
                "bytes_out": exchange.bytes_out,
                "request_id": printable(client.request_id()),
                "closed": client.closed_because or None,
            }
        )

    def write_stream(self, stream: Stream, seconds: float) -> None:
        """Note a connection in mode tcp that has ended."""
        upstream = stream.upstream
        self._add(
            {
                "time": datetime.fromtimestamp(time.time() - seconds, UTC).isoformat(timespec="milliseconds"),
                "service": stream.service.name,
                "pool": stream.pool.name,
                "upstream": upstream.id if upstream is not None else None,
                "client": stream.client.peer,
                "duration_ms": round(seconds * 1000, 3),
                "bytes_in": stream.bytes_in,
                "bytes_out": stream.bytes_out,
                "closed": stream.closed_because,
            }
        )

    def write_refused(self, client: ClientConnection, status: int, detail: str, request_id: bytes) -> None:
        """Note a request that was answered before it was anybody's."""
        self._add(
            {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "service": None,
                "pool": None,
                "upstream": None,
                "client": client.peer,
                "status": status,
                "detail": detail,
                "request_id": printable(request_id),
            }
        )

    def _add(self, entry: dict[str, object]) -> None:
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        if len(line) > _PIECE and "target" in entry:
            entry["target"] = str(entry["target"])[:_SHORT_TARGET] + "…"
            line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        if self._waiting + len(line) > _MOST_WAITING:
            self.dropped += 1
            return
        self._waiting += len(line)
        self._lines.append(line)

    def flush(self) -> None:
        """Write what waits, as far as the descriptor takes it now."""
        if self._lines:
            self._left += b"".join(self._lines)
            self._lines.clear()
        pieces = 0
        while self._left and pieces < _PIECES_A_FLUSH and self._writable():
            # Whole lines, as many as fit a piece: lines of several workers must not mix within one.
            # A piece without an end of line is written all the same: a longer one could block.
            end = self._left.rfind(b"\n", 0, _PIECE) + 1 or _PIECE
            try:
                written = os.write(self._fd, self._left[:end])
            except BlockingIOError:  # another process has just filled it
                return
            except OSError:
                self.dropped += self._left.count(b"\n")
                written = len(self._left)
            self._left = self._left[written:]
            self._waiting -= written
            pieces += 1

    def _writable(self) -> bool:
        return any(event & select.POLLOUT for _, event in self._poll.poll(0))

    def reopen(self) -> None:
        """Open the file anew, after it was rotated."""
        if self.where != "stdout":
            fd = _opened(self.where)
            self._poll.unregister(self._fd)
            os.close(self._fd)
            self._fd = fd
            self._poll.register(fd, select.POLLOUT)

    def close(self) -> None:
        """Write what can be written, and close."""
        self.flush()
        os.close(self._fd)


def _opened(where: str) -> int:
    """A descriptor of our own for it; never waits, neither here for a FIFO's reader nor later for room in a pipe.

    A FIFO is opened for reading too: so it can be opened before its reader is there, and outlives one that goes (fifo(7)).
    Where it must not be read, it needs its reader now. Raises OSError.
    """
    if where == "stdout":
        own = own_pipe(STDOUT)
        return os.dup(STDOUT) if own is None else own
    flags = os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
    with suppress(OSError):
        if stat.S_ISFIFO(os.stat(where).st_mode):  # noqa: PTH116
            return os.open(where, os.O_RDWR | flags)
    return os.open(where, os.O_WRONLY | os.O_CREAT | flags, 0o640)
