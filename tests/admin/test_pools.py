"""Pools and upstreams at run time."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from bgproxy.errors import Invalid


async def put(api, path, body):
    async with api.put(path, json=body) as answer:
        return answer.status, await answer.json(content_type=None)


async def test_what_is_left_out_of_a_pool_stays(api, controller):
    """Version or upstreams, or both; the answer is the service as it is now."""
    status, said = await put(api, "/v1/services/shop/pools/green", {"version": "3.0"})
    assert (status, said["pools"]["green"]["version"], said["generation"]) == (200, "3.0", 2)
    status, said = await put(api, "/v1/services/shop/pools/green", {"upstreams": ["http://127.0.0.1:9009"]})
    assert said["pools"]["green"]["upstreams"][0]["url"] == "http://127.0.0.1:9009"
    assert [call["version"] for _, call in controller.calls] == ["3.0", None]
    assert [call["upstreams"] for _, call in controller.calls] == [None, ["http://127.0.0.1:9009"]]


async def test_a_pool_can_be_emptied(api, controller):
    """An empty list is not the same as none."""
    status, _ = await put(api, "/v1/services/shop/pools/green", {"upstreams": []})
    assert status == 200
    assert controller.calls[0][1]["upstreams"] == []


async def test_nothing_to_set_is_a_mistake(api, controller):
    """It would be a change that changes nothing."""
    status, _ = await put(api, "/v1/services/shop/pools/green", {})
    assert status == 422
    assert controller.calls == []


async def test_a_value_that_the_controller_refuses_is_422(api, controller, monkeypatch):
    """Upstream URLs are its business."""

    async def refuse(*_args, **_kwargs):
        raise Invalid("upstreams[0]: ftp:// is no upstream")

    monkeypatch.setattr(controller, "set_pool", refuse)
    status, said = await put(api, "/v1/services/shop/pools/green", {"upstreams": ["ftp://a"]})
    assert (status, said["detail"]) == (422, "upstreams[0]: ftp:// is no upstream")


@pytest.mark.parametrize("path", ["none/pools/green", "shop/pools/red", "none/pools/green/upstreams/a/state"])
async def test_an_unknown_service_or_pool_is_404(api, path):
    """Whichever it is."""
    body = {"state": "drain"} if path.endswith("state") else {"version": "3"}
    assert (await put(api, f"/v1/services/{path}", body))[0] == 404


@pytest.mark.parametrize("name", ["127.0.0.1:9002", "http://127.0.0.1:9002"])
@pytest.mark.parametrize("state", ["ready", "drain", "maint"])
async def test_an_upstream_is_set_by_its_id_or_its_url(api, controller, name, state):
    """Percent-encoded in the path, slashes and all."""
    path = f"/v1/services/shop/pools/green/upstreams/{quote(name, safe='')}/state"
    status, _ = await put(api, path, {"state": state})
    assert status == 200
    assert (controller.calls[0][1]["upstream"], controller.calls[0][1]["state"]) == (name, state)


async def test_the_id_of_a_unix_socket_reaches_the_controller_whole(api, controller):
    """Slashes in an id are part of it."""
    path = f"/v1/services/shop/pools/green/upstreams/{quote('unix:/run/app one.sock', safe='')}/state"
    assert (await put(api, path, {"state": "drain"}))[0] == 404
    assert controller.calls[0][1]["upstream"] == "unix:/run/app one.sock"


@pytest.mark.parametrize("body", [{}, {"state": "up"}, {"state": None}, {"state": "drain", "for": 3}])
async def test_a_state_is_ready_drain_or_maint(api, controller, body):
    """Anything else is 422."""
    assert (await put(api, "/v1/services/shop/pools/green/upstreams/127.0.0.1:9002/state", body))[0] == 422
    assert controller.calls == []
