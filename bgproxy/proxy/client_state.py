"""Where a connection from a client stands: its state, what it waits for, whether it is read, and how it ends."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from bgproxy.http1.chunked import ChunkedBody
from bgproxy.model.connection import CLIENT_STEPS, illegal
from bgproxy.proxy.heads import Listener, RequestHeads

if TYPE_CHECKING:
    from bgproxy.proxy.context import Context
    from bgproxy.proxy.exchange import Exchange
    from bgproxy.proxy.tunnel import Tunnel

# model.connection.ClientState and ClientEvent, as constants (a test holds them equal).
IDLE: Final = 0
HEAD: Final = 1
BUSY: Final = 2
TUNNEL: Final = 3
LINGERING: Final = 4
CLOSED: Final = 5
BYTES: Final = 0
REQUEST: Final = 1
ANSWERED: Final = 2
UPGRADED: Final = 3
ENDING: Final = 4
LOST: Final = 5
EMPTY: Final = 6

#: Seconds for which an ended connection is still read, so that the client reads our answer and not a reset (9112 9.6).
LINGER: Final = 2.0

#: struct linger of socket(7): on, for no time at all; and off.
_RESET: Final = struct.pack("ii", 1, 0)
_NO_RESET: Final = struct.pack("ii", 0, 0)

# Why reading is paused; it goes on when no reason is left.
WAITS: Final = 1  # for a connection to the upstream, or with too much sent ahead
SERVER_FULL: Final = 2  # the upstream does not take the body as fast as it comes
THROTTLED: Final = 4  # it brings too many tiny chunks
UNREAD: Final = 8  # it leaves answers unread, so more requests must wait


class ClientState(RequestHeads):
    """What a client's connection is at, beside the head of its request."""

    tunnel: Tunnel | None = None
    closed_because: str = ""  # for the log: why it ended
    resets: bool = False  # it ends with a reset
    # The body of its request, while one comes.
    body_left: int = 0
    chunks: ChunkedBody | None = None
    chunks_since: float = 0.0  # CLOCK_MONOTONIC, from when on tiny chunks are counted

    def __init__(self, context: Context, listener: Listener) -> None:
        super().__init__(context, listener)
        self.transport: Any = None
        self.write: Callable[[bytes], None] = no_write
        self.state: int = IDLE
        self.buffer = b""
        self.exchange: Exchange | None = None
        self.deadline = 0.0
        self.paused = 0
        self.write_paused = False
        self.eof = False

    def __repr__(self) -> str:
        return f"<ClientConnection {self.peer} state={self.state} exchange={self.exchange!r}>"

    def step(self, event: int) -> None:
        """Go to the next state by the table; an illegal event raises and changes nothing."""
        after = CLIENT_STEPS[event * 6 + self.state]
        if after < 0:
            raise illegal("client connection", self.state, event)
        self.state = after

    # --- reading ----------------------------------------------------------------------------------------------------

    def pause(self, reason: int = WAITS) -> None:
        """Stop reading for a reason."""
        if not self.paused and self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()
        self.paused |= reason

    def resume(self, reason: int = WAITS) -> None:
        """The reason is gone; read on if no other is left."""
        if not self.paused:
            return
        self.paused &= ~reason
        if not self.paused and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def server_full(self) -> None:
        """The upstream takes no more of the body for now."""
        self.pause(SERVER_FULL)

    def server_ready(self) -> None:
        """The upstream takes more of the body: the client has all its time for it again."""
        if self.paused == SERVER_FULL and self.deadline > 0.0:
            self.deadline = self.context.now + self.context.timeouts.stream_idle
        self.resume(SERVER_FULL)

    # --- the end ----------------------------------------------------------------------------------------------------

    def linger(self) -> None:
        """Send nothing more, and read what still comes, so that no reset overtakes the answer (RFC 9112 section 9.6)."""
        self.step(ENDING)
        self.buffer = b""
        self.chunks = None
        self.deadline = self.context.now + LINGER
        if self.paused:
            self.paused = WAITS
            self.resume()
        # uvloop cannot close one direction of TLS; the client knows the answer's length.
        if self.transport is not None and not self.transport.is_closing() and not self.listener.secure:
            self.transport.write_eof()

    def close(self) -> None:
        """End the connection, once what was written is sent; there is a deadline for that, too. Idempotent."""
        if self.transport is not None and not self.transport.is_closing():
            self.deadline = self.context.give_up
            self.transport.close()

    def end_by_reset(self, yes: bool) -> None:
        """Whether the connection, however it ends from now on, ends with a reset: where its end would be the end of the answer.

        By the socket, so that it holds when this process is killed, too.
        """
        self.resets = yes
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        if sock is not None:
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET if yes else _NO_RESET)
            except OSError:
                return  # it is gone already

    def is_ending(self) -> bool:
        """Whether it was closed by us, and what was written is still on its way."""
        return self.transport is not None and bool(self.transport.is_closing())

    def abort(self) -> None:
        """End the connection now; what was not sent is lost."""
        if self.transport is not None:
            self.transport.abort()


def no_write(data: bytes) -> None:
    """Nowhere to write to: the connection has ended, or has not begun."""
