"""TLS of the admin API: its certificate, read anew when its files change or a reload names others.

It is looked at when a client comes, so that nothing runs in between. New files that are not good change nothing: the log
says what is wrong with them, once, and the certificate in force stays.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from bgproxy.config.certificates import CertificateError, judge_authorities, judge_pair, load_pair
from bgproxy.config.schema import AdminTls
from bgproxy.errors import StartError

log = logging.getLogger("bgproxy.admin")

_Stamp = tuple[tuple[int, int, int], ...]


class Certificate:
    """What the API's TLS sockets show.

    Raises:
        StartError: the files that `settings` names cannot be used.
    """

    def __init__(self, settings: Callable[[], AdminTls]) -> None:
        self._settings = settings
        self._seen = self._look()
        try:
            self._current = make_context(self._seen[0])
        except CertificateError as error:
            raise StartError(f"admin.tls.{error.part}: {error}") from None

    def context(self) -> ssl.SSLContext:
        """For a new client's handshake. Another one after each renewal: what a session of before was let in by holds no more."""
        self.renew()
        return self._current

    def renew(self) -> None:
        """Take what the files are now, if they have changed and are good."""
        found = self._look()
        if found == self._seen:
            return
        self._seen = found
        try:
            self._current = make_context(found[0])
        except CertificateError as error:
            log.error("admin.tls.%s: %s; the certificate that is in force stays", error.part, error)  # noqa: TRY400
        else:
            log.info("the admin API has a new certificate from %s", found[0].cert)

    def _look(self) -> tuple[AdminTls, _Stamp]:
        settings = self._settings()
        return settings, tuple(_stamp(file) for file in (settings.cert, settings.key, settings.client_ca))


def make_context(settings: AdminTls) -> ssl.SSLContext:
    """A server's context by `settings`: TLS 1.2 and up, clients asked for a certificate where there is a `client_ca`.

    Raises:
        CertificateError: a file cannot be used.
    """
    pair = judge_pair(settings.cert, settings.key, time.time())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    load_pair(context, pair.chain, pair.secret)
    if settings.client_ca:
        context.load_verify_locations(cadata=judge_authorities(settings.client_ca).decode("ascii", "replace"))
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _stamp(file: str) -> tuple[int, int, int]:
    """What tells a file from the one that was there before: inode, size, nanoseconds of its last change."""
    try:
        found = Path(file).stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_size, found.st_mtime_ns)
