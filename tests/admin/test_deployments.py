"""Deployments over the API: begun, watched, approved, aborted."""

from __future__ import annotations

import pytest

from bgproxy.errors import Refused, StateError, Unavailable

PATH = "/v1/services/shop/deployments"


async def call(api, method, path, body=None, **headers):
    async with api.request(method, path, json=body, headers=headers) as answer:
        return answer.status, await answer.json(content_type=None), answer.headers


async def test_all_that_the_body_says_reaches_the_controller(api, controller):
    """Version, upstreams, strategy and reason; and who asks. The answer is the deployment, the ETag the service's generation."""
    body = {"version": "2.1", "upstreams": ["http://127.0.0.1:9003"], "strategy": "canary", "reason": "release"}
    status, said, headers = await call(api, "POST", PATH, body)
    assert (status, said["id"], said["state"], headers["ETag"]) == (200, 1, "verifying", '"1"')
    ((_, made),) = controller.calls
    assert made["service"] == "shop"
    assert (made["version"], made["upstreams"]) == ("2.1", ("http://127.0.0.1:9003",))
    assert (made["strategy"], made["reason"]) == ("canary", "release")
    assert (made["actor"].name, made["actor"].address) == ("anonymous", "127.0.0.1")


async def test_nothing_need_be_said(api, controller):
    """No body, or nulls: the pool as it is, the strategy as configured."""
    assert (await call(api, "POST", PATH))[0] == 200
    ((_, made),) = controller.calls
    assert (made["version"], made["upstreams"], made["strategy"], made["reason"]) == (None, None, None, "")
    nothing = dict.fromkeys(("version", "upstreams", "strategy", "reason"))
    assert (await call(api, "POST", "/v1/services/api/deployments", nothing))[0] == 200


async def test_a_null_reason_is_none(api, controller):
    """Of approve and abort too: the controller gets a text."""
    controller.deployments.add("shop", waits=True)
    assert (await call(api, "POST", "/v1/deployments/1/approve", {"reason": None}))[0] == 200
    assert controller.deployments.calls[0][3] == ""


async def test_one_at_a_time(api):
    """409 while one of the same service runs; another service may."""
    assert (await call(api, "POST", PATH))[0] == 200
    status, said, _ = await call(api, "POST", PATH)
    assert (status, said["type"]) == (409, "urn:bgproxy:problem:busy")
    assert "deployment 1 is verifying" in said["detail"]
    assert (await call(api, "POST", "/v1/services/api/deployments"))[0] == 200


async def test_the_same_key_begins_one(api, controller):
    """With an Idempotency-Key a repeated call gets the first answer again."""
    first = await call(api, "POST", PATH, {"version": "2"}, **{"Idempotency-Key": "k1"})
    again = await call(api, "POST", PATH, {"version": "2"}, **{"Idempotency-Key": "k1"})
    assert first[:2] == again[:2]
    assert again[2]["Idempotent-Replayed"] == "true"
    assert len(controller.calls) == 1
    assert (await call(api, "POST", PATH, {"version": "3"}, **{"Idempotency-Key": "k1"}))[0] == 422


async def test_a_deployment_outlives_the_answers_that_are_kept(api, controller):
    """A restart forgets them: the key finds what it has begun, whatever the generation is by now; of the same caller and service."""
    again = {"Idempotency-Key": "k1", "If-Match": '"9"'}
    begun = controller.deployments.add("shop")
    controller.deployments.keys["shop", "anonymous", "k1"] = begun["id"]
    assert (await call(api, "POST", PATH, {"version": "2"}, **again))[:2] == (200, begun)
    assert controller.calls == []
    controller.deployments.keys = {("shop", "bob", "k3"): 1, ("api", "anonymous", "k3"): 1}
    assert (await call(api, "POST", PATH, {"version": "3"}, **again | {"Idempotency-Key": "k2"}))[0] == 412
    assert (await call(api, "POST", PATH, {"version": "3"}, **{"Idempotency-Key": "k3", "If-Match": '"1"'}))[0] == 409


async def test_a_stale_generation_begins_nothing(api, controller):
    """If-Match is the generation that `status` showed."""
    status, said, _ = await call(api, "POST", PATH, **{"If-Match": '"9"'})
    assert (status, said["type"]) == (412, "urn:bgproxy:problem:stale")
    assert controller.calls == []


@pytest.mark.parametrize(
    "body",
    [
        {"strategy": "big bang"},
        {"version": 2},
        {"version": "x" * 1000},
        {"upstreams": "http://127.0.0.1:9003"},
        {"to": "green"},
        {"reason": "x" * 1001},
    ],
)
async def test_a_mistake_in_the_body_begins_nothing(api, controller, body):
    """422, and a line about it."""
    status, said, _ = await call(api, "POST", PATH, body)
    assert status == 422
    assert len(said["details"]) == 1
    assert controller.calls == []


@pytest.mark.parametrize(
    ("error", "status"),
    [(Refused("green has no upstreams"), 409), (Unavailable("starting"), 503), (StateError("disk full"), 507)],
)
async def test_what_the_controller_cannot_do_is_said(api, controller, error, status):
    """Its text is the detail."""
    controller.raises = error
    found, said, _ = await call(api, "POST", PATH)
    assert (found, said["detail"]) == (status, str(error))


async def test_one_deployment_and_all_of_a_service(api, controller):
    """As the controller describes them."""
    mine, other = controller.deployments.add("shop"), controller.deployments.add("api")
    assert (await call(api, "GET", "/v1/deployments/1"))[1] == mine
    assert (await call(api, "GET", "/v1/deployments/2"))[1] == other
    assert (await call(api, "GET", PATH))[1] == {"deployments": [mine]}
    latest = controller.deployments.add("shop")
    assert (await call(api, "GET", f"{PATH}?limit=1"))[1] == {"deployments": [latest]}


@pytest.mark.parametrize("number", ["7", "latest", "-1", "1" * 16, "%C2%B2", "1.0"])
async def test_an_unknown_one_is_404(api, number):
    """Whatever is done with it, and whatever stands for its number."""
    for method, path in (("GET", ""), ("POST", "/approve"), ("POST", "/abort")):
        status, said, _ = await call(api, method, f"/v1/deployments/{number}{path}")
        assert (status, said["type"]) == (404, "urn:bgproxy:problem:not-found")


async def test_an_unknown_service_is_404(api):
    """For both of its calls."""
    for method in ("GET", "POST"):
        assert (await call(api, method, "/v1/services/none/deployments"))[0] == 404


async def test_approve_and_abort(api, controller):
    """Who and why reach the controller; what does not wait, or has ended, is refused."""
    controller.deployments.add("shop", waits=True)
    assert (await call(api, "POST", "/v1/deployments/1/approve", {"reason": "seen"}))[0] == 200
    assert (await call(api, "POST", "/v1/deployments/1/approve"))[0] == 409
    status, said, _ = await call(api, "POST", "/v1/deployments/1/abort", {"reason": "no"})
    assert (status, said["state"]) == (200, "aborted")
    assert (await call(api, "POST", "/v1/deployments/1/abort"))[0] == 409
    told = [(what, number, actor.name, why) for what, number, actor, why in controller.deployments.calls]
    assert told == [("approve", 1, "anonymous", "seen"), ("abort", 1, "anonymous", "no")]


@pytest.mark.parametrize("what", ["approve", "abort"])
async def test_a_decision_on_what_has_changed_meanwhile_is_refused(api, controller, what):
    """If-Match is the generation of the deployment's service."""
    controller.deployments.add("shop", waits=True)
    assert (await call(api, "POST", f"/v1/deployments/1/{what}", **{"If-Match": '"9"'}))[0] == 412
    assert controller.deployments.calls == []
    assert (await call(api, "POST", f"/v1/deployments/1/{what}", **{"If-Match": '"1"'}))[0] == 200


async def test_the_status_of_a_service_has_the_one_under_way(api, controller):
    """And the share of a canary."""
    controller.deployments.add("shop", state="switching")
    controller.shares["shop"] = 10
    shop = (await call(api, "GET", "/v1/services/shop"))[1]
    assert shop["share"] == 10
    assert (shop["deployment"]["id"], shop["deployment"]["state"]) == (1, "switching")
    assert (await call(api, "GET", "/v1/services/api"))[1]["deployment"] is None
