"""Listeners with `proxy_protocol: on`: whoever connects is a proxy, and says first whom it speaks for.

The header comes before everything else, a TLS handshake too, so it is read from the bare socket: looked at (MSG_PEEK), and
only what belongs to it is taken. What follows is left in the socket for the transport that is then made of it, with TLS
or without. The connection behind it is the same as on any other listener, but for the address of its peer: nothing
there knows of this file, and listeners without the PROXY protocol pay nothing for it.

Only peers in `trusted_proxies` are listened to, since the header decides what is logged, counted and allowed by address;
who connects to a Unix socket is trusted by the permissions of its file. Everybody else is closed, and so is who sends
something else, or is late (`timeouts.header`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from bgproxy.proxy.proxy_protocol import Announced, HeaderDecoder, HeaderError

if TYPE_CHECKING:
    from bgproxy.proxy.context import Context

log = logging.getLogger("bgproxy.worker")

#: Connections that are accepted in one stretch.
_AT_ONCE: Final = 64
#: Bytes that are looked at in one go: more than most headers have.
_LOOK: Final = 4096
#: Seconds between two lines in the log about connections that were refused.
_LOG_EVERY: Final = 10.0


class Introduced:
    """A transport whose peer is who the header says; all else is the transport's own."""

    def __init__(self, transport: asyncio.BaseTransport, announced: Announced) -> None:
        self._transport = transport
        self._announced = announced

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As the transport's, but for the two addresses."""
        if name == "peername":
            return self._announced.source
        if name == "sockname":
            return self._announced.destination
        return self._transport.get_extra_info(name, default)


class _Introduction(asyncio.Protocol):
    """Stands in for a protocol until its connection is made, and hands it the transport with the announced address."""

    def __init__(self, protocol: asyncio.Protocol, announced: Announced) -> None:
        self._protocol = protocol
        self._announced = announced

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.set_protocol(self._protocol)
        self._protocol.connection_made(cast("asyncio.Transport", Introduced(transport, self._announced)))


class _Stranger:
    """A connection of which the header is not complete; `deadline` is CLOCK_MONOTONIC in seconds."""

    __slots__ = ("deadline", "decoder", "peer", "sock")

    def __init__(self, sock: socket.socket, peer: str, deadline: float) -> None:
        self.sock = sock
        self.peer = peer
        self.deadline = deadline
        self.decoder = HeaderDecoder()


class IntroducedServer:
    """Accepts from a listening socket, which it owns, and makes connections of those that introduce themselves well.

    `factory` makes the protocol of a connection; `tls` is what `connect_accepted_socket` is to know of TLS, if anything.
    """

    def __init__(
        self,
        context: Context,
        listener: socket.socket,
        factory: Callable[[], asyncio.Protocol],
        tls: dict[str, Any],
    ) -> None:
        self._context = context
        self._listener = listener
        self._factory = factory
        self._tls = tls
        self._unix = listener.family == socket.AF_UNIX
        self._strangers: dict[int, _Stranger] = {}  # by descriptor, in the order in which they came
        self._accepting = False
        self._closed = False
        self._refused = 0  # since the last line in the log
        self._last_refusal = ""
        self._quiet_until = 0.0

    def start(self) -> None:
        """Accept from now on."""
        self._listener.setblocking(False)
        self._context.loop.add_reader(self._listener.fileno(), self._accept)
        self._accepting = True

    def close(self) -> None:
        """Accept nobody any more, and forget those who have not introduced themselves. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._accepting:
            self._context.loop.remove_reader(self._listener.fileno())
        self._listener.close()
        for stranger in list(self._strangers.values()):
            self._drop(stranger)
        self._tell()

    def sweep(self, now: float) -> None:
        """End those who are late; say in the log, now and then, who was refused. Called every tenth of a second."""
        for stranger in list(self._strangers.values()):
            if stranger.deadline > now:
                break  # those behind it came later
            self._refuse(stranger.peer, "no PROXY header within timeouts.header")
            self._drop(stranger)
        if not self._accepting and not self._closed:
            self.start()
        if self._refused and now >= self._quiet_until:
            self._quiet_until = now + _LOG_EVERY
            self._tell()

    # --- who comes --------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        context = self._context
        for _ in range(_AT_ONCE):
            try:
                sock, address = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue  # it has gone already
            except OSError:  # no descriptor is left: the sweep begins again
                context.loop.remove_reader(self._listener.fileno())
                self._accepting = False
                return
            peer = "" if self._unix else str(address[0])
            if context.full() and not context.make_room():
                context.refused += 1
                sock.close()
            elif not self._unix and not context.trusted.holds(peer):
                self._refuse(peer, "it is not in trusted_proxies")
                sock.close()
            else:
                self._listen_to(sock, peer)

    def _listen_to(self, sock: socket.socket, peer: str) -> None:
        context = self._context
        sock.setblocking(False)
        stranger = self._strangers[sock.fileno()] = _Stranger(sock, peer, context.now + context.timeouts.header)
        context.waiting += 1
        context.loop.add_reader(sock.fileno(), self._read, stranger)

    def _read(self, stranger: _Stranger) -> None:
        sock = stranger.sock
        try:
            seen = sock.recv(_LOOK, socket.MSG_PEEK)
            if not seen:
                self._drop(stranger)  # a balancer that only looked whether somebody listens, perhaps
                return
            announced = stranger.decoder.feed(seen)
            sock.recv(stranger.decoder.used)  # what has been looked at is there
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._drop(stranger)
            return
        except HeaderError as error:
            self._refuse(stranger.peer, str(error))
            self._drop(stranger)
            return
        if announced is not None:
            context = self._context
            self._forget(stranger)
            context.own(context.loop.create_task(self._introduce(sock, announced), name="introduce"))

    async def _introduce(self, sock: socket.socket, announced: Announced) -> None:
        """Make the connection."""
        try:
            await self._context.loop.connect_accepted_socket(lambda: self._protocol(announced), sock, **self._tls)
        except OSError:  # it has gone, or the handshake failed
            sock.close()

    def _protocol(self, announced: Announced) -> asyncio.Protocol:
        protocol = self._factory()
        return protocol if announced.source is None else _Introduction(protocol, announced)

    # --- who goes ---------------------------------------------------------------------------------------------------

    def _forget(self, stranger: _Stranger) -> None:
        """It waits no more; its socket stays open."""
        self._context.waiting -= 1
        del self._strangers[stranger.sock.fileno()]
        self._context.loop.remove_reader(stranger.sock.fileno())

    def _drop(self, stranger: _Stranger) -> None:
        self._forget(stranger)
        stranger.sock.close()

    def _refuse(self, peer: str, why: str) -> None:
        self._context.unintroduced += 1
        self._refused += 1
        self._last_refusal = f"{peer or 'a Unix peer'}: {why}"

    def _tell(self) -> None:
        if self._refused:
            log.warning(
                "proxy_protocol: %d connections were closed without a good PROXY header, the last from %s",
                self._refused,
                self._last_refusal,
            )
            self._refused = 0
