"""The supervisor's end of a leash: lines of JSON to and from one child, which may be stuck.

The supervisor must never wait for a child, so what the socket does not take at once is kept here. What is kept is
bounded by construction: a message has a key, and a newer one of the same key replaces the older, which nobody needs any more.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any, Final

#: A child that says more than this without a line's end has gone mad; a pickled configuration is the longest line.
LONGEST_LINE: Final = 64 * 1024 * 1024

_CHUNK: Final = 65536


class Leash:
    """One child's leash, non-blocking. `wants_write` says whether something is kept back."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.ended = False  # the child has gone, or has closed its end
        self._kept: dict[str, tuple[bytes, socket.socket | None]] = {}
        self._rest = b""  # of a line that has begun to go out; it must be finished, whatever comes
        self._received = bytearray()

    @property
    def wants_write(self) -> bool:
        """Whether `flush` should be called once the socket is writable."""
        return bool(self._rest or self._kept) and not self.ended

    def say(
        self, key: str, message: Mapping[str, object], handover: socket.socket | None = None, drops: str = ""
    ) -> None:
        """Send `message`, and `handover` with it, now or as soon as the child reads. `handover` is closed here after.

        An unsent message with the same `key`, or with the key `drops`, is forgotten.
        """
        for stale in (key, drops):
            former = self._kept.pop(stale, None)
            if former is not None and former[1] is not None:
                former[1].close()
        self._kept[key] = (json.dumps(message).encode() + b"\n", handover)
        self.flush()

    def flush(self) -> None:
        """Send what was kept back, as far as the socket takes it."""
        try:
            while not self.ended:
                if self._rest:
                    self._rest = self._rest[self.sock.send(self._rest) :]
                elif self._kept:
                    key, (line, handover) = next(iter(self._kept.items()))
                    # The descriptor goes with the first byte; the rest of a line that was cut follows without it.
                    sent = socket.send_fds(self.sock, [line], [handover.fileno()] if handover else [])
                    self._rest = line[sent:]
                    del self._kept[key]
                    if handover is not None:
                        handover.close()
                else:
                    return
        except BlockingIOError:
            return
        except OSError:  # EPIPE, ECONNRESET: the child has gone, and SIGCHLD tells of it
            self.ended = True

    def receive(self) -> list[dict[str, Any]]:
        """The messages that have come. After the child's end of file, `ended` is set."""
        try:
            while not self.ended:
                data = self.sock.recv(_CHUNK)
                if not data or len(self._received) > LONGEST_LINE:
                    self.ended = True
                self._received += data
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True
        *lines, rest = bytes(self._received).split(b"\n") if self._received else [b""]
        self._received[:] = rest
        messages = []
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                continue  # half a line of a child that was killed
            if isinstance(message, dict):
                messages.append(message)
        return messages

    def close(self) -> None:
        """Close the socket and what was never handed over. Idempotent."""
        self.ended = True
        for _, handover in self._kept.values():
            if handover is not None:
                handover.close()
        self._kept.clear()
        self.sock.close()
