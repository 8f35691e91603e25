"""TLS to upstreams, for both planes: what is trusted and shown, and what went wrong, in an operator's words.

The workers' connections and the health checks take their context from here, so that a check fails for the same reason
as a request would. Only who meets an `https://` upstream imports this module, and with it `ssl`.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeVar

from bgproxy.config.certificates import CertificateError, judge_authorities, judge_pair, load_pair
from bgproxy.config.schema import UpstreamTls

T = TypeVar("T")

#: Contexts that are kept. A pool needs one, and those with equal settings share it: some 20 KiB, and 1 MiB with the system's
#: authorities.
_MOST_CONTEXTS: Final = 512

# Names of RFC 9209 section 2.3 for what went wrong with TLS.
CERTIFICATE: Final = "tls_certificate_error"
PROTOCOL: Final = "tls_protocol_error"
ALERT: Final = "tls_alert_received"

#: By X509_V_ERR_* (openssl/x509_vfy.h); the others are told in OpenSSL's words.
_VERIFY: Final = {
    9: "certificate is not valid yet",
    10: "certificate has expired",
    18: "certificate is self-signed and not known here",
    19: "certificate's authority is not known here",
    20: "certificate's authority is not known here",
    21: "certificate's authority is not known here, or an intermediate certificate is missing",
    23: "certificate was revoked",
    62: "host name does not match",
    64: "host name does not match",  # the host is an IP address
}

#: Beginnings of `SSLError.reason` where the other side answers in another protocol than TLS.
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")

#: `SSLError.reason` of an alert that the other side has sent.
_ALERT: Final = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_)?([A-Z0-9_]+)")


# --- files ----------------------------------------------------------------------------------------------------------


def read_authorities(tls: UpstreamTls) -> bytes:
    """The content of `tls.ca`, judged good; empty if there is none. Raises `CertificateError` with part "ca"."""
    return _part({"client_ca": "ca"}, lambda: judge_authorities(tls.ca)) if tls.ca else b""


def read_pair(tls: UpstreamTls) -> tuple[bytes, bytes]:
    """The certificate and the key that upstreams are shown, judged good as of now; empty if there is none.

    Raises:
        CertificateError: they cannot be used, with part "cert" or "key".
    """
    if not tls.cert or not tls.key:
        return b"", b""
    pair = judge_pair(tls.cert, tls.key, time.time(), named=False)
    return pair.chain, pair.secret


def _part(names: dict[str, str], read: Callable[[], T]) -> T:
    """Have an error name the key of this configuration, not the listener's."""
    try:
        return read()
    except CertificateError as error:
        raise CertificateError(names.get(error.part, error.part), str(error)) from None


# --- contexts -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=_MOST_CONTEXTS)
def context_of(verify: bool, authorities: bytes, chain: bytes, secret: bytes) -> ssl.SSLContext:
    """A client's context: TLS 1.2 and up, HTTP/1.1 by ALPN. Without `authorities` (PEM) those of this machine hold.

    Raises:
        ssl.SSLError: the bytes are not what they were judged to be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and host name, unless told otherwise
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    # A certificate that `ca` names is trusted as it is: a server's own, or an intermediate. And what is trusted must not
    # depend on the version of Python (3.13 added a strictness of its own to its default context, not to this one).
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif authorities:
        context.load_verify_locations(cadata=authorities.decode("ascii", "ignore"))
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if chain:
        load_pair(context, chain, secret)
    return context


def has_trust_store() -> bool:
    """Whether this machine has authorities that a context without some of its own could trust."""
    where = ssl.get_default_verify_paths()
    return bool(where.cafile or where.capath)


# --- words ----------------------------------------------------------------------------------------------------------


def explain(error: BaseException, name: str) -> tuple[str, str]:
    """Why a connection with TLS failed: for an operator, and as RFC 9209 calls it. `name` is what the certificate is for.

    Of errors that are none of TLS the second is empty.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        text = _VERIFY.get(error.verify_code) or f"certificate is not accepted: {error.verify_message.lower()}"
        if error.verify_code in (62, 64):
            text += f": the certificate is not for {name}"
        return text, CERTIFICATE
    if isinstance(error, ssl.SSLEOFError):
        return "connection closed within TLS", PROTOCOL
    if isinstance(error, ssl.SSLError):
        return _of_tls(str(error.reason or ""))
    if isinstance(error, ConnectionError) and error.errno is None:  # asyncio's own, without the system's words
        return "connection closed within the TLS handshake", PROTOCOL
    return "", ""


def _of_tls(reason: str) -> tuple[str, str]:
    if reason.startswith(_NO_TLS):
        return "it does not speak TLS", PROTOCOL
    alert = _ALERT.fullmatch(reason)
    if alert is not None:
        return f"it refused TLS: {_words(alert[1])}", ALERT
    return f"TLS failed: {_words(reason) or 'without a reason'}", PROTOCOL


def _words(reason: str) -> str:
    return reason.lower().replace("_", " ")
