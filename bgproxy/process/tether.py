"""The controller's end of its leash: what the supervisor says, and what is said to it.

The supervisor's end is `bgproxy.process.leash`; the messages are in `bgproxy.switchboard.wiring`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final

log = logging.getLogger("bgproxy.controller")

_CHUNK: Final = 65536
_MOST_DESCRIPTORS: Final = 64  # in one read; the kernel never puts two messages' descriptors into one


class Tether:
    """Reads the leash from `start` to `stop`, in the running loop.

    `heard` is called with each message, and the socket that came with it or None; `ended` once the supervisor has gone.
    """

    def __init__(
        self,
        leash: socket.socket,
        heard: Callable[[dict[str, Any], socket.socket | None], None],
        ended: Callable[[], None],
    ) -> None:
        leash.setblocking(False)
        self._leash = leash
        self._heard = heard
        self._ended = ended
        self._received = bytearray()
        self._handed: deque[int] = deque()  # descriptors that came, in the order of their messages
        self._unsent = bytearray()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to read."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._leash.fileno(), self._read)

    def stop(self) -> None:
        """Read and write no more. Idempotent."""
        if self._loop is not None:
            self._loop.remove_reader(self._leash.fileno())
            self._loop.remove_writer(self._leash.fileno())
            self._loop = None

    def say(self, message: dict[str, object]) -> None:
        """Send a message, now or as soon as the supervisor reads."""
        self._unsent += json.dumps(message).encode() + b"\n"
        self._write()

    def _write(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._leash.send(self._unsent)]
        except BlockingIOError:
            if self._loop is not None:
                self._loop.add_writer(self._leash.fileno(), self._write)
            return
        except OSError:  # the supervisor has gone; reading tells of it
            self._unsent.clear()
        if self._loop is not None:
            self._loop.remove_writer(self._leash.fileno())

    def _read(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._leash, _CHUNK, _MOST_DESCRIPTORS)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        self._handed += descriptors
        if not data:
            self.stop()
            self._ended()
            return
        *lines, rest = (bytes(self._received) + data).split(b"\n")
        self._received[:] = rest
        for line in lines:
            message = json.loads(line)
            # A line is cut nowhere but behind its descriptor, which goes with its first byte.
            handover = socket.socket(fileno=self._handed.popleft()) if "link" in message and self._handed else None
            self._heard(message, handover)
