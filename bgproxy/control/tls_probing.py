"""A health check over TLS: the question of `bgproxy.control.probing`, asked of an `https://` upstream.

TLS runs in memory between the socket and the question, so that one epoll watches these checks and the plain ones alike. Each
check shakes hands in full: one that took up an old session would never be shown the certificate, and not see it expire.
"""

from __future__ import annotations

import contextlib
import socket
import ssl

from bgproxy.config.addresses import host_of
from bgproxy.config.schema import Health
from bgproxy.config.upstream_tls import context_of, explain
from bgproxy.control.probing import MAX_HEAD, RESET, Probe, words
from bgproxy.model.snapshot import Address, TlsSpec


class TlsProbe(Probe):
    """How one `https://` upstream is asked. `prelude` is sent in the clear, before TLS begins."""

    __slots__ = ("_incoming", "_layer", "_name", "_outgoing", "_plain", "_shaken", "_tls")

    def __init__(
        self, key: str, url: str, address: Address, settings: Health, *, tls: TlsSpec, prelude: bytes = b""
    ) -> None:
        super().__init__(key, url, address, settings, prelude=prelude)
        self._name = tls.server_name or host_of(url)
        self._tls = tls
        self._forget()

    def _forget(self) -> None:
        self._layer: ssl.SSLObject | None = None
        self._incoming: ssl.MemoryBIO | None = None
        self._outgoing: ssl.MemoryBIO | None = None
        self._plain = b""
        self._shaken = False

    def beginning(self) -> bytes:
        """The hello of the handshake; the question comes once that is done. Raises `OSError`."""
        self._forget()
        tls = self._tls
        if tls.trouble:
            raise OSError(tls.trouble)
        context = context_of(tls.verify, tls.authorities, tls.chain, tls.secret)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._layer = context.wrap_bio(self._incoming, self._outgoing, server_hostname=self._name)
        with contextlib.suppress(ssl.SSLWantReadError):
            self._layer.do_handshake()
        return self._prelude + self._outgoing.read()

    def receive(self, connection: socket.socket, buffer: bytearray) -> bytes:
        """What has come of the answer. Raises `BlockingIOError` if that is nothing yet, and `OSError`."""
        incoming = self._incoming
        if incoming is None:
            raise BlockingIOError
        while len(self._plain) < MAX_HEAD:
            try:
                count = connection.recv_into(buffer)
            except BlockingIOError:
                break
            if not count:
                incoming.write_eof()
                self._go_on(connection)
                return self._plain
            incoming.write(memoryview(buffer)[:count])
            self._go_on(connection)
        if not self._plain:
            raise BlockingIOError
        return self._plain

    def _go_on(self, connection: socket.socket) -> None:
        """Take what has come through TLS, and send what TLS has to say to it."""
        layer, outgoing = self._layer, self._outgoing
        if layer is None or outgoing is None:
            return
        try:
            if not self._shaken:
                layer.do_handshake()
                self._shaken = True
                layer.write(self.request)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)  # as after a plain answer
            while len(self._plain) < MAX_HEAD and (piece := layer.read(MAX_HEAD)):
                self._plain += piece
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            if not self._plain:  # else the answer is there, and how the connection ends is nothing to us
                raise
        finally:
            self.unsent += outgoing.read()  # an alert, too: it tells the upstream's operator what we do not like
            if self.unsent:
                self.send(connection)

    def words(self, error: OSError) -> str:
        """Of TLS where it is its error, else the system's."""
        return explain(error, self._name)[0] or words(error)

    def release(self, connection: socket.socket) -> None:
        """Close, and let go of what TLS has kept: some 50 KiB."""
        connection.close()
        self._forget()
