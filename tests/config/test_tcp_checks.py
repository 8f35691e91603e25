"""Listeners in mode tcp, the PROXY protocol, and the services behind them: what is allowed, and what is refused with the reason."""

from __future__ import annotations

import pytest

from bgproxy.config.loading import load_text
from bgproxy.errors import ConfigError

DB = "  db: {pools: {blue: {upstreams: [tcp://a:5432]}, green: {upstreams: [tcp://b:5432, 'unix:///run/db.sock']}}}\n"
SHOP = "  shop: {pools: {blue: {upstreams: [http://a:1]}}}\n"
TCP = "listen: [{address: ':5432', mode: tcp, service: db}]\n"
BOTH = "listen: [':80', {address: ':5432', mode: tcp, service: db}]\n"


def db(extra: str) -> str:
    """The tcp service with something more in it."""
    return f"  db: {{pools: {{blue: {{upstreams: [tcp://a:1]}}}}, {extra}}}\n"


def mistakes(text: str) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        load_text(text, "f", {})
    return [(mistake.path, mistake.message) for mistake in caught.value.mistakes]


def test_a_tcp_service_beside_one_of_http():
    """Each listener leads to its own; upstreams of a tcp service are tcp:// or Unix sockets."""
    config = load_text(BOTH + "services:\n" + DB + SHOP, "f", {})
    assert config.tcp_services() == {"db"}
    assert [(listen.mode, listen.service) for listen in config.listen] == [("http", None), ("tcp", "db")]


def test_the_only_service_need_not_be_named():
    """With one service a listener in mode tcp leads to it, named or not; also in the short form."""
    for text in (
        "listen: {address: ':1', mode: tcp}\nservices:\n" + DB,
        "listen: {address: ':1', mode: tcp}\npools: {blue: {upstreams: [tcp://a:1]}}\n",
        "listen: {address: ':1', mode: tcp, service: default}\npools: {blue: {upstreams: [tcp://a:1]}}\n",
    ):
        config = load_text(text, "f", {})
        assert config.tcp_services() == set(config.services)


def test_two_listeners_may_lead_to_one_service():
    """A service may have more than one listener in mode tcp."""
    text = "listen: [{address: ':1', mode: tcp}, {address: 'unix:/run/x.sock', mode: tcp}]\nservices:\n" + DB
    assert load_text(text, "f", {}).tcp_services() == {"db"}


def test_checks_of_http_go_with_a_tcp_service():
    """`health.type: http` allows a path and statuses: many a server has an HTTP port that is the same."""
    config = load_text(TCP + "services:\n" + db("health: {type: http, path: /ready, expect: 200}"), "f", {})
    assert config.services["db"].health.path == "/ready"


#: name: (text, path, a part of the message)
CASES = {
    "no service named where there are two": (
        "listen: [':80', {address: ':1', mode: tcp}]\nservices:\n" + DB + SHOP,
        "listen[1]",
        "one of them (db, shop)",
    ),
    "an unknown service": (
        TCP.replace("db", "bd") + "services:\n" + DB,
        "listen[0].service",
        "there is no service 'bd'",
    ),
    "a service without mode tcp": (
        "listen: [{address: ':80', service: db}]\nservices:\n" + SHOP,
        "listen[0].service",
        "goes with mode: tcp only",
    ),
    "an unknown mode": ("listen: {address: ':1', mode: udp}\nservices:\n" + DB, "listen.mode", "http or tcp"),
    "hosts": (TCP + "services:\n" + db("match: {hosts: [a]}"), "services.db.match", "no hosts and paths"),
    "cookies": (TCP + "services:\n" + db("sessions: {mode: cookie}"), "services.db.sessions.mode", "needs HTTP"),
    "a preview": (TCP + "services:\n" + db("preview: {header: X}"), "services.db.preview", "none in mode tcp"),
    "a pool's name": (TCP + "services:\n" + db("expose_pool: true"), "services.db.expose_pool", "no responses"),
    "a path to check": (TCP + "services:\n" + db("health: {path: /x}"), "services.db.health.path", "type: http"),
    "statuses to check": (
        TCP + "services:\n" + db("health: {type: tcp, expect: 200}"),
        "services.db.health.expect",
        "type: http",
    ),
    "TLS to upstreams": (
        TCP + "services:\n" + DB.replace("[tcp://a:5432]", "[tcp://a:5432], tls: {insecure: true}"),
        "services.db.pools.blue.tls",
        "remove tls",
    ),
    "http upstreams": (
        TCP + "services:\n" + DB.replace("tcp://a", "http://a"),
        "services.db.pools.blue.upstreams[0]",
        "write tcp://a:5432",
    ),
    "tcp upstreams of an http service": (
        BOTH + "services:\n" + DB + SHOP.replace("http://", "tcp://"),
        "services.shop.pools.blue.upstreams[0]",
        "write http://a:1",
    ),
    "no port": (
        TCP + "services:\n" + DB.replace("a:5432", "a"),
        "services.db.pools.blue.upstreams[0]",
        "has no port",
    ),
    "an http listener with nothing behind it": (BOTH + "services:\n" + DB, "listen[0]", "every service is a tcp one"),
    "a service without a listener": (TCP + "services:\n" + DB + SHOP, "services.shop", "no listener leads to it"),
    "nobody is trusted": (
        "listen: {address: ':80', proxy_protocol: on}\nservices:\n" + SHOP,
        "listen.proxy_protocol",
        "needs trusted_proxies",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_mistakes(name):
    """Each is one mistake, at its place, with what to do."""
    text, path, message = CASES[name]
    found = mistakes(text)
    assert [where for where, _ in found] == [path]
    assert message in found[0][1]


def test_the_proxy_protocol_goes_with_everything():
    """With trusted proxies, over a Unix socket without them, and in mode tcp."""
    text = (
        "listen: [{address: ':80', proxy_protocol: on}, {address: ':1', mode: tcp, service: db, proxy_protocol: on}]\n"
    )
    config = load_text("trusted_proxies: [10.0.0.0/8]\n" + text + "services:\n" + DB + SHOP, "f", {})
    assert [listen.proxy_protocol for listen in config.listen] == ["on", "on"]
    unix = "listen: {address: 'unix:/run/x.sock', proxy_protocol: on}\nservices:\n" + SHOP
    assert load_text(unix, "f", {}).listen[0].proxy_protocol == "on"
