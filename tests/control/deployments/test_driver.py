"""The driver: the way through the table, its ends, what comes from outside meanwhile, and what a restart finds."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from support.control_room import ALICE, Upstream
from support.waiting import eventually_async

from bgproxy.config.schema import Deployment, Hook
from bgproxy.control.actor import Actor
from bgproxy.control.deployments.stage import Halted, Run
from bgproxy.control.store import Store
from bgproxy.errors import Busy, StateError
from bgproxy.model.deployment import AFTER_FLIP, BEFORE_FLIP, STAGES, Result
from bgproxy.model.deployment import DeploymentState as State

BOB = Actor("bob", "10.0.0.2")
WHOLE_WAY = ["queued", *(state.value for state, _ in STAGES)]


# --- the way through ----------------------------------------------------------------------------------------------------


async def test_it_goes_through_every_stage(scene):
    """In order, each transition in the history with who asked for it, and on the disk before the stage begins."""
    number = await scene.deploy(reason="release 2")
    found = await scene.until(number, State.SUCCEEDED)
    assert scene.way(number) == WHOLE_WAY
    assert scene.room.everywhere() == ("green", "green", "green")
    assert (found["running"], found["outcome"], found["reason"]) == (False, "green is live", "release 2")
    assert found["actor"] == {"name": "alice", "address": "10.0.0.1"}
    told = [event for event in scene.room.controller.events.history(limit=100) if event["type"] == "deployment"]
    assert [event["data"]["state"] for event in told] == WHOLE_WAY
    assert (told[0]["actor"]["name"], told[0]["reason"]) == ("alice", "release 2")
    assert scene.room.on_disk().deployments[number].state is State.SUCCEEDED
    assert scene.heard[0] == ("queued", "queued")
    assert [after for _, after in scene.heard[1:]] == WHOLE_WAY[1:]


async def test_a_stage_that_is_not_configured_is_skipped(scene):
    """All but the switch can be."""
    scene.script.skipped = {state for state, _ in STAGES} - {State.SWITCHING}
    number = await scene.deploy()
    await scene.until(number, State.SUCCEEDED)
    assert scene.way(number) == ["queued", "switching", "succeeded"]


# --- what goes wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(BEFORE_FLIP - {State.QUEUED}, key=lambda state: state.value))
async def test_before_the_switch_a_failure_changes_nothing(scene, state):
    """It has failed, with the cause; blue is live as before."""
    scene.script.fails = {state: Halted("the cart is empty", ("expected: full",))}
    number = await scene.deploy()
    found = await scene.until(number, State.FAILED)
    assert found["outcome"] == "the cart is empty"
    assert found["results"][-1]["details"] == ["expected: full"]
    assert scene.room.everywhere() == ("blue", "blue", "blue")
    assert scene.room.controller._registry.find("shop").deployment is None


@pytest.mark.parametrize("state", [State.SWITCHING, State.BAKING])
async def test_from_the_switch_on_it_is_rolled_back(scene, state):
    """Once, and the history says why."""
    scene.script.fails = {state: Halted("5% of 200 requests failed")}
    number = await scene.deploy()
    found = await scene.until(number, State.ROLLED_BACK)
    assert found["outcome"] == "5% of 200 requests failed"
    assert scene.room.everywhere() == ("blue", "blue", "blue")
    assert scene.way(number)[-2:] == ["rolling_back", "rolled_back"]
    backs = [event for event in scene.room.controller.events.history(limit=50) if event["type"] == "rolled_back"]
    assert [(event["actor"]["name"], event["reason"]) for event in backs] == [
        (f"deployment {number}", "5% of 200 requests failed")
    ]


async def test_what_cannot_be_rolled_back_stays_and_says_so(scene):
    """The old pool is not fit to go back to: green stays live."""
    scene.script.fails = {State.BAKING: Halted("too slow"), State.ROLLING_BACK: Halted("no upstream of blue is up")}
    scene.script.skipped = {State.RETIRING}
    number = await scene.deploy()
    found = await scene.until(number, State.FAILED)
    assert found["outcome"].startswith("too slow; and it could not be rolled back: no upstream of blue is up")


@pytest.mark.parametrize("state", [State.DRAINING, State.RETIRING])
async def test_a_proven_version_is_not_taken_back_for_the_old_pool(scene, state):
    """What fails after the bake is told, and the deployment has succeeded."""
    scene.script.fails = {state: Halted("the command ended with status 1")}
    number = await scene.deploy()
    found = await scene.until(number, State.SUCCEEDED)
    assert found["outcome"] == "green is live, but the command ended with status 1"
    assert scene.room.everywhere() == ("green", "green", "green")


async def test_every_stage_has_a_time_out(scene):
    """The stage is cancelled, and the time-out is the cause."""
    scene.script.waits, scene.script.limits = {State.COMPARING}, {State.COMPARING: 0.05}
    number = await scene.deploy()
    found = await scene.until(number, State.FAILED)
    assert found["outcome"] == "it was comparing for longer than 50ms"
    assert scene.script.cancelled == [State.COMPARING]


async def test_a_time_out_within_a_stage_is_not_that_of_the_stage(scene):
    """What is told must not send the operator to a setting that has nothing to do with it."""
    scene.script.fails = {State.WARMING: TimeoutError()}
    number = await scene.deploy()
    found = await scene.until(number, State.FAILED)
    assert found["outcome"] == "a fault of bgproxy: TimeoutError()"


async def test_what_the_stage_has_told_is_not_told_again(scene):
    """Its result has the output of the command; the outcome needs no second copy of it."""

    async def stage(run: Run) -> None:
        details = ("no such image",)
        run.keep(Result(stage="verifying", name="smoke", ok=False, found="status 1", details=details))
        raise Halted("check 'smoke': status 1", details)

    entry = scene.table[State.VERIFYING]
    scene.table[State.VERIFYING] = replace(entry, stage=stage)
    number = await scene.deploy()
    found = await scene.until(number, State.FAILED)
    assert [result["name"] for result in found["results"]] == ["smoke"]


async def test_a_fault_of_ours_on_the_way_back_ends_it_too(scene):
    """It is told as what it is, and the next deployment can begin."""
    scene.script.fails = {State.BAKING: Halted("too slow"), State.ROLLING_BACK: ZeroDivisionError("division by zero")}
    number = await scene.deploy()
    found = await scene.until(number, State.FAILED)
    assert "too slow; and it could not be rolled back: division by zero" in found["outcome"]
    assert scene.room.on_disk().deployments[number].state is State.FAILED


async def test_a_fault_of_ours_ends_it_in_order(scene):
    """Whatever a stage raises: before the switch it has failed, and the next one can begin."""
    scene.script.fails = {State.WARMING: ZeroDivisionError("division by zero")}
    number = await scene.deploy()
    found = await scene.until(number, State.FAILED)
    assert "a fault of bgproxy: ZeroDivisionError" in found["outcome"]


async def test_a_disk_that_fails_on_the_way_ends_it(scene, monkeypatch):
    """Before the switch: nothing has happened to users, and the reason is the disk's."""
    scene.script.waits = {State.VERIFYING}
    number = await scene.deploy()
    await scene.at(number, State.VERIFYING)

    async def full(_self, _state) -> None:
        raise StateError("state.json cannot be written: No space left on device. Nothing was changed.")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "write", full)
        run = scene.run
        run.approved.set()
        await eventually_async(lambda: run.record.state is State.FAILED)
    assert "No space left" in run.record.steps[-1].why
    assert scene.runner.running("shop") is None
    assert scene.room.everywhere() == ("blue", "blue", "blue")


async def test_a_disk_that_fails_does_not_keep_it_from_going_back(scene, monkeypatch):
    """The way back is gone whether or not it could be noted before; what came of it is noted once that can be."""
    scene.script.waits = {State.BAKING}
    number = await scene.deploy()
    await scene.at(number, State.BAKING)
    write, refused = Store.write, []

    async def full(self, state) -> None:
        if not refused:
            refused.append(state.deployments[number].state)
            raise StateError("state.json cannot be written: No space left on device. Nothing was changed.")
        await write(self, state)

    monkeypatch.setattr(Store, "write", full)
    await scene.runner.abort(number, actor=BOB)
    await scene.until(number, State.ROLLED_BACK)
    assert refused == [State.ROLLING_BACK]
    assert scene.room.everywhere() == ("blue", "blue", "blue")
    assert [step.state for step in scene.room.on_disk().deployments[number].steps][-2:] == [
        "rolling_back",
        "rolled_back",
    ]


# --- from outside -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(BEFORE_FLIP - {State.QUEUED}, key=lambda state: state.value))
async def test_an_abort_before_the_switch_changes_nothing(scene, state):
    """The stage is cancelled; who and why are told."""
    scene.script.waits = {state}
    number = await scene.deploy()
    await scene.at(number, state)
    await scene.runner.abort(number, actor=BOB, reason="wrong build")
    found = await scene.until(number, State.ABORTED)
    assert found["outcome"] == "aborted by bob (wrong build)"
    assert found["steps"][-1]["by"] == "bob"
    assert scene.script.cancelled == [state]
    assert scene.room.everywhere() == ("blue", "blue", "blue")


@pytest.mark.parametrize("state", [State.SWITCHING, State.BAKING])
async def test_an_abort_from_the_switch_on_rolls_back(scene, state):
    """Also where the switch has just begun and nothing has moved."""
    scene.script.waits = {state}
    number = await scene.deploy()
    await scene.at(number, state)
    await scene.runner.abort(number, actor=BOB)
    found = await scene.until(number, State.ROLLED_BACK)
    assert found["outcome"] == "aborted by bob"
    assert scene.room.everywhere() == ("blue", "blue", "blue")


async def test_an_abort_in_the_stand_by_calls_off_the_rest(scene):
    """The new version is live and has proven itself; the old pool is left as it is."""
    scene.script.waits = {State.RETIRING}
    number = await scene.deploy()
    await scene.at(number, State.RETIRING)
    await scene.runner.abort(number, actor=BOB)
    found = await scene.until(number, State.SUCCEEDED)
    assert found["outcome"] == "it is live; what was left was called off: aborted by bob"
    assert scene.room.everywhere() == ("green", "green", "green")


@pytest.mark.parametrize("state", [State.BAKING, State.DRAINING, State.RETIRING])
async def test_a_rollback_by_hand_goes_first(scene, state):
    """At any time after the switch; the deployment is rolled back then, by who did it, and does nothing more."""
    scene.script.waits = {state}
    number = await scene.deploy()
    await scene.at(number, state)
    with pytest.raises(Busy, match=f"deployment {number} is under way"):
        await scene.room.controller.switch({"shop": "blue"}, actor=BOB)
    await scene.room.controller.rollback("shop", actor=BOB, reason="customers call")
    found = await scene.until(number, State.ROLLED_BACK)
    assert found["outcome"] == "blue was made live by bob (customers call)"
    assert scene.room.everywhere() == ("blue", "blue", "blue")
    assert State.ROLLING_BACK not in scene.script.begun


async def test_a_forced_switch_before_the_switch_ends_it(scene):
    """The operator has done what the deployment was for."""
    scene.script.waits = {State.VERIFYING}
    number = await scene.deploy()
    await scene.at(number, State.VERIFYING)
    await scene.room.controller.switch({"shop": "green"}, actor=BOB, force=True)
    assert (await scene.until(number, State.ABORTED))["outcome"] == "green was made live by bob"
    assert scene.room.everywhere() == ("green", "green", "green")


async def test_a_rollback_at_the_last_moment_is_not_told_as_success(scene, monkeypatch):
    """The success waits for its turn at the disk, and the rollback is first there."""
    scene.script.waits = {State.RETIRING}
    number = await scene.deploy()
    await scene.at(number, State.RETIRING)
    ledger, gate = scene.room.controller._parts.ledger, asyncio.Event()
    change = ledger.change

    async def later(make, put):
        await gate.wait()
        return await change(make, put)

    monkeypatch.setattr(ledger, "change", later)
    scene.run.approved.set()
    await eventually_async(lambda: scene.driver._task is None, what="the last stage has ended")
    await asyncio.sleep(0)
    monkeypatch.setattr(ledger, "change", change)
    await scene.room.controller.rollback("shop", actor=BOB)
    gate.set()
    found = await scene.until(number, State.ROLLED_BACK)
    assert found["outcome"] == "blue was made live by bob"
    assert "succeeded" not in scene.way(number)


async def test_a_rollback_behind_an_abort_is_not_told_as_success(scene, monkeypatch):
    """The rest was called off, and before that was on the disk somebody went back."""
    scene.script.waits = {State.RETIRING}
    number = await scene.deploy()
    await scene.at(number, State.RETIRING)
    ledger, gate, waiting = scene.room.controller._parts.ledger, asyncio.Event(), []
    change = ledger.change

    async def later(make, put):
        waiting.append(True)
        await gate.wait()
        return await change(make, put)

    monkeypatch.setattr(ledger, "change", later)
    await scene.runner.abort(number, actor=BOB)
    await eventually_async(lambda: waiting, what="the success is to be written")
    monkeypatch.setattr(ledger, "change", change)
    await scene.room.controller.rollback("shop", actor=ALICE)
    gate.set()
    found = await scene.until(number, State.ROLLED_BACK)
    assert found["outcome"] == "blue was made live by alice"
    assert "succeeded" not in scene.way(number)


async def test_a_forced_switch_behind_a_rollback_is_not_told_as_rolled_back(scene):
    """Somebody has gone forward again while the deployment went back: the new version is live."""
    scene.script.fails = {State.BAKING: Halted("too slow")}
    scene.script.waits = {State.ROLLING_BACK}
    number = await scene.deploy()
    await scene.at(number, State.ROLLING_BACK)
    run = scene.run
    await eventually_async(lambda: run.waits, what="blue is live again")
    assert scene.room.everywhere() == ("blue", "blue", "blue")
    await scene.room.controller.switch({"shop": "green"}, actor=BOB, force=True)
    run.approved.set()
    found = await scene.until(number, State.FAILED)
    assert found["outcome"] == "too slow; then green was made live by bob"
    assert scene.room.everywhere() == ("green", "green", "green")


async def test_an_abort_keeps_the_next_stage_from_being_entered(scene, monkeypatch):
    """Also the switching: what has not begun when it comes does not begin, and has not to be rolled back."""
    scene.script.waits = {State.WARMING}
    scene.script.skipped = {State.AWAITING_APPROVAL}
    number = await scene.deploy()
    await scene.at(number, State.WARMING)
    ledger, gate = scene.room.controller._parts.ledger, asyncio.Event()
    change = ledger.change

    async def later(make, put):
        await gate.wait()
        return await change(make, put)

    monkeypatch.setattr(ledger, "change", later)
    scene.run.approved.set()
    await eventually_async(lambda: scene.driver._task is None, what="the stage has ended")
    await asyncio.sleep(0)
    monkeypatch.setattr(ledger, "change", change)
    await scene.runner.abort(number, actor=BOB)
    gate.set()
    found = await scene.until(number, State.ABORTED)
    assert "switching" not in scene.way(number)
    assert found["outcome"] == "aborted by bob"


# --- restarts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.VERIFYING, State.COMPARING, State.WARMING, State.AWAITING_APPROVAL])
async def test_after_a_restart_a_stage_before_the_switch_begins_anew(scene, state):
    """And all that follow; the number, the way so far and the history are the same."""
    scene.script.waits = {state}
    number = await scene.deploy()
    await scene.at(number, state)
    await scene.restart(waits=set())
    await scene.until(number, State.SUCCEEDED)
    assert scene.way(number) == WHOLE_WAY
    assert scene.script.begun[0] is state
    assert scene.room.everywhere() == ("green", "green", "green")


@pytest.mark.parametrize(
    ("state", "end"),
    [(State.VERIFYING, State.ABORTED), (State.AWAITING_APPROVAL, State.ABORTED), (State.SWITCHING, State.ROLLED_BACK)],
)
async def test_after_a_restart_with_other_upstreams_it_does_not_go_on(scene, state, end):
    """The file has changed the pool meanwhile: what would go live is not what was proven."""
    scene.script.waits = {state}
    number = await scene.deploy()
    await scene.at(number, state)
    former = scene.room.upstreams["shop", "green"]
    scene.room.upstreams["shop", "green"] = another = await Upstream().start()
    scene.room.config = scene.room.made_config()
    await scene.restart(waits=set())
    found = await scene.until(number, end)
    assert found["outcome"] == "green got other upstreams by the file, which nothing has proven; deploy again"
    assert scene.room.everywhere() == ("blue", "blue", "blue")
    assert scene.room.pool("shop", "green")["upstreams"][0]["url"] == another.url
    await former.stop()


async def test_after_a_restart_a_switch_that_was_not_made_is_made(scene):
    """Nothing had moved."""
    scene.script.waits = {State.SWITCHING}
    number = await scene.deploy()
    await scene.at(number, State.SWITCHING)
    await scene.restart(waits=set())
    await scene.until(number, State.SUCCEEDED)
    assert scene.way(number) == WHOLE_WAY


async def test_after_a_restart_a_canary_is_rolled_back(scene):
    """The start has made the traffic whole; who was a canary has seen enough."""
    scene.script.waits = {State.SWITCHING}
    number = await scene.deploy(strategy="canary")
    await scene.at(number, State.SWITCHING)
    service = scene.room.controller._registry.find("shop")
    await scene.room.controller._parts.switcher.split(service, 25, actor=BOB)
    assert scene.room.board.share(service.slot) == 25
    await scene.restart(waits=set())
    found = await scene.until(number, State.ROLLED_BACK)
    assert found["outcome"] == "bgproxy was restarted while the traffic was split"
    assert scene.room.board.share(service.slot) == 0
    assert scene.room.everywhere() == ("blue", "blue", "blue")


@pytest.mark.parametrize("state", sorted(AFTER_FLIP - {State.SWITCHING}, key=lambda state: state.value))
async def test_after_a_restart_it_goes_on_behind_the_switch(scene, state):
    """The stage begins anew, and the traffic is not moved again."""
    scene.script.waits = {state}
    number = await scene.deploy()
    await scene.at(number, state)
    epoch = scene.room.board.epoch
    await scene.restart(waits=set())
    await scene.until(number, State.SUCCEEDED)
    assert scene.way(number) == WHOLE_WAY
    assert State.SWITCHING not in scene.script.begun
    assert scene.room.board.epoch == epoch


async def test_a_switch_that_was_made_right_before_the_end_is_found(scene):
    """The disk knew of the switch and not yet of the bake: it goes on with that."""
    scene.script.waits = {State.BAKING}
    number = await scene.deploy()
    await scene.at(number, State.BAKING)
    parts = scene.room.controller._parts
    record = parts.ledger.state.deployments[number]
    behind = replace(record, state=State.SWITCHING, steps=record.steps[:-1])
    await parts.ledger.change(lambda state: (replace(state, deployments={number: behind}), ()), lambda _: None)
    await scene.restart(waits=set())
    await scene.until(number, State.SUCCEEDED)
    assert scene.way(number) == WHOLE_WAY
    assert State.SWITCHING not in scene.script.begun


async def test_a_rollback_that_was_cut_short_is_completed(scene):
    """With the cause that it had."""
    scene.script.fails, scene.script.waits = {State.BAKING: Halted("too slow")}, {State.ROLLING_BACK}
    number = await scene.deploy()
    await scene.until(number, State.ROLLING_BACK)
    await scene.restart(waits=set(), fails={})
    found = await scene.until(number, State.ROLLED_BACK)
    assert found["outcome"] == "too slow"
    assert scene.room.everywhere() == ("blue", "blue", "blue")


async def test_a_command_that_a_restart_has_cut_short_is_not_run_again(scene):
    """Nobody knows how far the provisioning came."""
    with_command = Deployment(provision=Hook(run="make green"))
    for settings, state in ((with_command, State.FAILED), (Deployment(), State.PROVISIONING)):
        scene.room.config = scene.room.made_config(deployment=settings)
        await scene.restart(waits={State.PROVISIONING})
        number = await scene.deploy(version="3.0")
        await scene.at(number, State.PROVISIONING)
        if settings is with_command:
            await scene.run.remember(provision="running")
        await scene.restart()  # without a command it begins anew: setting a pool twice is setting it once
        found = await scene.until(number, state)
    assert found["results"] == []
    assert "restarted while the provisioning ran" in scene.runner.listing("shop")[0]["outcome"]
