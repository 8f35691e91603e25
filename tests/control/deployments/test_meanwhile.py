"""What happens while a deployment is under way: the real stages, and operators, reloads, workers and disks that come in between."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from typing import Any

import pytest
from support.control_room import ALICE, ControlRoom, Upstream
from support.waiting import eventually_async

from bgproxy.config import source
from bgproxy.config.schema import (
    Approve,
    Bake,
    Check,
    Compare,
    Deployment,
    Hook,
    Notify,
    Retire,
    Strategy,
    Verify,
)
from bgproxy.control.actor import Actor
from bgproxy.errors import Busy, Refused

BOB = Actor("bob", "10.0.0.2")
GREEN = 1

BY_HAND = Deployment(approve=Approve(mode="manual"))
CANARY = Deployment(strategy=Strategy(type="canary", percent=20.0, for_=600.0), bake=Bake(for_=600.0))


class Stage:
    """A control room whose `shop` deploys as `settings` say."""

    def __init__(self, room: ControlRoom) -> None:
        self.room = room
        self.number = 0

    @property
    def service(self) -> Any:
        return self.room.controller._registry.find("shop")

    async def there_and_back(self) -> None:
        """Green was live once: a rollback has somewhere to go."""
        for pool in ("green", "blue"):
            await self.room.controller.switch({"shop": pool}, actor=ALICE)

    async def begin(self, *, until: str = "", **how: Any) -> None:
        self.number = (await self.room.controller.deploy("shop", actor=ALICE, **how))["id"]
        if until:
            await self.until(until)

    def get(self) -> dict[str, Any]:
        return self.room.controller.deployments.get(self.number)

    async def until(self, state: str) -> dict[str, Any]:
        await eventually_async(lambda: self.get()["state"] == state, what=state)
        return self.get()

    async def ended(self) -> dict[str, Any]:
        await eventually_async(lambda: not self.get()["running"], what="its end")
        return self.get()

    def share(self) -> int:
        return self.room.board.share(self.room.slot())

    async def until_share(self, share: int) -> None:
        await eventually_async(lambda: self.share() == share, what=f"a share of {share}%")


@pytest.fixture
async def stage(tmp_path, request):
    """The test's mark says how the service deploys."""
    async with ControlRoom(tmp_path, deployment=request.param) as room:
        yield Stage(room)


def deploys(settings: Deployment) -> Any:
    return pytest.mark.parametrize("stage", [settings], ids=["-"], indirect=True)


# --- rollbacks and switches by hand ---------------------------------------------------------------------------------


@deploys(BY_HAND)
async def test_a_rollback_before_the_switch_does_not_bring_the_new_version(stage):
    """What was live before is what is being deployed to: nobody is sent there by a rollback."""
    await stage.there_and_back()
    await stage.begin(until="awaiting_approval")
    with pytest.raises(Busy, match=f"deployment {stage.number} .*green is not live yet.*bgproxy abort {stage.number}"):
        await stage.room.controller.rollback("shop", actor=BOB)
    assert stage.room.everywhere() == ("blue", "blue", "blue")
    assert stage.get()["running"]


@deploys(BY_HAND)
async def test_a_rollback_does_not_go_to_a_version_that_has_failed_since(stage):
    """The pool that was live before is another one now; who wants to go there all the same says so."""
    await stage.there_and_back()
    await stage.begin(until="awaiting_approval", version="3.0")
    controller = stage.room.controller
    await controller.deployments.abort(stage.number, actor=BOB, reason="wrong build")
    await stage.ended()
    with pytest.raises(Refused, match=f"green is as deployment {stage.number} left it, which was aborted") as refused:
        await controller.rollback("shop", actor=BOB)
    assert "(aborted by bob (wrong build)). To go there all the same: bgproxy switch" in str(refused.value)
    assert stage.room.everywhere() == ("blue", "blue", "blue")
    await controller.rollback("shop", actor=BOB, force=True)
    assert stage.room.everywhere() == ("green", "green", "green")
    await controller.rollback("shop", actor=BOB)  # it was moved by hand since
    assert stage.room.everywhere() == ("blue", "blue", "blue")


@deploys(Deployment(bake=Bake(for_=600.0)))
async def test_a_second_rollback_does_not_go_forward_again(stage):
    """Two operators, or one in a hurry: the version that was left is not gone back to."""
    await stage.begin(until="baking")
    await stage.room.controller.rollback("shop", actor=BOB, reason="customers call")
    with pytest.raises(Refused):
        await stage.room.controller.rollback("shop", actor=ALICE)
    await stage.ended()
    with pytest.raises(Refused, match=r"left it, which was rolled back .*customers call"):
        await stage.room.controller.rollback("shop", actor=ALICE)
    assert stage.room.everywhere() == ("blue", "blue", "blue")


@deploys(CANARY)
@pytest.mark.parametrize("was_live", [True, False])
async def test_a_rollback_in_a_canary_takes_the_share_back(stage, was_live):
    """All clients are on the old pool again, the deployment has ended, and who did it is told."""
    if was_live:
        await stage.there_and_back()
    await stage.begin()
    await stage.until_share(20)
    result = await stage.room.controller.rollback("shop", actor=BOB, reason="customers call")
    assert (result.live, stage.share()) == ("blue", 0)
    found = await stage.ended()
    assert (found["state"], found["outcome"]) == ("rolled_back", "blue was given all traffic by bob (customers call)")
    assert found["steps"][-2]["by"] == "bob"
    assert stage.room.everywhere() == ("blue", "blue", "blue")


@deploys(CANARY)
async def test_a_canary_that_is_taken_all_the_way_by_force_is_not_told_as_rolled_back(stage):
    """The new version is live: the history must not say that it went back."""
    await stage.begin()
    await stage.until_share(20)
    await stage.room.controller.switch({"shop": "green"}, actor=BOB, force=True)
    found = await stage.ended()
    assert (found["state"], found["outcome"]) == ("aborted", "green was made live by bob")
    assert stage.room.everywhere() == ("green", "green", "green")
    assert stage.share() == 0


@deploys(CANARY)
async def test_a_canary_that_is_taken_back_is_drained(stage):
    """Whoever is in the middle of something on the new pool has as long as after a switch, and no longer."""
    await stage.begin()
    await stage.until_share(20)
    worker = stage.room.workers[0]
    worker.in_flight(stage.room.slot(), GREEN, 2, 1)
    await stage.room.controller.deployments.abort(stage.number, actor=BOB)
    await stage.ended()
    assert stage.room.pool("shop", "green")["state"] == "draining"
    await eventually_async(lambda: ("shop", GREEN) in worker.draining, what="the worker ends it at its deadline")
    worker.in_flight(stage.room.slot(), GREEN, 2, 0)
    await eventually_async(lambda: stage.room.pool("shop", "green")["state"] == "standby")
    await eventually_async(lambda: not worker.draining, what="the worker knows of the end")


@deploys(CANARY)
async def test_a_canary_on_a_pool_that_drains_is_not_drained(stage):
    """The new clients are there to stay: no deadline of the former ones is theirs."""
    await stage.there_and_back()
    worker = stage.room.workers[0]
    worker.in_flight(stage.room.slot(), GREEN, 2, 1)
    await stage.room.controller.switch({"shop": "green"}, actor=ALICE)
    await stage.room.controller.switch({"shop": "blue"}, actor=ALICE)
    await eventually_async(lambda: ("shop", GREEN) in worker.draining)
    await stage.begin()
    await stage.until_share(20)
    await eventually_async(lambda: not worker.draining, what="the worker ends nothing there")
    assert stage.room.pool("shop", "green")["state"] == "standby"


@deploys(CANARY)
async def test_after_a_restart_a_canary_is_drained_too(stage):
    """The start makes the traffic whole; what the canary's clients began has its deadlines all the same."""
    await stage.begin()
    await stage.until_share(20)
    stage.room.workers[0].in_flight(stage.room.slot(), GREEN, 2, 1)
    await stage.room.restart()
    assert (await stage.ended())["state"] == "rolled_back"
    assert stage.room.pool("shop", "green")["state"] == "draining"
    stage.room.workers[0].in_flight(stage.room.slot(), GREEN, 2, 0)


# --- edits ----------------------------------------------------------------------------------------------------------


@deploys(CANARY)
async def test_the_pool_of_a_canary_is_not_changed_by_hand(stage):
    """As before the switch: a share of the users is there, and the rules judge what was deployed."""
    await stage.begin()
    await stage.until_share(20)
    with pytest.raises(Busy, match="green is being deployed to"):
        await stage.room.controller.set_pool("shop", "green", version="3.0", upstreams=None, actor=BOB)
    assert stage.get()["running"]


@pytest.fixture
def reload(stage, monkeypatch):
    """Takes a file in which `blue`, `green` or both have this URL for their upstream."""

    async def now(**urls: str) -> None:
        shop = stage.room.config.services["shop"]
        changed = {pool: replace(getattr(shop.pools, pool), upstreams=(url,)) for pool, url in urls.items()}
        config = replace(stage.room.config, services={"shop": replace(shop, pools=replace(shop.pools, **changed))})

        async def load(*_: Any) -> Any:
            return config

        monkeypatch.setattr(source, "load_async", load)
        await stage.room.controller.reload(actor=BOB)

    return now


@pytest.fixture
async def another():
    upstream = await Upstream().start()
    yield upstream
    await upstream.stop()


@deploys(BY_HAND)
async def test_a_reload_that_changes_the_proven_pool_ends_the_deployment(stage, reload, another):
    """What would go live is not what was proven."""
    await stage.begin(until="awaiting_approval")
    await reload(green=another.url)
    found = await stage.ended()
    assert (found["state"], found["steps"][-1]["by"]) == ("aborted", "bob")
    assert found["outcome"] == "green got other upstreams by a reload (bob), which nothing has proven; deploy again"
    assert stage.room.everywhere() == ("blue", "blue", "blue")


@deploys(CANARY)
async def test_a_reload_that_changes_the_pool_of_a_canary_takes_it_back(stage, reload, another):
    """The clients that have moved were not to be there."""
    await stage.begin()
    await stage.until_share(20)
    await reload(green=another.url)
    found = await stage.ended()
    assert (found["state"], stage.share()) == ("rolled_back", 0)
    assert "other upstreams by a reload" in found["outcome"]


@deploys(BY_HAND)
async def test_a_reload_of_anything_else_ends_nothing(stage, reload, another):
    """Neither of the live pool nor of what is as it was; the deployment goes on with its own settings."""
    await stage.begin(until="awaiting_approval")
    await reload(blue=another.url, green=stage.room.upstreams["shop", "green"].url)
    await stage.room.until("shop", "blue", healthy=True)
    await eventually_async(lambda: stage.get()["waits"])
    await stage.room.controller.deployments.approve(stage.number, actor=ALICE)
    assert (await stage.ended())["state"] == "succeeded"


# --- beginning --------------------------------------------------------------------------------------------------------


@deploys(Deployment())
async def test_nothing_is_deployed_to_a_pool_that_is_about_to_be_live(stage):
    """A switch that has begun would make it so under the deployment's hands; who comes right behind it is refused too."""
    stage.room.workers[0].stop()
    switching = asyncio.create_task(stage.room.controller.switch({"shop": "green"}, actor=BOB))
    await eventually_async(lambda: stage.service.coming == GREEN)
    with pytest.raises(Busy, match="is switched just now, so green is not idle"):
        await stage.begin(version="3.0")
    stage.room.workers[0].go()
    await switching
    assert stage.room.on_disk().last_deployment == 0


@deploys(Deployment())
async def test_a_switch_that_is_quicker_on_the_disk_is_seen(stage, monkeypatch):
    """Between the question and its turn at the disk the other pool has become live: that one is not deployed to."""
    service, gate = stage.service, asyncio.Event()
    ledger = stage.room.controller._parts.ledger
    change = ledger.change

    async def later(make, put):
        await gate.wait()
        return await change(make, put)

    monkeypatch.setattr(ledger, "change", later)
    beginning = asyncio.create_task(stage.begin(version="3.0"))
    await asyncio.sleep(0)
    monkeypatch.setattr(ledger, "change", change)
    await stage.room.controller.switch({"shop": "green"}, actor=BOB)
    gate.set()
    with pytest.raises(Busy, match="green is not idle"):
        await beginning
    assert service.deployment is None


@deploys(Deployment())
async def test_a_version_alone_fills_no_empty_pool(stage):
    """It is refused at once, not in the middle."""
    await stage.room.controller.set_pool("shop", "green", version=None, upstreams=(), actor=ALICE)
    with pytest.raises(Refused, match="green is idle and has no upstreams"):
        await stage.begin(version="3.0")
    with pytest.raises(Refused, match="green is idle and has no upstreams"):
        await stage.begin(upstreams=())


# --- approvals --------------------------------------------------------------------------------------------------------


@deploys(BY_HAND)
async def test_who_approved_is_who_had_it_switched(stage):
    """The transition, and its event, have the name and the reason; a second yes changes nothing."""
    await stage.begin(until="awaiting_approval")
    await eventually_async(lambda: stage.get()["waits"])
    deployments = stage.room.controller.deployments
    await deployments.approve(stage.number, actor=BOB, reason="looks good")
    await deployments.approve(stage.number, actor=ALICE)
    found = await stage.ended()
    by = [(step["by"], step["why"]) for step in found["steps"] if step["state"] == "switching"]
    assert by == [("bob", "approved by bob (looks good)")]
    assert [result["found"] for result in found["results"] if result["name"] == "approval"] == [by[0][1]]
    (event,) = [
        event
        for event in stage.room.controller.events.history(limit=50)
        if event["type"] == "deployment" and event["data"]["state"] == "switching"
    ]
    assert (event["actor"]["name"], event["reason"]) == by[0]


@deploys(BY_HAND)
async def test_what_is_aborted_cannot_be_approved(stage):
    """Nor what was approved a moment ago be kept from an abort: the switch has not begun."""
    await stage.begin(until="awaiting_approval")
    await eventually_async(lambda: stage.get()["waits"])
    deployments = stage.room.controller.deployments
    await deployments.approve(stage.number, actor=ALICE)
    await deployments.abort(stage.number, actor=BOB)
    with pytest.raises(Refused, match=f"Deployment {stage.number} is about to end: aborted by bob"):
        await deployments.approve(stage.number, actor=ALICE)
    found = await stage.ended()
    assert (found["state"], found["outcome"]) == ("aborted", "aborted by bob")
    assert stage.room.everywhere() == ("blue", "blue", "blue")


# --- an abort in the middle of the flip -----------------------------------------------------------------------------


@deploys(Deployment())
async def test_an_abort_in_the_middle_of_the_switch_leaves_the_old_pool_live(stage):
    """The switch waits for a worker; it comes to its end, and then everybody goes back. What is told is what is so."""
    worker = stage.room.workers[0]
    worker.stop()
    await stage.begin(until="switching")
    await eventually_async(lambda: stage.service.coming == GREEN, what="the switch waits for the worker")
    await stage.room.controller.deployments.abort(stage.number, actor=BOB)
    for _ in range(10):  # nothing is told before the switch has come to its end
        await asyncio.sleep(0)
        assert stage.get()["running"]
    worker.go()
    found = await stage.ended()
    await eventually_async(lambda: not stage.service.changing, what="no change under way")
    assert (found["state"], found["outcome"]) == ("rolled_back", "aborted by bob")
    assert stage.room.everywhere() == ("blue", "blue", "blue")


# --- services that leave ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "state", "end"),
    [
        (Deployment(provision=Hook(run="sleep 60")), "provisioning", "aborted"),
        (Deployment(verify=Verify(checks=(Check(name="long", run="sleep 60"),))), "verifying", "aborted"),
        (Deployment(compare=Compare(for_=600.0)), "comparing", "aborted"),
        (BY_HAND, "awaiting_approval", "aborted"),
        (CANARY, "switching", "failed"),
        (Deployment(bake=Bake(for_=600.0)), "baking", "failed"),
        (Deployment(retire=Retire(after=600.0)), "retiring", "succeeded"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_service_that_leaves_the_file_takes_its_deployment_along(tmp_path, monkeypatch, settings, state, end):
    """In every stage, at once, and with the reason; when it comes back it can be deployed to, and nothing is left of the former."""
    async with ControlRoom(tmp_path, names=("shop", "api"), deployment=settings) as room:
        stage, controller = Stage(room), room.controller
        await stage.begin(until=state)
        if settings is CANARY:
            await stage.until_share(20)
        both = room.config
        files = [replace(both, services={"api": both.services["api"]}), both]

        async def load(*_: Any) -> Any:
            return files.pop(0)

        monkeypatch.setattr(source, "load_async", load)
        await controller.reload(actor=BOB)
        found = await stage.ended()
        assert (found["state"], "the service has left the configuration" in found["outcome"]) == (end, True)
        await room.told()
        assert ("shop", end) not in controller.tallies.deployments
        await controller.reload(actor=BOB)
        await room.until_healthy()
        assert (room.service()["share"], room.service()["deployment"]) == (0, None)
        await stage.begin(until=state)
        await controller.deployments.abort(stage.number, actor=BOB)
        await stage.ended()


async def test_several_services_do_not_switch_past_a_deployment_of_one(tmp_path):
    """All or none: the refusal names the deployment. By force all of them go, and the deployment has ended."""
    async with ControlRoom(tmp_path, names=("shop", "api"), deployment=BY_HAND) as room:
        stage, controller = Stage(room), room.controller
        await stage.begin(until="awaiting_approval")
        both = {"api": "green", "shop": "green"}
        with pytest.raises(Busy, match=f"shop: deployment {stage.number} is under way"):
            await controller.switch(both, actor=BOB)
        assert room.everywhere("api") == room.everywhere("shop") == ("blue", "blue", "blue")
        assert stage.get()["running"]
        await controller.switch(both, actor=BOB, force=True, reason="both at once")
        found = await stage.ended()
        assert (found["state"], found["outcome"]) == ("aborted", "green was made live by bob (both at once)")
        assert room.everywhere("api") == room.everywhere("shop") == ("green", "green", "green")


# --- secrets --------------------------------------------------------------------------------------------------------------

SECRET = "s3cr3t-t0ken"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/{0}?key={0}", "http://user:{0}@127.0.0.1:1/", "http://no.such.invalid/{0}"]
)
@pytest.mark.parametrize("where", ["provision", "verify", "retire"])
async def test_a_secret_of_the_configuration_is_shown_nowhere(tmp_path, caplog, url, where):
    """The URL of a webhook and the fields of a check are; neither in the answers for a viewer, nor in events, the log or the state."""
    caplog.set_level(logging.DEBUG)
    hook = url.format(SECRET)
    asks = Check(name="asks", request="GET /", headers={"Authorization": f"Bearer {SECRET}"}, body=SECRET)
    checks = (asks, *([Check(name="calls", webhook=hook, timeout=5.0)] if where == "verify" else []))
    settings = Deployment(
        provision=Hook(webhook=hook, timeout=5.0) if where == "provision" else None,
        verify=Verify(checks=checks, healthy=100.0),
        retire=Retire(after=0.0, webhook=hook, timeout=5.0) if where == "retire" else None,
        notify=(Notify(webhook=hook, on=("started", "switched", "succeeded", "failed"), timeout=5.0),),
    )
    async with ControlRoom(tmp_path, deployment=settings) as room:
        stage = Stage(room)
        await stage.begin()
        found = await stage.ended()
        assert found["state"] == ("succeeded" if where == "retire" else "failed")
        await eventually_async(lambda: not room.controller._notifier._tasks, what="everybody is told")
        shown = [
            found,
            room.controller.status(),
            room.controller.events.since(0),
            room.controller.deployments.listing("shop"),
        ]
        assert SECRET not in json.dumps(shown)
        assert "was not told of" in caplog.text
        assert SECRET not in caplog.text
        for file in room.state_dir.rglob("*"):
            assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file
