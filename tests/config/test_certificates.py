"""Certificates and keys: each fault is refused with its own words, and what is good is read as it is."""

from __future__ import annotations

import os
import ssl
import time
from datetime import timedelta
from pathlib import Path

import pytest
from support.certificates import DAY, Authority, Files, replace

from bgproxy.config.certificates import (
    CertificateError,
    details,
    exposure,
    judge_authorities,
    judge_pair,
    load_pair,
)


@pytest.fixture(scope="module")
def authority():
    return Authority()


def judge(files: Files, now: float | None = None):
    return judge_pair(files.cert, files.key, time.time() if now is None else now)


def refusal(files: Files, now: float | None = None) -> CertificateError:
    with pytest.raises(CertificateError) as caught:
        judge(files, now)
    return caught.value


def test_a_good_pair_is_read_as_it_is(authority, tmp_path):
    """Names in lower case, wildcards and addresses among them, and the dates."""
    pair = judge(authority.issue(tmp_path, "Shop.Test", "*.api.test", "127.0.0.1", "::1"))
    assert pair.names == ("shop.test", "*.api.test", "127.0.0.1", "::1")
    assert pair.not_before == pytest.approx(time.time() - 86400, abs=60)
    assert pair.not_after == pytest.approx(time.time() + 30 * 86400, abs=60)
    assert pair.chain == Path(tmp_path / "site.pem").read_bytes()


def test_what_is_read_is_what_openssl_reads(authority, tmp_path):
    """The dates, to the second, of an early and of a late one (UTCTime and GeneralizedTime), and issuer and subject."""
    files = authority.issue(tmp_path, "a.test", not_after=timedelta(days=366 * 40))
    leaf, end, _ = Path(files.cert).read_text().partition("-----END CERTIFICATE-----")
    made = details(ssl.PEM_cert_to_DER_cert(f"{leaf}{end}\n"))
    context = ssl.create_default_context(cadata=authority.root.pem().decode())
    known = context.get_ca_certs()[0]
    root = details(context.get_ca_certs(binary_form=True)[0])
    assert root.not_after == ssl.cert_time_to_seconds(known["notAfter"])
    assert root.not_before == ssl.cert_time_to_seconds(known["notBefore"])
    assert (root.is_ca, made.is_ca) == (True, False)
    assert root.issuer == root.subject != made.issuer
    assert made.not_after == pytest.approx(time.time() + 366 * 40 * 86400, abs=60)


def test_expired(authority, tmp_path):
    """A certificate that has expired says when, and that it is to be renewed."""
    error = refusal(authority.issue(tmp_path, "a.test", not_before=-10 * DAY, not_after=-DAY))
    assert (error.part, "expired on" in str(error), "renew it" in str(error)) == ("cert", True, True)


def test_not_yet_valid(authority, tmp_path):
    """A certificate of the future; the clock may be the one that is wrong."""
    error = refusal(authority.issue(tmp_path, "a.test", not_before=DAY))
    assert (error.part, "is not valid before" in str(error), "clock" in str(error)) == ("cert", True, True)


def test_the_key_of_another_certificate(authority, tmp_path):
    """The mistake is the key's, and names both files."""
    one, other = authority.issue(tmp_path, "a.test"), authority.issue(tmp_path, "b.test", stem="other")
    error = refusal(Files(one.cert, other.key))
    assert error.part == "key"
    assert f"{other.key} is not the key of {one.cert}" in str(error)


@pytest.mark.parametrize("part", ["cert", "key"])
def test_truncated(authority, tmp_path, part):
    """A file that was cut short, at any place within its last block."""
    files = authority.issue(tmp_path, "a.test")
    path = getattr(files, part)
    whole = Path(path).read_bytes()
    last = whole.rindex(b"-----BEGIN") + 30
    for end in range(last, len(whole) - 2, 17):
        replace(path, whole[:end])
        error = refusal(files)
        assert (error.part, "cut short" in str(error)) == (part, True)


def test_damaged(authority, tmp_path):
    """What stands between the lines is no certificate."""
    files = authority.issue(tmp_path, "a.test")
    replace(files.cert, b"-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUQ\n-----END CERTIFICATE-----\n")
    assert "certificate 1 in it cannot be read" in str(refusal(files))


def test_authority_first(authority, tmp_path):
    """The leaf must come first."""
    files = authority.issue(tmp_path, "a.test")
    leaf, between = [b"-----BEGIN" + each for each in Path(files.cert).read_bytes().split(b"-----BEGIN")[1:]]
    replace(files.cert, between + leaf)
    assert "begins with an authority's certificate: put the server's own first" in str(refusal(files))


def test_wrong_order(authority, tmp_path):
    """Each certificate is issued by the next; the root at the end is allowed, though nobody needs it."""
    files = authority.issue(tmp_path, "a.test")
    chain = Path(files.cert).read_bytes()
    replace(files.cert, chain + authority.root.pem())
    judge(files)
    leaf = b"-----BEGIN" + chain.split(b"-----BEGIN")[1]
    replace(files.cert, leaf + authority.root.pem() + authority.between.pem())
    assert "certificate 2 did not issue certificate 1" in str(refusal(files))


def test_no_names(authority, tmp_path):
    """A certificate without subjectAltName serves nobody."""
    assert "has no names" in str(refusal(authority.issue(tmp_path)))


def test_encrypted_key(authority, tmp_path):
    """Nobody can type a password for a daemon; it does not wait for one either."""
    error = refusal(authority.issue(tmp_path, "a.test", password=b"secret"))
    assert (error.part, "is encrypted" in str(error)) == ("key", True)


def test_files_that_are_not_there_or_not_what_they_should_be(authority, tmp_path):
    """Each with its own words."""
    files = authority.issue(tmp_path, "a.test")
    nowhere = str(tmp_path / "nowhere")
    assert "does not exist" in str(refusal(Files(nowhere, files.key)))
    assert refusal(Files(files.cert, nowhere)).part == "key"
    assert "is a directory" in str(refusal(Files(str(tmp_path), files.key)))
    assert "holds a private key and no certificate" in str(refusal(Files(files.key, files.key)))
    assert "holds a certificate and no private key" in str(refusal(Files(files.cert, files.cert)))
    Path(nowhere).write_text("hello")
    assert "holds no certificate in PEM" in str(refusal(Files(nowhere, files.key)))
    assert "holds no private key in PEM" in str(refusal(Files(files.cert, nowhere)))
    Path(nowhere).write_bytes(bytes(2 * 1024 * 1024))
    assert "larger than 1024 KiB" in str(refusal(Files(nowhere, files.key)))


@pytest.mark.timeout(10)
@pytest.mark.parametrize("part", ["cert", "key"])
def test_a_pipe_is_not_waited_for(authority, tmp_path, part):
    """Whoever is to write into it may never come, and a renewal would find nothing in it."""
    files = authority.issue(tmp_path, "a.test")
    file = Path(getattr(files, part))
    file.unlink()
    os.mkfifo(file)
    error = refusal(files)
    assert (error.part, "is not a regular file" in str(error)) == (part, True)


def test_unreadable(authority, tmp_path, monkeypatch):
    """Who may not read a file is told so."""
    files = authority.issue(tmp_path, "a.test")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    error = refusal(files)
    monkeypatch.undo()
    assert "cannot be read (Permission denied): make it readable" in str(error)


def test_a_key_that_others_can_read(authority, tmp_path):
    """Unwise, not wrong: a warning; readable by its group is how it is often done."""
    files = authority.issue(tmp_path, "a.test")
    assert exposure(files.key) is None
    Path(files.key).chmod(0o640)
    assert exposure(files.key) is None
    Path(files.key).chmod(0o644)
    assert "every user of this machine (mode 0644)" in (exposure(files.key) or "")
    assert exposure(str(tmp_path / "nowhere")) is None


def test_key_and_certificate_in_one_file(authority, tmp_path):
    """As HAProxy has it: the same file may be named for both."""
    files = authority.issue(tmp_path, "a.test")
    Path(files.key).write_bytes(Path(files.key).read_bytes() + Path(files.cert).read_bytes())
    assert judge(Files(files.key, files.key)).names == ("a.test",)


def test_authorities(authority, tmp_path):
    """A file of authorities is read whole, or refused."""
    path = authority.write(tmp_path)
    assert judge_authorities(path) == authority.root.pem()
    replace(path, authority.root.pem()[:-20])
    with pytest.raises(CertificateError, match="cut short") as caught:
        judge_authorities(path)
    assert caught.value.part == "client_ca"


def test_a_pair_is_loaded_out_of_memory(authority, tmp_path):
    """Without a file, and nothing is left open."""
    pair = judge(authority.issue(tmp_path, "a.test"))
    before = len(list(Path("/proc/self/fd").iterdir()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_pair(context, pair.chain, pair.secret)
    assert context.cert_store_stats()["x509"] == 0
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x03\x30\x01\x00", bytes(64)])
def test_what_is_no_certificate(der):
    """Rubbish is a `ValueError` or an `IndexError`, never something else."""
    with pytest.raises((ValueError, IndexError)):
        details(der)
