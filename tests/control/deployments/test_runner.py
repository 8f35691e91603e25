"""The runner: what begins and what does not, approvals, and what is kept and told."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from support.control_room import ALICE

from bgproxy.control.actor import Actor
from bgproxy.control.deployments.keeping import KEPT_OF_A_SERVICE
from bgproxy.control.deployments.stage import NotApproved
from bgproxy.control.store import Store
from bgproxy.errors import Busy, Invalid, NotFound, Refused, StateError
from bgproxy.model.deployment import STAGES
from bgproxy.model.deployment import DeploymentState as State

BOB = Actor("bob", "10.0.0.2")


# --- beginning ----------------------------------------------------------------------------------------------------------


async def test_one_at_a_time_for_a_service(scene):
    """The second is refused with what the first does; after its end another may begin, and has the next number."""
    scene.script.waits = {State.VERIFYING}
    first = await scene.deploy()
    await scene.at(first, State.VERIFYING)
    with pytest.raises(Busy, match=f"deployment {first} is verifying; one at a time"):
        await scene.deploy()
    await scene.runner.abort(first, actor=BOB)
    await scene.until(first, State.ABORTED)
    scene.script.waits = set()
    second = await scene.deploy()
    assert second == first + 1
    await scene.until(second, State.SUCCEEDED)


async def test_a_key_finds_what_it_has_begun(scene):
    """While it runs, when it has ended, and after a restart; nobody else's, and not of another service."""
    scene.script.waits.add(State.VERIFYING)
    number = await scene.deploy(key="k1")
    assert scene.runner.begun_under("shop", ALICE, "k1")["id"] == number
    await scene.at(number, State.VERIFYING)
    await scene.restart()
    assert scene.runner.begun_under("shop", ALICE, "k1")["id"] == number
    await scene.runner.abort(number, actor=ALICE)
    await scene.until(number, State.ABORTED)
    assert scene.runner.begun_under("shop", ALICE, "k1")["state"] == "aborted"
    for service, actor, key in (("shop", BOB, "k1"), ("api", ALICE, "k1"), ("shop", ALICE, "k2"), ("shop", ALICE, "")):
        assert scene.runner.begun_under(service, actor, key) is None


async def test_what_cannot_begin_is_refused(scene):
    """Nothing is written of it."""
    with pytest.raises(NotFound, match="no service 'nope'"):
        await scene.runner.start("nope", actor=ALICE)
    with pytest.raises(Invalid, match="strategy: 'big-bang' is not allowed"):
        await scene.deploy(strategy="big-bang")
    with pytest.raises(Invalid, match="upstreams"):
        await scene.deploy(upstreams=("no url",))
    with pytest.raises(Invalid, match="is in blue too"):
        await scene.deploy(upstreams=(scene.room.upstreams["shop", "blue"].url,))
    await scene.room.controller.set_pool("shop", "green", version=None, upstreams=(), actor=ALICE)
    with pytest.raises(Refused, match="green is idle and has no upstreams"):
        await scene.deploy()
    assert not scene.room.on_disk().deployments


async def test_a_strategy_can_be_asked_for(scene):
    """Instead of the configured one, and the stages see it."""
    scene.script.waits = {State.VERIFYING}
    number = await scene.deploy(strategy="canary")
    await scene.at(number, State.VERIFYING)
    assert scene.run.settings.strategy.type == "canary"
    assert scene.runner.get(number)["strategy"] == "canary"


# --- a disk that fails --------------------------------------------------------------------------------------------------


async def test_a_disk_that_fails_begins_nothing(scene, monkeypatch):
    """A deployment that cannot be written down is none."""

    async def full(_self, _state) -> None:
        raise StateError("state.json cannot be written: No space left on device. Nothing was changed.")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "write", full)
        with pytest.raises(StateError, match="No space left"):
            await scene.deploy()
    assert scene.runner.running("shop") is None
    number = await scene.deploy()
    await scene.until(number, State.SUCCEEDED)


async def test_what_ended_on_a_full_disk_does_not_begin_again(scene, monkeypatch):
    """Everybody was told that it has failed: no later start may go on with it, to the switch. Its end is written late."""
    scene.script.waits = {State.VERIFYING}
    number = await scene.deploy()
    await scene.at(number, State.VERIFYING)

    async def full(_self, _state) -> None:
        raise StateError("state.json cannot be written: No space left on device. Nothing was changed.")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "write", full)
        await scene.runner.abort(number, actor=BOB)
        found = await scene.until(number, State.ABORTED)
        assert (found["outcome"], found["running"]) == ("aborted by bob", False)
        assert [one["state"] for one in scene.runner.listing("shop")] == ["aborted"]
        with pytest.raises(Refused, match="has ended: it was aborted"):
            await scene.runner.abort(number, actor=BOB)
    await scene.restart(waits=set())
    assert scene.runner.get(number)["state"] == "aborted"
    assert scene.room.on_disk().deployments[number].state is State.ABORTED
    told = [event for event in scene.room.controller.events.history(limit=50) if event["type"] == "deployment"]
    assert (told[-1]["data"]["state"], told[-1]["actor"]["name"]) == ("aborted", "bob")
    assert scene.script.begun == []


async def test_the_next_one_brings_the_end_of_the_former_along(scene, monkeypatch):
    """The disk takes things again: in the history the former has ended before the next one begins."""
    scene.script.waits = {State.VERIFYING}
    number = await scene.deploy()
    await scene.at(number, State.VERIFYING)

    async def full(_self, _state) -> None:
        raise StateError("state.json cannot be written: No space left on device. Nothing was changed.")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "write", full)
        await scene.runner.abort(number, actor=BOB)
        await scene.until(number, State.ABORTED)
    again = await scene.deploy()
    history = scene.room.controller.events.history(limit=50)
    told = [(event["data"]["id"], event["data"]["state"]) for event in history if event["type"] == "deployment"]
    assert told.index((number, "aborted")) < told.index((again, "queued"))
    assert told.count((number, "aborted")) == 1
    assert not scene.runner._unwritten.records


async def test_of_two_that_run_by_the_disk_only_the_latest_goes_on(scene):
    """The end of the former could not be written, and then everything died."""
    scene.script.waits = {State.VERIFYING}
    first = await scene.deploy()
    await scene.at(first, State.VERIFYING)
    ledger = scene.room.controller._parts.ledger
    former = ledger.state.deployments[first]
    later = replace(former, id=first + 1)
    both = {first: former, later.id: later}
    await ledger.change(lambda state: (replace(state, deployments=both, last_deployment=later.id), ()), lambda _: None)
    await scene.restart(waits=set())
    await scene.until(later.id, State.SUCCEEDED)
    found = scene.runner.get(first)
    assert (found["state"], found["running"]) == ("aborted", False)
    assert found["outcome"] == f"deployment {later.id} came after it; how it ended was not written down"
    assert scene.script.begun.count(State.VERIFYING) == 1


# --- approvals ----------------------------------------------------------------------------------------------------------


async def test_an_approval_lets_it_go_on(scene):
    """Who gave it is in the results; one that does not wait cannot be approved."""
    scene.script.waits = {State.AWAITING_APPROVAL}
    number = await scene.deploy()
    await scene.at(number, State.AWAITING_APPROVAL)
    await scene.runner.approve(number, actor=BOB, reason="looks good")
    found = await scene.until(number, State.SUCCEEDED)
    assert [result["found"] for result in found["results"]] == ["approved by bob (looks good)"]
    with pytest.raises(Refused, match="has ended: it has succeeded"):
        await scene.runner.approve(number, actor=BOB)
    with pytest.raises(NotFound, match="no deployment 77"):
        await scene.runner.approve(77, actor=BOB)


async def test_who_does_not_wait_cannot_be_approved(scene):
    """A yes that nobody has asked for would count for something else later."""
    started = asyncio.Event()
    scene.script.waits = set()
    entry = scene.table[State.VERIFYING]

    async def busy(_run) -> None:
        started.set()
        await asyncio.Event().wait()

    scene.table[State.VERIFYING] = replace(entry, stage=busy)
    number = await scene.deploy()
    await started.wait()
    with pytest.raises(Refused, match="is verifying and does not wait"):
        await scene.runner.approve(number, actor=BOB)


async def test_nobody_approves_in_time(scene):
    """It ends as aborted: nothing was wrong with it."""
    scene.script.fails = {State.AWAITING_APPROVAL: NotApproved("nobody approved it within 24h")}
    number = await scene.deploy()
    assert (await scene.until(number, State.ABORTED))["outcome"] == "nobody approved it within 24h"


# --- what is kept ---------------------------------------------------------------------------------------------------------


async def test_the_latest_are_kept(scene):
    """So many of a service, on the disk too; the numbers go on rising."""
    scene.script.skipped = {state for state, _ in STAGES} - {State.SWITCHING}
    numbers = []
    for _ in range(KEPT_OF_A_SERVICE + 3):
        numbers.append(await scene.deploy())
        await scene.until(numbers[-1], State.SUCCEEDED)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert [found["id"] for found in scene.runner.listing("shop")] == numbers[-KEPT_OF_A_SERVICE:]
    assert sorted(scene.room.on_disk().deployments) == numbers[-KEPT_OF_A_SERVICE:]
    with pytest.raises(NotFound):
        scene.runner.get(numbers[0])
