"""The admin API over the real controller, with a worker at the other end of a real link and real upstreams to check."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families
from support.backends import Backend
from support.fake_worker import FakeWorker
from support.waiting import eventually_async

from bgproxy.admin.app import make_app
from bgproxy.config.schema import Config, Health, Pool, Pools, Service
from bgproxy.control.controller import Controller
from bgproxy.switchboard import layout
from bgproxy.switchboard.board import Switchboard
from bgproxy.switchboard.wiring import ControllerBirth


def config_of(tmp_path, blue: Backend, green: Backend) -> Config:
    pools = Pools(
        blue=Pool(version="1.0", upstreams=(f"http://127.0.0.1:{blue.port}",)),
        green=Pool(version="2.0", upstreams=(f"http://127.0.0.1:{green.port}",)),
    )
    health = Health(interval=0.05, rise=1, fall=1)
    return Config(
        workers=1,
        state_dir=str(tmp_path / "state"),
        services={"shop": Service(pools=pools, health=health)},
    )


@pytest.fixture
async def parts(tmp_path, aiohttp_client):
    """API, controller, worker, and the upstream of green."""
    (tmp_path / "state").mkdir(mode=0o700)
    with Backend("blue") as blue, Backend("green") as green:
        board = Switchboard(1)
        worker = await FakeWorker(board, 0).start()
        leash, other = socket.socketpair()
        settings = config_of(tmp_path, blue, green)
        children = {
            "controller": {"pid": 1, "restarts": 0},
            "workers": [{"index": 0, "pid": worker.pid, "restarts": 3}],
        }
        source = str(tmp_path / "bgproxy.yaml")
        birth = ControllerBirth(board, settings, source, None, [], leash, {0: worker.theirs}, children)
        controller = Controller(birth)
        await controller.start()
        try:
            api = await aiohttp_client(make_app(controller, settings))
            await eventually_async(lambda: controller.ready()[0])
            await eventually_async(lambda: controller.service_status("shop")["pools"]["green"]["healthy"])
            yield api, controller, worker, green
        finally:
            await controller.stop()
            worker.die()
            leash.close()
            other.close()


async def call(api, method, path, body=None, **headers):
    async with api.request(method, path, json=body, headers=headers) as answer:
        return answer.status, await answer.json(content_type=None)


async def test_a_switch_and_a_rollback(parts):
    """The board says so at once, generations rise, and the history has both with who and why."""
    api, _, worker, _ = parts
    status, said = await call(api, "POST", "/v1/services/shop/switch", {"reason": "release", "wait": "drained"})
    assert (status, said["live"], said["previous"]) == (200, "green", "blue")
    assert said["switched_in_ms"] > 0
    assert said["drained"]["complete"]
    assert worker.board.live(worker.services["shop"].slot) == 1
    status, back = await call(api, "POST", "/v1/services/shop/rollback", {"wait": "drained"})
    assert (status, back["live"]) == (200, "blue")
    assert back["generation"] > said["generation"]
    assert worker.board.live(worker.services["shop"].slot) == 0
    _, history = await call(api, "GET", "/v1/history?service=shop")
    assert [(event["type"], event["reason"]) for event in history["events"]] == [
        ("switched", "release"),
        ("rolled_back", ""),
    ]
    assert history["events"][0]["actor"] == {"name": "anonymous", "address": "127.0.0.1"}


async def test_refusals(parts):
    """Stale, unknown, not healthy with the reason of the check, nothing to roll back to: each its own problem."""
    api, controller, _, green = parts
    path = "/v1/services/shop/switch"
    green.refuse()
    await eventually_async(lambda: not controller.service_status("shop")["pools"]["green"]["healthy"])
    for found, slug in (
        (await call(api, "POST", path, **{"If-Match": '"99999"'}), "stale"),
        (await call(api, "POST", "/v1/services/none/switch"), "not-found"),
        (await call(api, "POST", "/v1/services/shop/rollback"), "refused"),
        (await call(api, "PUT", "/v1/services/shop/pools/green", {"upstreams": ["ftp://x"]}), "invalid"),
        (await call(api, "POST", path), "not-healthy"),
    ):
        assert found[1]["type"] == f"urn:bgproxy:problem:{slug}"
    assert "refused" in found[1]["details"][0]
    assert controller.service_status("shop")["live"] == "blue"
    status, _ = await call(api, "POST", path, {"force": True})
    assert status == 200


async def test_what_is_answered_is_what_is_described(parts):
    """The real shapes, by the schemas of the OpenAPI document."""
    api, controller, _, _ = parts
    _, document = await call(api, "GET", "/v1/openapi.json")
    upstream = controller.service_status("shop")["pools"]["green"]["upstreams"][0]["id"]
    calls = [
        ("GET", "/v1/status", "/v1/status", None),
        ("GET", "/v1/services", "/v1/services", None),
        ("GET", "/v1/services/{service}", "/v1/services/shop", None),
        ("POST", "/v1/services/{service}/switch", "/v1/services/shop/switch", {"wait": "drained"}),
        ("POST", "/v1/services/{service}/rollback", "/v1/services/shop/rollback", None),
        ("POST", "/v1/switch", "/v1/switch", {"services": {"shop": "green"}}),
        ("PUT", "/v1/services/{service}/pools/{pool}", "/v1/services/shop/pools/blue", {"version": "3"}),
        (
            "PUT",
            "/v1/services/{service}/pools/{pool}/upstreams/{upstream}/state",
            f"/v1/services/shop/pools/green/upstreams/{upstream}/state",
            {"state": "drain"},
        ),
        ("GET", "/v1/history", "/v1/history", None),
        ("GET", "/healthz", "/healthz", None),
    ]
    for method, described, path, body in calls:
        status, said = await call(api, method, path, body)
        assert status == 200, said
        content = document["paths"][described][method.lower()]["responses"]["200"]["content"]["application/json"]
        Draft202012Validator(content["schema"] | {"components": document["components"]}).validate(said)


async def test_a_reload_takes_the_file_whole_or_not_at_all(parts, tmp_path):
    """All mistakes are listed and nothing is changed; then the answer names what is different, as it is described."""
    api, controller, _, _ = parts
    pools = {
        name: {"upstreams": [pool["upstreams"][0]["url"]]}
        for name, pool in controller.service_status("shop")["pools"].items()
    }
    file = tmp_path / "bgproxy.yaml"
    whole = {
        "workers": 1,
        "state_dir": str(tmp_path / "state"),
        "services": {"shop": {"pools": pools}, "api": {"pools": pools}},
    }
    whole["services"]["api"]["match"] = {"path": "/api"}
    file.write_text(json.dumps(whole | {"wrokers": 2, "limits": {"headers": -1}}))
    status, said = await call(api, "POST", "/v1/reload")
    assert (status, said["type"], len(said["details"])) == (422, "urn:bgproxy:problem:config", 2)
    assert (await call(api, "GET", "/v1/services/api"))[0] == 404
    file.write_text(json.dumps(whole))
    status, said = await call(api, "POST", "/v1/reload")
    assert status == 200, said
    assert (said["added"], said["removed"]) == (["api"], [])
    assert (await call(api, "GET", "/v1/services/api"))[0] == 200
    _, document = await call(api, "GET", "/v1/openapi.json")
    content = document["paths"]["/v1/reload"]["post"]["responses"]["200"]["content"]["application/json"]
    Draft202012Validator(content["schema"] | {"components": document["components"]}).validate(said)


async def test_metrics_are_the_cells_of_the_worker(parts):
    """What a worker stores is what Prometheus reads."""
    api, _, worker, _ = parts
    base = layout.pool_base(worker.services["shop"].slot, 0)
    worker.set_cell(base + layout.CODES + layout.code_cell(200), 5)
    worker.set_cell(base + layout.BUCKETS + layout.bucket_of(0.0015), 5)
    worker.set_cell(base + layout.DURATION_US, 7500)
    worker.set_cell(layout.W_REFUSED, 2)
    worker.in_flight(worker.services["shop"].slot, 0, 1, 4)
    await call(api, "POST", "/v1/services/shop/switch")
    async with api.get("/metrics") as answer:
        text = await answer.text()
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["bgproxy_requests_total", "200", "blue", "shop"] == 5
    assert samples["bgproxy_request_duration_seconds_bucket", "0.001", "blue", "shop"] == 0
    assert samples["bgproxy_request_duration_seconds_bucket", "0.002", "blue", "shop"] == 5
    assert samples["bgproxy_request_duration_seconds_sum", "blue", "shop"] == 0.0075
    assert samples["bgproxy_connections_refused_total", "connections"] == 2
    assert samples["bgproxy_in_flight", "blue", "shop", "streams"] == 4
    assert samples["bgproxy_live", "green", "shop"] == 1
    assert samples["bgproxy_switches_total", "shop", "switched"] == 1
    assert samples["bgproxy_worker_restarts_total", "0"] == 3
    worker.in_flight(worker.services["shop"].slot, 0, 1, 0)


async def test_events_of_a_switch_are_streamed_and_can_be_resumed(parts):
    """The switch, then the end of its drain; a second reader begins after the id that it names."""
    api, _, _, _ = parts
    async with asyncio.timeout(10), api.get("/v1/events?service=shop") as answer:
        await answer.content.readuntil(b"\n\n")
        await call(api, "POST", "/v1/services/shop/switch")
        events = [await _event(answer), await _event(answer)]
    assert [event["type"] for event in events] == ["switched", "drained"]
    headers = {"Last-Event-ID": str(events[0]["id"])}
    async with asyncio.timeout(10), api.get("/v1/events?service=shop", headers=headers) as answer:
        assert await _event(answer) == events[1]


async def _event(answer) -> dict:
    while True:
        line = await answer.content.readline()
        assert line, "the stream ended"
        if line.startswith(b"data: "):
            return json.loads(line.removeprefix(b"data: "))
