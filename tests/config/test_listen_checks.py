"""Listeners: one text, a list, or mappings; what does not go together is refused, each with its own words."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.certificates import DAY, Authority

from bgproxy.config.loading import load_file, load_text
from bgproxy.config.schema import Certificate, Config, Listen, ListenTls
from bgproxy.errors import ConfigError, Mistake

POOLS = "pools: {blue: {upstreams: [http://127.0.0.1:9001]}, green: {}}\n"


@pytest.fixture(scope="module")
def authority():
    return Authority()


def mistakes(text: str) -> list[Mistake]:
    with pytest.raises(ConfigError) as caught:
        load_text(text + POOLS, "f", {})
    return caught.value.mistakes


@pytest.mark.parametrize(
    "text",
    [
        "listen: ':80'\n",
        "listen: [':80']\n",
        "listen: {address: ':80'}\n",
        "listen: [{address: ':80'}]\n",
        "listen:\n- address: ':80'\n  mode: http\n  redirect: off\n  proxy_protocol: off\n",
    ],
)
def test_the_ways_to_write_one_listener(text):
    """All mean the same."""
    assert load_text(text + POOLS, "f", {}).listen == (Listen(address=":80"),)


def test_texts_and_mappings_beside_each_other():
    """In the order of the file; without the key there is the default."""
    config = load_text("listen: [':80', {address: ':81', redirect: https}]\n" + POOLS, "f", {})
    assert config.listen == (Listen(address=":80"), Listen(address=":81", redirect=443))
    assert [str(listen) for listen in config.listen] == [":80", ":81"]
    assert load_text(POOLS, "f", {}).listen == Config().listen


@pytest.mark.parametrize(
    ("text", "line", "path", "message"),
    [
        ("listen: {adress: ':80'}\n", 1, "listen.adress", "did you mean address?"),
        ("listen:\n- {tls: {certificates: []}}\n", 2, "listen[0].address", "is missing: add it"),
        ("listen:\n- ':80'\n- {address: '*:80'}\n", 3, "listen[1].address", "already on line 2"),
        ("listen:\n- {address: localhost}\n", 2, "listen[0].address", "write localhost:8080"),
        ("listen: {address: ':80', mode: udp}\n", 1, "listen.mode", "write http or tcp"),
        ("listen: {address: ':80', redirect: on}\n", 1, "listen.redirect", "write off or https"),
        ("listen: {address: ':80', redirect: 'https:65536'}\n", 1, "listen.redirect", "write off or https"),
        ("listen: {address: 'unix:/a', redirect: 'https:8443'}\n", 1, "listen.redirect", "over a Unix socket"),
        (
            "listen: {address: ':80', tls: on}\n",
            1,
            "listen.tls",
            "write a mapping with the keys certificates, client_ca",
        ),
        ("listen: {address: ':80', tls: {certificates: []}}\n", 1, "listen.tls.certificates", "write at least one"),
        ("listen: {address: ':80', tls: {}}\n", 1, "listen.tls.certificates", "is missing"),
        (
            "listen: {address: ':80', tls: {certificates: [{cert: a}]}}\n",
            1,
            "listen.tls.certificates[0].key",
            "is missing",
        ),
        (
            "listen: {address: ':80', redirect: https, tls: {certificates: []}}\n",
            1,
            "listen.redirect",
            "nothing to redirect to",
        ),
        ("listen: {address: 'unix:/a', redirect: https}\n", 1, "listen.redirect", "over a Unix socket"),
        ("listen: {address: ':80', mode: tcp, service: default, redirect: https}\n", 1, "listen.redirect", "mode tcp"),
        ("listen:\n  address: ':80'\n  service: default\n", 3, "listen.service", "goes with mode: tcp only"),
        (
            "listen: {address: ':80', tls: {certificates: [], client_auth: optional}}\n",
            1,
            "listen.tls.client_auth",
            "needs client_ca",
        ),
        ("listen: {address: ':80', tls: {certificates: [], hsts: 1}}\n", 1, "listen.tls.hsts", "has no unit"),
        (
            "listen: {address: ':80', tls: {certificates: [], min_version: 1.1}}\n",
            1,
            "listen.tls.min_version",
            "write 1.2 or 1.3",
        ),
    ],
)
def test_mistakes(text, line, path, message):
    """Line, path, what is allowed."""
    found = {mistake.path: mistake for mistake in mistakes(text)}
    assert path in found, found
    assert found[path].line == line
    assert message in found[path].message


def write(folder: Path, tls: str) -> str:
    path = folder / "bgproxy.yaml"
    path.write_text(f"listen:\n  address: :443\n  tls:\n{tls}{POOLS}")
    return str(path)


def test_files_of_certificates_are_found_beside_the_configuration(authority, tmp_path):
    """Relative paths are the file's, and absolute afterwards; durations and defaults as anywhere."""
    authority.issue(tmp_path, "a.test", stem="a")
    authority.write(tmp_path)
    tls = "    certificates: [{cert: a.pem, key: a.key}]\n    client_ca: ca.pem\n    hsts: 1d\n"
    (listen,) = load_file(write(tmp_path, tls), {}).listen
    assert listen.tls == ListenTls(
        certificates=(Certificate(cert=str(tmp_path / "a.pem"), key=str(tmp_path / "a.key")),),
        client_ca=str(tmp_path / "ca.pem"),
        client_auth="require",
        min_version="1.2",
        hsts=86400.0,
    )


def test_what_is_wrong_with_files_stands_at_their_keys(authority, tmp_path):
    """Each pair has its own mistake; the same certificate twice is one."""
    authority.issue(tmp_path, "a.test", stem="a")
    authority.issue(tmp_path, "b.test", stem="b", not_before=-9 * DAY, not_after=-DAY)
    tls = (
        "    certificates:\n    - {cert: a.pem, key: a.key}\n    - {cert: a.pem, key: b.key}\n"
        "    - {cert: b.pem, key: b.key}\n    - {cert: c.pem, key: a.key}\n    client_ca: a.key\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_file(write(tmp_path, tls), {})
    found = [(mistake.line, mistake.path, mistake.message) for mistake in caught.value.mistakes]
    assert [(line, path) for line, path, _ in found] == [
        (6, "listen.tls.certificates[1].cert"),
        (7, "listen.tls.certificates[2].cert"),
        (8, "listen.tls.certificates[3].cert"),
        (9, "listen.tls.client_ca"),
    ]
    texts = [text for _, _, text in found]
    assert "listed already on line 5" in texts[0]
    assert "expired on" in texts[1]
    assert "does not exist" in texts[2]
    assert "no certificate" in texts[3]


def test_an_exposed_key_is_a_warning(authority, tmp_path):
    """The configuration is good all the same."""
    authority.issue(tmp_path, "a.test", stem="a")
    (tmp_path / "a.key").chmod(0o644)
    warnings: list[Mistake] = []
    load_file(write(tmp_path, "    certificates: [{cert: a.pem, key: a.key}]\n"), {}, warnings=warnings)
    assert [(warning.line, warning.path) for warning in warnings] == [(4, "listen.tls.certificates[0].key")]
    assert "every user of this machine" in warnings[0].message
