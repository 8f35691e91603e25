"""The audit log: every change that was asked for, whatever came of it."""

from __future__ import annotations

import logging

import pytest


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
    """The slug of the problem."""
    import io

    async with api.post(path, data=io.BytesIO(body), headers={"Content-Type": "application/json"}):
        pass
    assert [line["outcome"] for line in lines()] == [outcome]


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
