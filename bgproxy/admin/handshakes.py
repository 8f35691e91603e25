"""Accepting over TLS: each client's handshake in a task of its own, with a deadline, and so many at a time.

A server of the event loop's own accepts without bound, and tells nobody of a connection before its handshake is done: a few
hundred that say nothing would take every descriptor of the controller, and the operator's would be the one without. Here
the newcomer is let in, and the oldest handshake goes.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Final

#: Seconds that a handshake may take.
HANDSHAKE_WITHIN: Final = 10.0
#: Connections that are accepted at one look at the socket; others have their turn between two.
BATCH: Final = 16
#: Seconds without accepting where there is no descriptor for another connection.
PAUSE: Final = 0.5

log = logging.getLogger("bgproxy.admin")


class Handshakes:
    """Accepts on `sock`, which stays its owner's, from `start` to `close`.

    `context` gives the TLS context of a new client, `protocol` its protocol once it has shaken hands; `most` says how many
    handshakes there may be at a time, and `evicted` is told of each that had to go for another.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: Callable[[], ssl.SSLContext],
        protocol: Callable[[], asyncio.BaseProtocol],
        *,
        most: Callable[[], int],
        evicted: Callable[[], None],
    ) -> None:
        self._sock = sock
        self._context = context
        self._protocol = protocol
        self._most = most
        self._evicted = evicted
        self._under_way: dict[asyncio.Task[None], None] = {}  # the oldest first
        self._tasks: set[asyncio.Task[None]] = set()  # those that had to go, too, until they have gone
        self._again: asyncio.TimerHandle | None = None
        self._closed = False

    def start(self) -> None:
        """Accept from now on."""
        self._sock.setblocking(False)
        asyncio.get_running_loop().add_reader(self._sock.fileno(), self._accept)

    async def close(self) -> None:
        """Accept no more, and end the handshakes; connections that stand are their protocols'. Idempotent."""
        if not self._closed:
            self._closed = True
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            if self._again is not None:
                self._again.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(BATCH):
            try:
                connection, _address = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            while len(self._under_way) >= max(self._most(), 1):
                oldest = next(iter(self._under_way))
                del self._under_way[oldest]
                oldest.cancel()
                self._evicted()
            connection.setblocking(False)
            task = asyncio.get_running_loop().create_task(self._shake(connection), name="admin: TLS handshake")
            self._under_way[task] = None
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, connection))

    def _ended(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._under_way.pop(task, None)
        self._tasks.discard(task)
        if task.cancelled():  # before it had begun, perhaps: nobody else would
            connection.close()

    async def _shake(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                self._protocol, connection, ssl=self._context(), ssl_handshake_timeout=HANDSHAKE_WITHIN
            )
        except OSError:  # `ssl.SSLError` and time-outs are such: it was told by an alert, or has gone
            connection.close()
        except Exception:
            connection.close()
            log.exception("a TLS connection to the admin API was lost")

    def _pause(self, error: OSError) -> None:
        """Nothing is left for another connection: let some go first, instead of asking without end."""
        log.warning("the admin API cannot accept a connection just now: %s", error.strerror or error)
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._sock.fileno())
        self._again = loop.call_later(PAUSE, self.start)
