"""If-Match with generations."""

from __future__ import annotations

import pytest


async def test_the_generation_is_the_etag(api, controller):
    """One service has its own, the list has that of the whole."""
    await controller.switch({"shop": "green"}, actor=None)
    async with api.get("/v1/services/shop") as answer:
        assert answer.headers["ETag"] == '"2"'
    async with api.get("/v1/services/api") as answer:
        assert answer.headers["ETag"] == '"1"'
    async with api.get("/v1/services") as answer:
        assert answer.headers["ETag"] == '"2"'


@pytest.mark.parametrize("value", ['"1"', "1", "*", '"9", "1"', '"0","1"'])
async def test_a_change_of_the_current_generation_goes_through(api, value):
    """In quotes as RFC 9110 has it, in a list, or as a plain number; * is any."""
    async with api.post("/v1/services/shop/switch", headers={"If-Match": value}) as answer:
        assert answer.status == 200
        assert answer.headers["ETag"] == '"2"'


CHANGES = [
    ("POST", "/v1/services/shop/switch", {}),
    ("POST", "/v1/services/shop/rollback", {}),
    ("POST", "/v1/switch", {"services": {"shop": "green"}}),
    ("PUT", "/v1/services/shop/pools/green", {"version": "3"}),
    ("PUT", "/v1/services/shop/pools/green/upstreams/127.0.0.1:9002/state", {"state": "drain"}),
    ("POST", "/v1/reload", {}),
]


@pytest.mark.parametrize("call", CHANGES, ids=lambda call: f"{call[0]} {call[1]}")
@pytest.mark.parametrize("value", ['"7"', "7", 'W/"1"'])
async def test_a_change_of_another_generation_is_412(api, controller, call, value):
    """Every change can be conditional; a weak tag never matches."""
    method, path, body = call
    async with api.request(method, path, json=body, headers={"If-Match": value}) as answer:
        assert answer.status == 412
        assert (await answer.json(content_type=None))["type"] == "urn:bgproxy:problem:stale"
    assert controller.calls == []


@pytest.mark.parametrize("value", ["seven", "", " ", '"7', '"7";"8"', "-1"])
async def test_what_is_no_entity_tag_is_400(api, controller, value):
    """Rather than to be taken for "any"."""
    async with api.post("/v1/services/shop/switch", headers={"If-Match": value}) as answer:
        assert answer.status == 400
    assert controller.calls == []
