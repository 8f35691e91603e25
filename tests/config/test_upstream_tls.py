"""What a context for upstreams is, and the words for what goes wrong with it."""

from __future__ import annotations

import errno
import ssl
from pathlib import Path

import pytest
from support.certificates import Authority

from bgproxy.config.certificates import CertificateError
from bgproxy.config.schema import UpstreamTls
from bgproxy.config.upstream_tls import ALERT, PROTOCOL, context_of, explain, read_authorities, read_pair


def test_it_verifies_unless_told_otherwise():
    """Chain and host name, TLS 1.2 and up."""
    context = context_of(True, b"", b"", b"")
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    insecure = context_of(False, b"", b"", b"")
    assert (insecure.verify_mode, insecure.check_hostname) == (ssl.CERT_NONE, False)


def test_equal_settings_share_a_context():
    """The authorities of a whole machine are read once."""
    assert context_of(True, b"", b"", b"") is context_of(True, b"", b"", b"")


def test_an_authority_of_ones_own_is_the_only_one():
    """The machine's do not hold beside it."""
    context = context_of(True, Authority().root.pem(), b"", b"")
    assert context.cert_store_stats()["x509"] == 1


def test_files_are_named_by_their_keys(tmp_path):
    """An error says which of `ca`, `cert` and `key` it is about; a client's certificate needs no names."""
    own = Authority().issue(tmp_path)
    assert read_pair(UpstreamTls(cert=own.cert, key=own.key))[1] == Path(own.key).read_bytes()
    with pytest.raises(CertificateError) as caught:
        read_authorities(UpstreamTls(ca=str(tmp_path / "x")))
    assert caught.value.part == "ca"
    assert read_authorities(UpstreamTls()) == b""


def failure(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, "x")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (failure("WRONG_VERSION_NUMBER"), ("it does not speak TLS", PROTOCOL)),
        (failure("TLSV13_ALERT_CERTIFICATE_REQUIRED"), ("it refused TLS: certificate required", ALERT)),
        (failure("SSLV3_ALERT_HANDSHAKE_FAILURE"), ("it refused TLS: handshake failure", ALERT)),
        (failure("TLSV1_UNRECOGNIZED_NAME"), ("it refused TLS: unrecognized name", ALERT)),
        (failure("NO_CIPHERS_AVAILABLE"), ("TLS failed: no ciphers available", PROTOCOL)),
        (ssl.SSLEOFError(8, "x"), ("connection closed within TLS", PROTOCOL)),
        (ConnectionResetError(), ("connection closed within the TLS handshake", PROTOCOL)),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), ("", "")),
    ],
    ids=repr,
)
def test_errors_in_words(error, expected):
    """An operator's, and those of RFC 9209; what is none of TLS is left to others."""
    assert explain(error, "a.test") == expected
