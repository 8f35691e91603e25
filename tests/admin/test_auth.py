"""Tokens and roles."""

from __future__ import annotations

import logging
import os
from dataclasses import replace

import pytest
from support.fake_controller import FakeController, config

from bgproxy.admin import auth
from bgproxy.admin.app import ENDPOINTS, make_app
from bgproxy.admin.auth import Authority, host_of, is_local, read_token
from bgproxy.config.schema import Admin, Token
from bgproxy.errors import StartError

TEXTS = {"viewer": "v" * 20, "operator": "o" * 20, "admin": "a" * 20}


@pytest.fixture
def controller(tmp_path, monkeypatch):
    """With a token a role: one in a file, two in the environment."""
    file = tmp_path / "token"
    file.write_text(TEXTS["viewer"] + "\n")
    monkeypatch.setenv("OPERATOR", TEXTS["operator"])
    monkeypatch.setenv("ADMIN", TEXTS["admin"])
    tokens = (
        Token(name="grafana", role="viewer", token_file=str(file)),
        Token(name="ci", role="operator", token_env="OPERATOR"),
        Token(name="root", role="admin", token_env="ADMIN"),
    )
    return FakeController(config(tokens=tokens))


def bearer(role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TEXTS[role]}"}


CALLS = [
    ("GET", "/v1/status", None, "viewer"),
    ("GET", "/v1/services", None, "viewer"),
    ("GET", "/v1/services/shop", None, "viewer"),
    ("GET", "/v1/history", None, "viewer"),
    ("GET", "/metrics", None, "viewer"),
    ("POST", "/v1/services/shop/switch", {"to": "green"}, "operator"),
    ("POST", "/v1/switch", {"services": {"shop": "green"}}, "operator"),
    ("PUT", "/v1/services/shop/pools/green", {"version": "3"}, "operator"),
    ("PUT", "/v1/services/shop/pools/green/upstreams/127.0.0.1:9002/state", {"state": "drain"}, "operator"),
    ("GET", "/v1/services/shop/deployments", None, "viewer"),
    ("GET", "/v1/deployments/1", None, "viewer"),
    ("POST", "/v1/services/shop/deployments", {"version": "3"}, "operator"),
    ("POST", "/v1/deployments/1/approve", {}, "operator"),
    ("POST", "/v1/deployments/1/abort", {}, "operator"),
    ("POST", "/v1/reload", {}, "admin"),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0]} {call[1]}")
async def test_a_call_takes_its_role_or_a_higher_one(api, controller, call):
    """Without a token 401, with too low a role 403, else it is done."""
    method, path, body, needed = call
    roles = ["viewer", "operator", "admin"]
    async with api.request(method, path, json=body) as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    for role in roles[: roles.index(needed)]:
        async with api.request(method, path, json=body, headers=bearer(role)) as answer:
            assert answer.status == 403
            assert (await answer.json(content_type=None))["type"] == "urn:bgproxy:problem:forbidden"
    assert controller.calls == []
    assert controller.deployments.calls == []
    for role in roles[roles.index(needed) :]:
        controller.deployments.known.clear()
        if path.startswith("/v1/deployments/1"):
            controller.deployments.add("shop", waits=True)
        async with api.request(method, path, json=body, headers=bearer(role)) as answer:
            assert answer.status == 200


async def test_every_call_of_deployments_is_among_them():
    """None is added without its role being tried."""
    tried = {(method, path.replace("shop", "{service}").replace("/1", "/{deployment}")) for method, path, _, _ in CALLS}
    there = {(each.operation.method, each.operation.path) for each in ENDPOINTS if "deployment" in each.operation.path}
    assert there <= tried


async def test_only_health_and_the_description_are_public():
    """Whatever is added to the API takes a role unless it is listed here."""
    public = {each.operation.path for each in ENDPOINTS if each.operation.role is None}
    assert public == {"/healthz", "/readyz", "/v1/openapi.json"}


async def test_every_change_takes_more_than_a_viewer():
    """No declaration lets a viewer change anything."""
    for each in ENDPOINTS:
        if each.operation.changes:
            assert each.operation.role in ("operator", "admin"), each.operation.path


@pytest.mark.parametrize(
    "said",
    ["Bearer wrong", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "v" * 20, "Bearer " + "v" * 19, "Bearer é"],
)
async def test_a_token_that_is_not_ours_is_401(api, said):
    """Whatever is wrong with it, the answer is the same."""
    async with api.get("/v1/status", headers={"Authorization": said}) as answer:
        assert answer.status == 401
        problem = await answer.json(content_type=None)
        assert problem["detail"] == "The token is not a known one."


async def test_the_scheme_is_case_insensitive(api):
    """RFC 9110 section 11.1."""
    async with api.get("/v1/status", headers={"Authorization": f"bearer {TEXTS['viewer']}"}) as answer:
        assert answer.status == 200


async def test_a_public_call_does_not_mind_a_wrong_token(api):
    """A probe with an old token must not restart us."""
    async with api.get("/healthz", headers={"Authorization": "Bearer wrong"}) as answer:
        assert answer.status == 200


async def test_the_actor_is_the_name_of_the_token(api, controller):
    """What is changed, is changed by somebody."""
    async with api.post("/v1/services/shop/switch", headers=bearer("operator")) as answer:
        assert answer.status == 200
    ((_, call),) = controller.calls
    assert (call["actor"].name, call["actor"].address) == ("ci", "127.0.0.1")


async def test_no_token_is_ever_logged(api, caplog):
    """Neither a good nor a wrong one."""
    caplog.set_level(logging.DEBUG)
    for text in (TEXTS["operator"], "wrong-wrong-wrong"):
        async with api.post("/v1/services/shop/switch", headers={"Authorization": f"Bearer {text}"}):
            pass
        async with api.post("/v1/reload", headers={"Authorization": f"Bearer {text}"}):
            pass
    assert len([record for record in caplog.records if record.name == "bgproxy.audit"]) == 4
    for record in caplog.records:
        told = f"{record.getMessage()} {record.__dict__}"
        assert TEXTS["operator"] not in told
        assert "wrong-wrong-wrong" not in told


async def test_after_a_reload_the_new_tokens_hold(api, controller, monkeypatch):
    """Another configuration object is in force: the old tokens are not valid any more."""
    monkeypatch.setenv("NEW", "n" * 20)
    controller.config = config(tokens=(Token(name="new", role="viewer", token_env="NEW"),))
    async with api.get("/v1/status", headers=bearer("admin")) as answer:
        assert answer.status == 401
    async with api.get("/v1/status", headers={"Authorization": "Bearer " + "n" * 20}) as answer:
        assert answer.status == 200


async def test_a_reload_to_a_token_that_cannot_be_read_lets_nobody_in(api, controller, caplog):
    """It fails closed, and the log says so."""
    controller.config = config(tokens=(Token(name="gone", role="admin", token_file="/nonexistent/token"),))
    for headers in ({}, bearer("admin")):
        async with api.get("/v1/status", headers=headers) as answer:
            assert answer.status == 401
    assert "/nonexistent/token" in caplog.text


async def test_without_tokens_on_loopback_everyone_is_admin(aiohttp_client):
    """And is named anonymous."""
    controller = FakeController(config())
    api = await aiohttp_client(make_app(controller, controller.config))
    async with api.post("/v1/reload") as answer:
        assert answer.status == 200
    assert controller.calls[0][1]["actor"].name == "anonymous"


@pytest.mark.parametrize("listen", ["0.0.0.0:8900", "[::]:8900", "192.0.2.1:8900", "bgproxy.example:8900"])
def test_an_address_beyond_this_machine_needs_tokens(listen):
    """Refused at start, with the way on."""
    settings = Admin(listen=("127.0.0.1:8900", listen))
    with pytest.raises(StartError, match=r"needs admin\.tokens"):
        Authority(lambda: settings)


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/run/a.sock"])
def test_local_listeners_need_none(listen):
    """Loopback literals and names, and Unix sockets."""
    assert is_local(listen)
    Authority(lambda: Admin(listen=(listen,)))


@pytest.mark.parametrize(("listen", "host"), [("[::1]:80", "::1"), ("A.example:80", "a.example"), ("unix:/a:b", "")])
def test_the_host_of_a_listener(listen, host):
    """Without port and brackets, lower-case."""
    assert host_of(listen) == host


def test_a_token_that_cannot_be_read_is_refused_at_start(tmp_path, monkeypatch):
    """Missing, empty, unset or short: the text names the token and the source."""
    monkeypatch.delenv("UNSET", raising=False)
    monkeypatch.setenv("SHORT", "x" * 15)
    os.mkfifo(tmp_path / "pipe")
    empty = tmp_path / "empty"
    empty.write_text(" \n")
    for token, said in (
        (Token(name="a", role="admin", token_file=str(tmp_path / "none")), "cannot be read: No such file"),
        (Token(name="a", role="admin", token_file=str(empty)), "is empty"),
        (Token(name="a", role="admin", token_file=str(tmp_path / "pipe")), "is not a regular file"),
        (Token(name="a", role="admin", token_env="UNSET"), "environment variable UNSET is empty"),
        (Token(name="a", role="admin", token_env="SHORT"), "could be guessed"),
    ):
        with pytest.raises(StartError, match=said):
            read_token(token)


async def test_tokens_are_compared_in_constant_time(api, monkeypatch):
    """By digests, each with `hmac.compare_digest`, all of them whichever fits."""
    compared = []
    real = auth.hmac.compare_digest

    def compare(known: bytes, said: bytes) -> bool:
        compared.append((known, said))
        return real(known, said)

    monkeypatch.setattr(auth.hmac, "compare_digest", compare)
    for text, status in ((TEXTS["viewer"], 200), (TEXTS["admin"], 200), ("x" * 20, 401), ("x", 401)):
        compared.clear()
        async with api.get("/v1/status", headers={"Authorization": f"Bearer {text}"}) as answer:
            assert answer.status == status
        assert len(compared) == 3
        assert {len(part) for pair in compared for part in pair} == {32}


async def test_a_token_file_is_read_anew_by_a_reload(api, controller, tmp_path):
    """The new text holds from then on, the old one no more; its line end is no part of it."""
    (tmp_path / "token").write_text("w" * 20 + "\r\n")
    async with api.get("/v1/status", headers=bearer("viewer")) as answer:
        assert answer.status == 200
    controller.config = replace(controller.config)  # as a reload of the same file makes it
    async with api.get("/v1/status", headers=bearer("viewer")) as answer:
        assert answer.status == 200  # nothing in it is different, so nothing is read
    controller.config = replace(controller.config, admin=replace(controller.config.admin))
    async with api.get("/v1/status", headers=bearer("viewer")) as answer:
        assert answer.status == 401
    async with api.get("/v1/status", headers={"Authorization": "Bearer " + "w" * 20}) as answer:
        assert answer.status == 200
