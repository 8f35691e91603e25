"""An upgraded connection: bytes go both ways untouched, half-closes are followed, and a drain ends it politely.

For a WebSocket the frame boundaries are followed as well, so that at a drain's deadline both sides get a Close frame
between two frames (1012 service restart; 1001 going away when bgproxy itself stops) before the connection ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from bgproxy.model.connection import TUNNEL_STEPS, illegal
from bgproxy.proxy.frames import GOING_AWAY, SERVICE_RESTART, FrameTracker, close_frame

if TYPE_CHECKING:
    from bgproxy.proxy.client import ClientConnection
    from bgproxy.proxy.exchange import Exchange
    from bgproxy.proxy.upstream import UpstreamConnection

# model.connection.TunnelState and TunnelEvent, as constants (a test holds them equal).
OPEN: Final = 0
CLIENT_ENDED: Final = 1
SERVER_ENDED: Final = 2
RESTARTING: Final = 3
CLIENT_ANSWERED: Final = 4
SERVER_ANSWERED: Final = 5
OVER: Final = 6
CLIENT_END: Final = 0
SERVER_END: Final = 1
RESTART: Final = 2
CLIENT_ANSWER: Final = 3
SERVER_ANSWER: Final = 4
END: Final = 5

#: Seconds that both sides have to answer a Close frame, and a frame that is under way has to end.
GRACE: Final = 2.0
_CLIENT_UPGRADED: Final = 3  # client.UPGRADED


class Tunnel:
    """What goes on between a client and an upstream after 101."""

    def __init__(
        self, exchange: Exchange, client: ClientConnection, server: UpstreamConnection, protocol: bytes
    ) -> None:
        self.exchange = exchange
        self.client = client
        self.server = server
        websocket = protocol.lower() == b"websocket"
        self.to_server = FrameTracker() if websocket else None
        self.to_client = FrameTracker() if websocket else None
        self.state: int = OPEN
        self.code = 0  # of the Close frame that is to be sent
        # How far each direction is: its Close goes out between two frames, and nothing after it.
        self.told_client = False
        self.told_server = False

    def step(self, event: int) -> None:
        """Go to the next state by the table; an illegal event raises and changes nothing."""
        after = TUNNEL_STEPS[event * 7 + self.state]
        if after < 0:
            raise illegal("tunnel", self.state, event)
        self.state = after
        if after == OVER and event != END:
            self._close()

    def is_restarting(self) -> bool:
        """Whether both sides have been told to end: how long they may take for it is set."""
        return RESTARTING <= self.state <= SERVER_ANSWERED

    def begin(self, rest: bytes) -> None:
        """The tunnel is open; `rest` came behind the 101, and what the client sent ahead has waited for it."""
        client = self.client
        client.tunnel = self
        client.step(_CLIENT_UPGRADED)
        self._touch()
        if rest:
            self.server_data(rest)
        ahead = client.buffer
        client.buffer = b""
        if ahead and self.state != OVER:
            self.client_data(ahead)
        client.resume()
        if client.eof and self.state == OPEN:
            self.client_eof()  # it ended its side while the upgrade was asked for

    def _touch(self) -> None:
        context = self.client.context
        if self.state < RESTARTING:
            self.client.deadline = context.now + context.timeouts.stream_idle

    # --- bytes ------------------------------------------------------------------------------------------------------

    def client_data(self, data: bytes) -> None:
        """Bytes from the client."""
        self.exchange.body_in += len(data)
        self._touch()
        tracker = self.to_server
        if tracker is not None:
            if self.state >= RESTARTING:
                self._last_bytes(tracker, data, to_client=False)
                return
            tracker.feed(data)
        self.server.write(data)

    def server_data(self, data: bytes) -> None:
        """Bytes from the upstream."""
        self.exchange.bytes_out += len(data)
        self._touch()
        tracker = self.to_client
        if tracker is not None:
            if self.state >= RESTARTING:
                self._last_bytes(tracker, data, to_client=True)
                return
            tracker.feed(data)
        self.client.write(data)

    def client_eof(self) -> bool:
        """The client sends no more; the other direction goes on."""
        self.step(CLIENT_END)
        return self.state != OVER and self._pass_end(self.server.transport)

    def server_eof(self) -> bool:
        """The upstream sends no more; the other direction goes on."""
        self.step(SERVER_END)
        return self.state != OVER and self._pass_end(self.client.transport)

    def _pass_end(self, transport: Any) -> bool:
        """One side has ended: tell the other so; False if it cannot be told without ending it altogether."""
        if transport is None or transport.is_closing():
            return True
        if not transport.can_write_eof():  # TLS as asyncio knows it has no half-closes
            self.end()
            return False
        transport.write_eof()
        return True

    # --- the end ----------------------------------------------------------------------------------------------------

    def restart(self, *, going_away: bool = False) -> None:
        """End it from our side: politely if it is a WebSocket, else at once."""
        if self.state >= RESTARTING:
            return
        if not going_away:
            self.exchange.pool.cut[self.exchange.kind] += 1
            self.exchange.pool.dirty = True
        self.client.closed_because = "stopping" if going_away else "drain deadline"
        to_client = self.to_client
        to_server = self.to_server
        if to_client is None or to_server is None:
            self.end()
            return
        self.step(RESTART)
        self.code = GOING_AWAY if going_away else SERVICE_RESTART
        self.client.deadline = self.client.context.now + GRACE
        if to_client.boundary:
            self._tell_client()
        if to_server.boundary:
            self._tell_server()

    def _last_bytes(self, tracker: FrameTracker, data: bytes, *, to_client: bool) -> None:
        """While a Close is due: let the frame that is under way end, put the Close behind it, and no more after it."""
        if self.state == OVER:
            return
        told = self.told_client if to_client else self.told_server
        if told:
            other = self.to_server if to_client else self.to_client
            # What still comes from a side that we have told is its answer to our Close, or frames that it had sent
            # before: both are for a side that must not be sent anything after its own Close.
            tracker.feed(data)
            if tracker.closing and (other is None or other.closing or self._both_told()):
                self.step(SERVER_ANSWER if to_client else CLIENT_ANSWER)
            return
        if not tracker.head and 0 < tracker.left < len(data):
            data = data[: tracker.left]
        tracker.feed(data)
        if to_client:
            self.client.write(data)
            if tracker.boundary:
                self._tell_client()
        else:
            self.server.write(data)
            if tracker.boundary:
                self._tell_server()

    def _both_told(self) -> bool:
        return self.told_client and self.told_server

    def _tell_client(self) -> None:
        self.told_client = True
        if self.to_client is not None and not self.to_client.closing:
            self.client.write(close_frame(self.code, masked=False))

    def _tell_server(self) -> None:
        self.told_server = True
        if self.to_server is not None and not self.to_server.closing:
            self.server.write(close_frame(self.code, masked=True))

    def end(self) -> None:
        """Close both sides, once what was written is sent. Idempotent."""
        if self.state == OVER:
            return
        self.step(END)
        self._close()

    def _close(self) -> None:
        self.exchange.finish()
        self.client.close()
        self.server.close()
