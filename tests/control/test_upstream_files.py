"""What the files of a pool's `tls` hold, on its way to who connects."""

from __future__ import annotations

from pathlib import Path

from support.certificates import Authority

from bgproxy.config.schema import Config, Pool, Pools, Service, UpstreamTls
from bgproxy.control.upstream_files import all_of, tls_of
from bgproxy.model.snapshot import TlsSpec


def test_without_files_only_the_settings_are_carried():
    """Nothing is read; the dot of the root is no part of a name."""
    assert tls_of(UpstreamTls()) == TlsSpec()
    assert tls_of(UpstreamTls(insecure=True, server_name="a.test.")) == TlsSpec(verify=False, server_name="a.test")


def test_files_are_carried_by_their_content(tmp_path):
    """A renewed file makes another spec, though the settings are the same."""
    authority = Authority()
    own = authority.issue(tmp_path)
    settings = UpstreamTls(ca=authority.write(tmp_path), cert=own.cert, key=own.key)
    first = tls_of(settings)
    assert (first.authorities, first.secret) == (authority.root.pem(), Path(own.key).read_bytes())
    authority.issue(tmp_path)
    assert tls_of(settings) != first
    assert "PRIVATE" not in repr(first)


def test_what_cannot_be_used_is_told_in_the_spec(tmp_path):
    """A start has to go on: who would connect says why it cannot."""
    spec = tls_of(UpstreamTls(ca=str(tmp_path / "none.pem")))
    assert "does not exist" in spec.trouble


def test_every_service_has_two():
    """Blue first."""
    service = Service(pools=Pools(green=Pool(tls=UpstreamTls(server_name="g.test"))))
    assert all_of(Config(services={"a": service})) == {"a": (TlsSpec(), TlsSpec(server_name="g.test"))}
