"""Certificates and private keys of listeners: read once, judged whole, and refused each with its own words.

What OpenSSL does not tell through the `ssl` module (names, dates, who issued what) is read from the certificate itself
(X.509, RFC 5280 section 4.1, in DER, ITU-T X.690): only what a plain reader can see, and nothing about it is trusted:
that key and certificate are a pair, and that both are sound, is OpenSSL's word.

The bytes that were judged are the bytes that go into force: a file that is replaced meanwhile cannot come between.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import re
import ssl
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

#: A chain with its intermediates has some 10 KiB; a file of authorities of a whole system less than 1 MiB.
MAX_BYTES: Final = 1024 * 1024

_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_BEGIN: Final = re.compile(rb"-----BEGIN [A-Z0-9 ]+-----")

_SUBJECT_ALT_NAME: Final = b"\x55\x1d\x11"  # 2.5.29.17
_BASIC_CONSTRAINTS: Final = b"\x55\x1d\x13"  # 2.5.29.19

_BOOLEAN: Final = 0x01
_UTC_TIME: Final = 0x17
_VERSION: Final = 0xA0
_EXTENSIONS: Final = 0xA3
_DNS_NAME: Final = 0x82
_IP_ADDRESS: Final = 0x87


class CertificateError(ValueError):
    """A certificate or a key that cannot be used; the text says why and what to do, `part` which of the two."""

    def __init__(self, part: str, message: str) -> None:
        self.part = part  # "cert", "key" or "client_ca", as in the configuration
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Details:
    """What a certificate says of itself."""

    names: tuple[str, ...]  # lower case: host names, `*.` wildcards, and IP addresses
    not_before: float  # seconds since 1970
    not_after: float
    subject: bytes  # DER
    issuer: bytes  # DER
    is_ca: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key that were judged good."""

    chain: bytes = field(repr=False)  # PEM
    secret: bytes = field(repr=False)  # PEM
    names: tuple[str, ...]
    not_before: float
    not_after: float


def judge_pair(cert: str, key: str, now: float, *, named: bool = True) -> Pair:
    """Read the files at `cert` and `key` and judge them as of `now` (seconds since 1970); `named`: for a server, which has names.

    Raises:
        CertificateError: they cannot be used.
    """
    chain = read(cert, "cert")
    secret = read(key, "key")
    certificates = _certificates(chain, cert, "cert")
    _judge_key_file(secret, key)
    leaf = certificates[0]
    _judge_order(certificates, cert)
    if now > leaf.not_after:
        raise CertificateError("cert", f"{cert} expired on {_day(leaf.not_after)}: renew it")
    if now < leaf.not_before:
        raise CertificateError(
            "cert",
            f"{cert} is not valid before {_day(leaf.not_before)}: use one that is, or check this machine's clock",
        )
    if named and not leaf.names:
        raise CertificateError(
            "cert", f"{cert} has no names (subjectAltName), so no client would take it: issue it for a host name"
        )
    try:
        load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), chain, secret)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CertificateError(
                "key", f"{key} is not the key of {cert}: name the key that this certificate was issued for"
            ) from None
        why = (error.reason or str(error)).lower().replace("_", " ")
        raise CertificateError("cert", f"OpenSSL refuses {cert} with {key} ({why}): have it issued anew") from None
    return Pair(chain, secret, leaf.names, leaf.not_before, leaf.not_after)


def judge_authorities(file: str) -> bytes:
    """Read the file of authorities at `file`: its content, PEM.

    Raises:
        CertificateError: it cannot be used.
    """
    content = read(file, "client_ca")
    _certificates(content, file, "client_ca")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=content.decode("ascii", "replace"))
    except ssl.SSLError as error:
        why = (error.reason or str(error)).lower().replace("_", " ")
        raise CertificateError("client_ca", f"OpenSSL refuses {file} ({why}): write it anew") from None
    return content


def exposure(key: str) -> str | None:
    """What is unwise about who may read the key at `key`; None if nothing is."""
    try:
        mode = Path(key).stat().st_mode
    except OSError:
        return None
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        return (
            f"{key} can be read or written by every user of this machine (mode {stat.S_IMODE(mode):04o}): chmod 0600 it"
        )
    return None


def load_pair(context: ssl.SSLContext, chain: bytes, secret: bytes) -> None:
    """Give `context` a certificate and its key out of memory; raises `ssl.SSLError`.

    OpenSSL takes them from a file only, hence one that is in memory alone (memfd_create(2)).
    """
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(chain + b"\n" + secret)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_no_password)
    finally:
        os.close(descriptor)


def _no_password() -> bytes:
    """Without it OpenSSL would ask at the terminal."""
    return b""


def read(file: str, part: str) -> bytes:
    """The content of a file; raises `CertificateError`. Never waits for who writes into a pipe."""
    try:
        with open(file, "rb", opener=_at_once) as opened:
            regular = stat.S_ISREG(os.fstat(opened.fileno()).st_mode)
            content = opened.read(MAX_BYTES + 1) if regular else b""
    except FileNotFoundError:
        raise CertificateError(part, f"{file} does not exist: write the path of a PEM file") from None
    except IsADirectoryError:
        raise CertificateError(part, f"{file} is a directory: name the PEM file in it") from None
    except OSError as error:
        raise CertificateError(
            part, f"{file} cannot be read ({error.strerror}): make it readable for the user that bgproxy runs as"
        ) from None
    except ValueError:
        raise CertificateError(part, f"{file!r} is not a path: write the path of a PEM file") from None
    if not regular:
        raise CertificateError(
            part, f"{file} is not a regular file, so it could not be read again: write the PEM into one"
        )
    if len(content) > MAX_BYTES:
        raise CertificateError(part, f"{file} is larger than {MAX_BYTES // 1024} KiB: is it the right file?")
    return content


def _at_once(file: str, flags: int) -> int:
    return os.open(file, flags | os.O_NONBLOCK)


# --- the judging ----------------------------------------------------------------------------------------------------


def _certificates(content: bytes, file: str, part: str) -> list[Details]:
    """All certificates of a file in their order."""
    blocks = _BLOCK.findall(content)
    if len(blocks) < len(_BEGIN.findall(content)):
        raise CertificateError(part, f"{file} is cut short: it has a BEGIN line without its END line; copy all of it")
    found: list[Details] = []
    for kind, text in blocks:
        if kind not in (b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"):
            continue
        try:
            found.append(details(base64.b64decode(text, validate=False)))
        except (ValueError, IndexError, binascii.Error):
            nth = len(found) + 1
            raise CertificateError(
                part, f"{file} is damaged: certificate {nth} in it cannot be read; copy it again"
            ) from None
    if not found:
        if any(kind.endswith(b"PRIVATE KEY") for kind, _ in blocks):
            raise CertificateError(part, f"{file} holds a private key and no certificate: name the certificate's file")
        raise CertificateError(
            part, f"{file} holds no certificate in PEM (-----BEGIN CERTIFICATE-----): convert it, or name another file"
        )
    return found


def _judge_key_file(secret: bytes, key: str) -> None:
    blocks = _BLOCK.findall(secret)
    if len(blocks) < len(_BEGIN.findall(secret)):
        raise CertificateError("key", f"{key} is cut short: it has a BEGIN line without its END line; copy all of it")
    keys = [(kind, text) for kind, text in blocks if kind.endswith(b"PRIVATE KEY")]
    if not keys:
        held = "a certificate and no private key" if blocks else "no private key in PEM (-----BEGIN PRIVATE KEY-----)"
        raise CertificateError("key", f"{key} holds {held}: name the key's file")
    if any(kind.startswith(b"ENCRYPTED") or b"ENCRYPTED" in text for kind, text in keys):
        raise CertificateError(
            "key",
            f"{key} is encrypted, and nobody is there to type its password: "
            "decrypt it (openssl pkey) into a file that only this user can read",
        )


def _judge_order(certificates: list[Details], file: str) -> None:
    """The server's own first, then each the issuer of the one before (RFC 8446 section 4.4.2)."""
    if certificates[0].is_ca and not all(each.is_ca for each in certificates):
        raise CertificateError(
            "cert", f"{file} begins with an authority's certificate: put the server's own first, then its intermediates"
        )
    for index in range(1, len(certificates)):
        if certificates[index - 1].issuer != certificates[index].subject:
            raise CertificateError(
                "cert",
                f"{file}: certificate {index + 1} did not issue certificate {index}: "
                "put the server's own first, then each behind the one that it issued, and nothing else",
            )


def _day(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"


# --- DER ------------------------------------------------------------------------------------------------------------


def details(der: bytes) -> Details:
    """What a certificate says of itself. Raises `ValueError` or `IndexError` if it is none."""
    _, start, end = _element(der, 0)
    _, start, end = _element(der, start)  # TBSCertificate
    parts = list(_children(der, start, end))
    if parts[0][0] == _VERSION:
        del parts[0]
    _, _, (_, issuer, issuer_end), (_, dates, dates_end), (_, subject, subject_end), _, *more = parts
    (first, *_), (last, *_) = times = list(_children(der, dates, dates_end))
    names: list[str] = []
    is_ca = False
    for tag, at, stop in more:
        if tag == _EXTENSIONS:
            _, at, stop = _element(der, at)  # noqa: PLW2901 - the sequence within
            for _, inner, inner_end in _children(der, at, stop):
                oid, *_, value = _children(der, inner, inner_end)
                name = der[oid[1] : oid[2]]
                if name == _SUBJECT_ALT_NAME:
                    names = _names(der, value[1])
                elif name == _BASIC_CONSTRAINTS:
                    _, first_at, first_end = _element(der, value[1])
                    inside = list(_children(der, first_at, first_end))
                    is_ca = bool(inside) and inside[0][0] == _BOOLEAN and der[inside[0][1]] != 0
    return Details(
        names=tuple(dict.fromkeys(names)),
        not_before=_moment(first, der[times[0][1] : times[0][2]]),
        not_after=_moment(last, der[times[1][1] : times[1][2]]),
        subject=der[subject:subject_end],
        issuer=der[issuer:issuer_end],
        is_ca=is_ca,
    )


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    """Tag, and where the content begins and ends, of the element at `at`."""
    tag, length, start = data[at], data[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(data[start : start + size], "big")
        start += size
    if start + length > len(data):
        raise ValueError("an element ends behind its data")
    return tag, start, start + length


def _children(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    while at < end:
        element = _element(data, at)
        yield element
        at = element[2]


def _names(data: bytes, at: int) -> list[str]:
    """The names of a subjectAltName that hosts go by (RFC 5280 section 4.2.1.6)."""
    _, start, end = _element(data, at)
    names: list[str] = []
    for tag, first, last in _children(data, start, end):
        if tag == _DNS_NAME:
            names.append(data[first:last].decode("ascii").lower().rstrip("."))
        elif tag == _IP_ADDRESS:
            names.append(str(ipaddress.ip_address(data[first:last])))
    return names


def _moment(tag: int, text: bytes) -> float:
    """Seconds since 1970 of a UTCTime or a GeneralizedTime (RFC 5280 section 4.1.2.5)."""
    digits = text.decode("ascii")
    if tag == _UTC_TIME:
        digits = ("19" if digits[:2] >= "50" else "20") + digits
    return datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
