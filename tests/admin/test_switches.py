"""Switch, rollback, and the switch of several services."""

from __future__ import annotations

import pytest

from bgproxy.errors import StateError, Unavailable


async def post(api, path, body=None, **headers):
    async with api.post(path, json=body, headers=headers) as answer:
        return answer.status, await answer.json(content_type=None)


async def test_a_switch_goes_to_the_idle_pool_unless_one_is_named(api, controller):
    """No body at all is enough."""
    status, said = await post(api, "/v1/services/shop/switch")
    assert status == 200
    assert said == {
        "service": "shop",
        "live": "green",
        "previous": "blue",
        "generation": 2,
        "switched_in_ms": 0.7,
        "drained": None,
    }
    status, said = await post(api, "/v1/services/shop/switch", {"to": "green"})
    assert (status, said["generation"]) == (200, 2)


async def test_all_that_the_body_says_reaches_the_controller(api, controller):
    """Pool, force, wait and reason; and who asks."""
    controller.unhealthy.add(("shop", "green"))
    body = {"to": "green", "force": True, "wait": "drained", "reason": "release 2"}
    status, said = await post(api, "/v1/services/shop/switch", body)
    assert status == 200
    assert said["drained"]["requests"] == 3
    ((_, call),) = controller.calls
    assert call["targets"] == {"shop": "green"}
    assert (call["force"], call["wait"], call["reason"]) == (True, "drained", "release 2")
    assert (call["actor"].name, call["actor"].address) == ("anonymous", "127.0.0.1")


async def test_null_is_as_if_it_was_not_said(api, controller):
    """For every optional field."""
    nothing = dict.fromkeys(("to", "force", "wait", "reason"))
    assert (await post(api, "/v1/services/shop/switch", nothing))[0] == 200
    assert (controller.calls[0][1]["force"], controller.calls[0][1]["wait"]) == (False, "switched")


async def test_a_pool_that_is_not_healthy_is_409_with_a_line_an_upstream(api, controller):
    """Nothing is changed."""
    controller.unhealthy.add(("shop", "green"))
    status, said = await post(api, "/v1/services/shop/switch")
    assert status == 409
    assert said["type"] == "urn:bgproxy:problem:not-healthy"
    assert said["details"] == ["127.0.0.1:9002: connection refused"]
    assert controller.services["shop"].live == "blue"


@pytest.mark.parametrize(
    ("error", "status"), [(Unavailable("worker 1 did not answer"), 503), (StateError("disk full"), 507)]
)
async def test_what_the_controller_cannot_do_is_said(api, controller, error, status):
    """Its text is the detail."""
    controller.raises = error
    found, said = await post(api, "/v1/services/shop/switch")
    assert (found, said["detail"]) == (status, str(error))


@pytest.mark.parametrize("path", ["/v1/services/none/switch", "/v1/services/none/rollback"])
async def test_an_unknown_service_is_404(api, path):
    """Before anything else."""
    assert (await post(api, path))[0] == 404


async def test_a_mistake_in_the_body_changes_nothing(api, controller):
    """All mistakes are named."""
    status, said = await post(api, "/v1/services/shop/switch", {"two": "green", "wait": "for ever"})
    assert status == 422
    assert len(said["details"]) == 2
    assert controller.calls == []


async def test_a_rollback_goes_back(api, controller):
    """To the pool that was live before, with the same fields but `to`."""
    await post(api, "/v1/services/shop/switch")
    status, said = await post(api, "/v1/services/shop/rollback", {"reason": "errors", "wait": "drained"})
    assert (status, said["live"], said["previous"]) == (200, "blue", "green")
    assert controller.calls[-1][1]["reason"] == "errors"
    assert (await post(api, "/v1/services/shop/rollback", {"to": "blue"}))[0] == 422


async def test_a_rollback_to_nowhere_is_refused(api):
    """No pool was live before."""
    status, said = await post(api, "/v1/services/shop/rollback")
    assert (status, said["type"]) == (409, "urn:bgproxy:problem:refused")


async def test_several_services_switch_together(api, controller):
    """One call of the controller, one answer for all."""
    status, said = await post(api, "/v1/switch", {"services": {"shop": "green", "api": "green"}})
    assert status == 200
    assert [each["service"] for each in said["services"]] == ["shop", "api"]
    assert said["generation"] == 3
    ((_, call),) = controller.calls
    assert call["targets"] == {"shop": "green", "api": "green"}


async def test_several_services_or_none(api, controller):
    """One that is refused refuses all."""
    controller.unhealthy.add(("api", "green"))
    status, _ = await post(api, "/v1/switch", {"services": {"shop": "green", "api": "green"}})
    assert status == 409
    assert controller.services["shop"].live == "blue"


@pytest.mark.parametrize("body", [{}, {"services": {}}, {"services": ["shop"]}, {"services": {"shop": "red"}}])
async def test_services_must_be_named_with_their_pools(api, controller, body):
    """422, and nothing is changed."""
    assert (await post(api, "/v1/switch", body))[0] == 422
    assert controller.calls == []
