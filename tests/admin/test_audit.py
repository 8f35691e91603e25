"""The audit log: every change that was asked for, whatever came of it."""

from __future__ import annotations

import json
import logging

import pytest
from support.fake_controller import FakeController, config

from bgproxy.admin.app import ENDPOINTS, make_app
from bgproxy.config.schema import Token


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "bgproxy.audit")
    return lambda: [record.fields for record in caplog.records if record.name == "bgproxy.audit"]


async def test_a_change_is_logged_with_who_from_where_what_why_and_the_outcome(api, lines):
    """One line a change."""
    async with api.post("/v1/services/shop/switch", json={"to": "green", "reason": "release 2"}):
        pass
    (line,) = lines()
    assert line.pop("ms") >= 0
    assert line == {
        "who": "anonymous",
        "role": "admin",
        "from": "127.0.0.1",
        "what": "POST /v1/services/shop/switch",
        "said": {"to": "green"},
        "why": "release 2",
        "outcome": "done",
        "status": 200,
    }


@pytest.mark.parametrize(
    ("path", "body", "outcome"),
    [
        ("/v1/services/shop/rollback", b"{}", "refused"),
        ("/v1/services/none/switch", b"{}", "not-found"),
        ("/v1/services/shop/switch", b"{", "malformed"),
        ("/v1/services/shop/switch", b'{"too": 1}', "invalid"),
        ("/v1/services/shop/switch", b" " * 2_000_000, "too-large"),
    ],
)
async def test_a_refused_change_is_logged_with_the_reason_of_its_refusal(api, lines, path, body, outcome):
    """The slug of the problem, and its text."""
    import io

    async with api.post(path, data=io.BytesIO(body), headers={"Content-Type": "application/json"}):
        pass
    (line,) = lines()
    assert line["outcome"] == outcome
    assert line["status"] >= 400
    assert line["detail"]
    assert line["from"] == "127.0.0.1"


async def test_a_replay_is_logged_as_such(api, lines):
    """Nothing was done the second time."""
    for _ in range(2):
        async with api.post("/v1/services/shop/switch", headers={"Idempotency-Key": "k"}):
            pass
    assert [line["outcome"] for line in lines()] == ["done", "replayed"]


async def test_reading_is_not_logged(api, lines):
    """Only changes are."""
    async with api.get("/v1/status"):
        pass
    assert lines() == []


async def test_a_path_cannot_forge_a_line(api, lines):
    """It is logged as it was sent, line ends still encoded."""
    async with api.post("/v1/services/a%0Aforged/switch"):
        pass
    assert lines()[0]["what"] == "POST /v1/services/a%0Aforged/switch"


#: What is asked for, how it ends, and who did it with which role, as far as that was known.
REFUSALS = {
    "no token": ({}, "unauthorized", 401, "anonymous", None),
    "a wrong token": ({"Authorization": "Bearer " + "x" * 20}, "unauthorized", 401, "unknown", None),
    "too low a role": ({"Authorization": "Bearer " + "v" * 20}, "forbidden", 403, "grafana", "viewer"),
    "another site's page": ({"Origin": "http://evil.example"}, "forbidden", 403, "unknown", None),
    "another host": ({"Host": "evil.example"}, "forbidden", 403, "unknown", None),
    "a busy service": ({"Authorization": "Bearer " + "o" * 20}, "busy", 409, "ci", "operator"),
    "another generation": (
        {"Authorization": "Bearer " + "o" * 20, "If-Match": '"99"'},
        "stale",
        412,
        "ci",
        "operator",
    ),
    "no JSON": (
        {"Authorization": "Bearer " + "o" * 20, "Content-Type": "text/plain"},
        "unsupported-media-type",
        415,
        "ci",
        "operator",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_every_refusal_is_logged_with_who_and_from_where(aiohttp_client, monkeypatch, lines, name):
    """Before anybody knew who asks, at the role, and as things stood."""
    headers, outcome, status, who, role = REFUSALS[name]
    monkeypatch.setenv("VIEWER", "v" * 20)
    monkeypatch.setenv("OPERATOR", "o" * 20)
    tokens = (
        Token(name="grafana", role="viewer", token_env="VIEWER"),
        Token(name="ci", role="operator", token_env="OPERATOR"),
    )
    controller = FakeController(config(tokens=tokens))
    controller.busy()
    api = await aiohttp_client(make_app(controller, controller.config))
    async with api.post("/v1/services/shop/switch", data=b"{}", headers={"Content-Type": "application/json"} | headers):
        pass
    (line,) = lines()
    assert (line["outcome"], line["status"], line["who"], line["role"]) == (outcome, status, who, role)
    assert (line["from"], line["what"]) == ("127.0.0.1", "POST /v1/services/shop/switch")
    assert line["detail"]


async def test_a_page_that_reads_leaves_no_line(api, lines):
    """Refused all the same, but nothing was to be changed."""
    async with api.get("/v1/status", headers={"Origin": "http://evil.example"}) as answer:
        assert answer.status == 403
    assert lines() == []


CHANGES = [
    ("POST", "/v1/services/shop/switch", {}),
    ("POST", "/v1/services/shop/rollback", {}),
    ("POST", "/v1/switch", {"services": {"shop": "green"}}),
    ("PUT", "/v1/services/shop/pools/green", {"version": "3"}),
    ("PUT", "/v1/services/shop/pools/green/upstreams/127.0.0.1:9002/state", {"state": "drain"}),
    ("POST", "/v1/services/api/deployments", {"version": "3"}),
    ("POST", "/v1/deployments/1/approve", {}),
    ("POST", "/v1/deployments/1/abort", {}),
    ("POST", "/v1/reload", {}),
]


@pytest.mark.parametrize("call", CHANGES, ids=lambda call: f"{call[0]} {call[1]}")
async def test_every_change_is_in_the_audit_log(api, controller, lines, call):
    """Whatever it is: who, from where, what, why."""
    controller.services["shop"].previous = "green"
    controller.deployments.add("shop", waits=True)
    method, path, body = call
    async with api.request(method, path, json=body | {"reason": "because"}) as answer:
        assert answer.status == 200
    (line,) = lines()
    assert (line["what"], line["why"], line["outcome"], line["said"]) == (f"{method} {path}", "because", "done", body)


def test_no_change_is_left_out_above():
    """Whatever is added to the API."""
    assert len(CHANGES) == sum(each.operation.changes for each in ENDPOINTS)


async def test_no_body_makes_a_line_too_long_to_be_written(api, controller, lines):
    """A pipe has room for 64 KiB: whoever could fill it with one line would have changed something unseen."""
    upstreams = [f"http://{'a' * 200}.test:{port}" for port in range(1, 1000)]
    body = {"upstreams": upstreams, "reason": "\u20ac" * 1000}
    async with api.put(f"/v1/services/shop/pools/green?{'x' * 7000}", json=body) as answer:
        assert answer.status == 422
    async with api.put("/v1/services/shop/pools/green", json=body) as answer:
        assert answer.status == 200
    for line in lines():
        assert len(json.dumps(line, ensure_ascii=False).encode()) < 16384
    shown = lines()[1]["said"]["upstreams"]
    assert shown[0].startswith("http://aaa")
    assert shown[-1] == "... (999 entries)"
