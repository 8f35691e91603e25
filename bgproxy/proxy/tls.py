"""TLS on listeners: the contexts, the choice of a certificate by SNI, handshakes and how many failed.

Imported where a listener has `tls` only, and `ssl` with it. The settings are those of Mozilla's Server Side TLS
guidelines, version 5.7, profile "intermediate" (https://wiki.mozilla.org/Security/Server_Side_TLS): TLS 1.2 and 1.3, in
1.2 forward secrecy with AEAD only, the client's order of ciphers, no compression. Its DHE ciphers are left out: whoever
speaks 1.2 speaks ECDHE. Renegotiation is refused. Session tickets are OpenSSL's; each worker has keys of its own for
them, so a session is resumed where a client meets the same worker again.

**Renewal.** The context that a listening socket has never changes. It owns no certificate; for each ClientHello it
hands over to the context of the certificate that is in force at that moment. Connections that are there keep what
they have, and none is closed.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from bgproxy.config.certificates import load_pair
from bgproxy.switchboard import layout

if TYPE_CHECKING:
    from bgproxy.config.schema import Listen, ListenTls
    from bgproxy.model.snapshot import CertificateSpec, ProxySpec
    from bgproxy.proxy.context import Context

log = logging.getLogger("bgproxy.worker")

#: Of TLS 1.2; those of 1.3 are all good, and OpenSSL's defaults are Mozilla's.
CIPHERS: Final = ":".join(
    f"ECDHE-{signature}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for signature in ("ECDSA", "RSA")
)

#: Fields that say who a client is by its certificate; only we may say so (RFC 9440 section 2.4).
CLIENT_CERT_NAMES: Final = frozenset({b"client-cert", b"client-cert-chain"})

#: Bytes that wait in the clear for a client that reads slowly, as without TLS; what is encrypted waits behind them. The mark
#: of uvloop is 512 KiB.
WAITING: Final = 64 * 1024

#: Seconds for which a closed connection waits for the client's close_notify: most clients never send one.
SHUTDOWN: Final = 1.0


class Names:
    """The names of a certificate: what Host may say on a connection that it was served on."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.exact = frozenset(_host_bytes(name) for name in names if not name.startswith("*."))
        self.below = frozenset(name[1:].encode() for name in names if name.startswith("*."))

    def hold(self, hostname: bytes) -> bool:
        """Whether one of them is `hostname`, as in `RequestFields.hostname`; a wildcard is one label (RFC 9525 6.3)."""
        if hostname in self.exact:
            return True
        dot = hostname.find(b".")
        return dot > 0 and hostname[dot:] in self.below


def _host_bytes(name: str) -> bytes:
    return f"[{name}]".encode() if ":" in name else name.encode()


class Served(ssl.SSLContext):
    """The context of one certificate."""

    names: Names


class Listening:
    """One listener's TLS: the context that its socket has, and those of its certificates."""

    def __init__(self, tls: ListenTls, *, http: bool) -> None:
        self._tls = tls
        self._http = http
        self._default: Served | None = None
        self._exact: dict[str, Served] = {}
        self._below: dict[str, Served] = {}  # by what follows the star
        self._made: dict[str, tuple[CertificateSpec, bytes | None, Served]] = {}  # by the certificate's file
        self.context = self._make(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self.context.sni_callback = self._choose

    def _make(self, context: ssl.SSLContext) -> ssl.SSLContext:
        tls = self._tls
        context.minimum_version = ssl.TLSVersion.TLSv1_3 if tls.min_version == "1.3" else ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        if self._http:
            context.set_alpn_protocols(["http/1.1"])
        if tls.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED if tls.client_auth == "require" else ssl.CERT_OPTIONAL
        return context

    def take(self, certificates: dict[str, CertificateSpec], authorities: dict[str, bytes]) -> None:
        """Have these in force for the handshakes to come. A certificate that is not among them stays as it is."""
        ca = authorities.get(self._tls.client_ca) if self._tls.client_ca is not None else None
        for each in self._tls.certificates:
            spec = certificates.get(each.cert)
            known = self._made.get(each.cert)
            if known is not None:
                spec = spec or known[0]
                ca = ca or known[1]
            if spec is None or (self._tls.client_ca is not None and ca is None):
                continue  # nobody is let in unasked because the file that says whom to ask cannot be read
            if known is None or known[:2] != (spec, ca):
                try:
                    self._made[each.cert] = (spec, ca, self._serve(spec, ca))
                except (ssl.SSLError, OSError) as error:
                    log.error("certificate %s: %s; the old one stays", each.cert, error)  # noqa: TRY400
        self._arrange()

    def _serve(self, spec: CertificateSpec, ca: bytes | None) -> Served:
        made = cast("Served", self._make(Served(ssl.PROTOCOL_TLS_SERVER)))
        made.names = Names(spec.names)
        load_pair(made, spec.chain, spec.secret)
        if ca is not None:
            made.load_verify_locations(cadata=ca.decode("ascii", "replace"))
        return made

    def _arrange(self) -> None:
        """Which name is whose: of several certificates for one, the first; and the first of all where none is."""
        self._exact.clear()
        self._below.clear()
        self._default = None
        for each in self._tls.certificates:
            if each.cert in self._made:
                spec, _, context = self._made[each.cert]
                self._default = self._default or context
                for name in spec.names:
                    if name.startswith("*."):
                        self._below.setdefault(name[1:], context)
                    else:
                        self._exact.setdefault(name, context)

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        """For each ClientHello: the certificate for the name that was asked for."""
        chosen = self._default
        if name:
            asked = name.lower().rstrip(".")
            chosen = self._exact.get(asked) or self._below.get(asked[max(asked.find("."), 0) :]) or self._default
        if chosen is None:
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        connection.context = chosen
        if isinstance(connection, ssl.SSLObject):
            connection.asked = bool(name)  # type: ignore[attr-defined] # for `spoken_for`
        return None


class Tls:
    """The TLS of all listeners of a worker."""

    def __init__(self, context: Context, listens: list[Listen]) -> None:
        self._context = context
        self._by_listen = {
            listen: Listening(listen.tls, http=listen.mode == "http") for listen in listens if listen.tls is not None
        }

    def take(self, proxy: ProxySpec) -> None:
        """Certificates have come: they hold from the next handshake on."""
        certificates = {spec.cert: spec for spec in proxy.certificates}
        authorities = dict(proxy.client_cas)
        for listening in self._by_listen.values():
            listening.take(certificates, authorities)

    def context_of(self, listen: Listen) -> ssl.SSLContext:
        """What `create_server` gets."""
        return self._by_listen[listen].context

    def counting(self, factory: Callable[[], Any], listen: Listen) -> Callable[[], asyncio.Protocol]:
        """A factory of protocols for connections whose handshake begins; those of `factory` come once it has succeeded."""
        context = self._context
        http = listen.mode == "http"
        return lambda: Handshake(context, factory, http=http)


#: Seconds by which uvloop may end a handshake before its time: its timers count from when the loop last looked at the clock.
EARLY: Final = 0.05


class Handshake(asyncio.Protocol):
    """Stands in for a connection's protocol until its handshake has succeeded.

    uvloop does not tell of one that fails: it lets go of the protocol, and that is when it is counted.
    """

    __slots__ = ("_begun", "_context", "_factory", "_http")

    def __init__(self, context: Context, factory: Callable[[], Any], *, http: bool) -> None:
        self._context = context
        self._factory: Callable[[], Any] | None = factory
        self._http = http
        self._begun = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake has succeeded."""
        factory, self._factory = self._factory, None
        if factory is None:
            return
        protocol = factory()
        transport.set_protocol(protocol)
        cast("asyncio.WriteTransport", transport).set_write_buffer_limits(high=WAITING)
        if self._http:
            protocol.names = spoken_for(transport)
            protocol.client_cert = client_cert(transport)
        protocol.connection_made(transport)

    def __del__(self) -> None:
        if self._factory is not None:
            late = time.monotonic() - self._begun >= self._context.timeouts.header - EARLY
            self._context.cells[layout.W_TLS_TIMEOUTS if late else layout.W_TLS_FAILED] += 1


def spoken_for(transport: asyncio.BaseTransport) -> Names | None:
    """The names that Host may say on a connection; None where the client asked for no name, and so cannot have missed it."""
    connection = transport.get_extra_info("ssl_object")
    if not getattr(connection, "asked", False):
        return None
    names: Names | None = getattr(getattr(connection, "context", None), "names", None)
    return names


def client_cert(transport: asyncio.BaseTransport) -> bytes:
    """The line that tells upstreams which certificate a client has shown, and proved to be its own; else nothing.

    A byte sequence of the certificate in DER (RFC 9440 section 2.2; RFC 8941 section 3.3.5). Certificates that do not
    lead to `client_ca` have not come so far: their handshake failed.
    """
    connection = transport.get_extra_info("ssl_object")
    der = None if connection is None else connection.getpeercert(binary_form=True)
    return b"Client-Cert: :%b:\r\n" % base64.b64encode(der) if der else b""
