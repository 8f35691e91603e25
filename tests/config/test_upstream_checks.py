"""Mistakes in the `tls` of pools, and what is allowed but unwise."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from support.certificates import Authority

from bgproxy.config import upstream_checks
from bgproxy.config.loading import load_file
from bgproxy.config.schema import UpstreamTls
from bgproxy.errors import ConfigError, Mistake

FILE = "pools:\n  blue:\n    upstreams: [https://app.test]\n    tls: {TLS}\n"


def load(folder: Path, tls: str) -> tuple[UpstreamTls, list[Mistake]]:
    file = folder / "f.yaml"
    file.write_text(FILE.replace("{TLS}", "{ " + tls + " }"))
    warnings: list[Mistake] = []
    return load_file(str(file), {}, warnings=warnings).services["default"].pools.blue.tls, warnings


@pytest.fixture
def folder(tmp_path):
    """With an authority, a pair for a client, and files that are wrong in one way each."""
    authority = Authority()
    authority.write(tmp_path)
    authority.issue(tmp_path, stem="own")
    authority.issue(tmp_path, stem="other")
    authority.issue(tmp_path, stem="old", not_before=timedelta(days=-2), not_after=timedelta(days=-1))
    authority.issue(tmp_path, stem="locked", password=b"secret")
    (tmp_path / "empty.pem").write_text("")
    return tmp_path


def test_files_beside_the_configuration(folder):
    """Relative paths are relative to it."""
    tls, warnings = load(folder, "ca: ca.pem, cert: own.pem, key: own.key, server_name: app.internal")
    assert (tls.ca, tls.cert) == (str(folder / "ca.pem"), str(folder / "own.pem"))
    assert warnings == []


@pytest.mark.parametrize(
    ("tls", "path", "message"),
    [
        ("ca: none.pem", "ca", "does not exist"),
        ("ca: empty.pem", "ca", "holds no certificate"),
        ("ca: .", "ca", "is a directory"),
        ("cert: own.pem", "cert", "needs key"),
        ("key: own.key", "key", "needs cert"),
        ("cert: own.pem, key: other.key", "key", "is not the key of"),
        ("cert: old.pem, key: old.key", "cert", "expired on"),
        ("cert: locked.pem, key: locked.key", "key", "is encrypted"),
        ("insecure: true, ca: ca.pem", "ca", "has no effect beside insecure"),
        ("server_name: 'a:443'", "server_name", "is not a host name"),
        ("verify: false", "verify", "is not a key that is known here"),
    ],
)
def test_a_mistake_has_its_path_and_a_remedy(folder, tls, path, message):
    """Before anything depends on it."""
    with pytest.raises(ConfigError) as caught:
        load(folder, tls)
    (mistake,) = caught.value.mistakes
    assert (mistake.path, mistake.line) == (f"pools.blue.tls.{path}", 4)
    assert message in mistake.message


def test_insecure_is_said_and_warned_of(folder):
    """It is allowed, and nobody can say not to have known."""
    tls, (warning,) = load(folder, "insecure: true")
    assert tls.insecure
    assert "upstreams are not verified" in warning.message


def test_a_key_for_everybody_is_warned_of(folder):
    """Whoever can read it can be us."""
    (folder / "own.key").chmod(0o644)
    _, (warning,) = load(folder, "cert: own.pem, key: own.key")
    assert warning.path == "pools.blue.tls.key"


def test_a_machine_without_a_trust_store_is_warned_of(folder, monkeypatch):
    """Nothing could be verified there without an authority of one's own."""
    monkeypatch.setattr(upstream_checks, "has_trust_store", lambda: False)
    assert len(load(folder, "server_name: a.test")[1]) == 1
    assert load(folder, "ca: ca.pem")[1] == []
