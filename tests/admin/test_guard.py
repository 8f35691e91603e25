"""Web pages are kept out: Host and Origin."""

from __future__ import annotations

import pytest
from support.fake_controller import FakeController, config

from bgproxy.admin.app import make_app
from bgproxy.config.schema import Token


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:99", "127.0.0.1", "127.0.0.1:8900", "[::1]", "[::1]:8900", "127.3.2.1"]
)
async def test_loopback_hosts_are_known(api, host):
    """Names and literals of this machine, with any port: an ssh tunnel may end elsewhere."""
    async with api.get("/v1/status", headers={"Host": host}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8900", "localhost.evil.example", "192.0.2.1", "", "a b", "[::1", "@localhost@evil"],
)
async def test_another_host_is_403(api, controller, host):
    """A page whose name was made to point here gets nothing, neither reading nor changing."""
    async with api.get("/v1/status", headers={"Host": host}) as answer:
        assert answer.status == 403
        assert answer.content_type == "application/problem+json"
    async with api.post("/v1/services/shop/switch", headers={"Host": host}) as answer:
        assert answer.status == 403
    assert controller.calls == []


async def client_of(aiohttp_client, monkeypatch, *listen: str):
    monkeypatch.setenv("T", "t" * 20)
    controller = FakeController(config(listen=listen, tokens=(Token(name="t", role="admin", token_env="T"),)))
    headers = {"Authorization": "Bearer " + "t" * 20}
    return await aiohttp_client(make_app(controller, controller.config), headers=headers)


async def test_the_hosts_of_the_listeners_are_known(aiohttp_client, monkeypatch):
    """An address or a name that it is configured to listen on, and no other."""
    api = await client_of(aiohttp_client, monkeypatch, "192.0.2.1:8900", "bgproxy.internal:8900")
    for host, status in (("192.0.2.1:8900", 200), ("BGproxy.internal", 200), ("192.0.2.2", 403), ("evil.example", 403)):
        async with api.get("/v1/status", headers={"Host": host}) as answer:
            assert answer.status == status, host


async def test_on_every_address_tokens_stand_in_for_the_host(aiohttp_client, monkeypatch):
    """In a container the name is the network's to choose; a browser has no token to send."""
    api = await client_of(aiohttp_client, monkeypatch, "0.0.0.0:8900")
    async with api.get("/v1/status", headers={"Host": "bgproxy:8900"}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "https://evil.example", "null", "", "http://localhost:1", "file://"]
)
async def test_another_origin_is_403(api, controller, origin):
    """A page that posts here is refused."""
    async with api.post("/v1/services/shop/switch", headers={"Origin": origin}) as answer:
        assert answer.status == 403
    assert controller.calls == []


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8900", "http://localhost:8900"),
        ("localhost", "http://localhost:80"),
        ("localhost", "https://localhost"),
        ("[::1]:9", "http://[::1]:9"),
    ],
)
async def test_its_own_origin_is_fine(api, host, origin):
    """The dashboard is served from here."""
    async with api.post("/v1/services/shop/switch", headers={"Host": host, "Origin": origin}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "via", ["1.1 bgproxy", "1.1 bgproxy-1a2b3c4d", "1.1 edge, 1.0 bgproxy-00ff00ff", "HTTP/1.1 bgproxy, 1.1 other"]
)
async def test_what_came_through_a_data_listener_is_403(api, controller, via):
    """An upstream whose name turns out to be this API does not open it to everybody."""
    async with api.post("/v1/services/shop/switch", headers={"Via": via}) as answer:
        assert answer.status == 403
        assert "listener of bgproxy" in (await answer.json(content_type=None))["detail"]
    async with api.get("/v1/status", headers={"Via": via}) as answer:
        assert answer.status == 403
    assert controller.calls == []


@pytest.mark.parametrize("via", ["1.1 nginx", "1.1 bgproxyish", "1.1 not-bgproxy", "1.1 cdn (for bgproxy)", ""])
async def test_other_proxies_may_stand_before_it(api, via):
    """One that speaks TLS, say."""
    async with api.get("/v1/status", headers={"Via": via}) as answer:
        assert answer.status == 200
