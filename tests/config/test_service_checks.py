"""Rules for services: what is allowed. What is not is in test_mistakes."""

from __future__ import annotations

import pytest

from bgproxy.config.loading import load_text
from bgproxy.config.schema import MAX_SERVICES
from bgproxy.errors import ConfigError


@pytest.mark.parametrize(
    "host", ["a", "shop.example.com", "*.example.com", "SHOP.example.com", "127.0.0.1", "[::1]", "my_app"]
)
def test_hosts(host):
    """Exact names, wildcards and addresses are hosts; they are kept lower-case."""
    config = load_text(f"pools: {{blue: {{upstreams: [http://a]}}}}\nmatch: {{hosts: ['{host}']}}\n", "f", {})
    assert config.services["default"].match.hosts == (host.lower(),)


def test_services_side_by_side():
    """Services differ by host or by path; the same path on another host is another route."""
    text = """
services:
  a: { match: { hosts: [x], path: /p }, pools: { blue: { upstreams: [http://a] } } }
  b: { match: { hosts: [y], path: /p }, pools: { blue: { upstreams: [http://a] } } }
  c: { match: { path: /p }, pools: { green: { upstreams: [http://a] } }, live: green }
  d: { match: { path: /pp }, pools: { blue: { upstreams: [http://a, http://a:81, "unix:///a"] } } }
"""
    assert list(load_text(text, "f", {}).services) == ["a", "b", "c", "d"]


def test_more_services_than_the_switchboard_holds():
    """A file with too many services is refused with the number that is allowed."""
    lines = [
        f"  s{n}: {{match: {{path: /{n}}}, pools: {{blue: {{upstreams: [http://a]}}}}}}"
        for n in range(MAX_SERVICES + 1)
    ]
    with pytest.raises(ConfigError, match=f"{MAX_SERVICES} are the most"):
        load_text("services:\n" + "\n".join(lines), "f", {})


def test_previews_can_be_turned_off():
    """An empty header or cookie turns that way of previewing off."""
    config = load_text("pools: {blue: {upstreams: [http://a]}}\npreview: {header: '', cookie: ''}\n", "f", {})
    assert (config.services["default"].preview.header, config.services["default"].preview.cookie) == ("", "")


def test_a_version_is_the_text_that_was_written():
    """A version that looks like a number keeps its zeros; one that is not a label is refused."""
    config = load_text("pools: {blue: {version: 1.10, upstreams: [http://a]}}", "f", {})
    assert config.services["default"].pools.blue.version == "1.10"
    for version in (r'"a\nb"', "x" * 129):
        with pytest.raises(ConfigError, match="write one line of at most 128"):
            load_text(f"pools: {{blue: {{version: {version}, upstreams: [http://a]}}}}", "f", {})


def test_a_health_path_may_have_a_query():
    """Checks may ask with a query, and escapes are kept."""
    config = load_text(
        "pools: {blue: {upstreams: [http://a]}}\nhealth: {path: '/h%20z?full=1&x=/', expect: '204, 300-301'}\n", "f", {}
    )
    assert config.services["default"].health.path == "/h%20z?full=1&x=/"
