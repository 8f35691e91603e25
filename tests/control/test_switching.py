"""Switches and rollbacks, from the request to the board, the disk, the workers and the answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from support.control_room import ALICE, ControlRoom
from support.waiting import eventually_async

from bgproxy.config.schema import Sessions
from bgproxy.control.actor import deployer
from bgproxy.control.statefile import encode
from bgproxy.control.store import Store
from bgproxy.errors import Busy, Invalid, NotFound, NotHealthy, Refused, Stale, StateError, Unavailable
from bgproxy.switchboard import layout
from bgproxy.switchboard.board import Switchboard
from bgproxy.switchboard.messages import DrainPool, Warm

BLUE, GREEN = 0, 1


@pytest.fixture
async def room(tmp_path):
    async with ControlRoom(tmp_path) as room:
        yield room


@pytest.fixture
async def two(tmp_path):
    async with ControlRoom(tmp_path, names=("shop", "api")) as room:
        yield room


async def switch(room: ControlRoom, to: str | None = "green", **how):
    (result,) = await room.controller.switch({"shop": to}, actor=ALICE, **how)
    return result


def picture(room: ControlRoom, *names: str):
    """All that a refused change must leave as it was."""
    services = [room.service(name) for name in names or ("shop",)]
    told = [(service["live"], service["previous"], service["generation"]) for service in services]
    states = [[pool["state"] for pool in service["pools"].values()] for service in services]
    history = room.controller.events.history(limit=1000)
    draining = [dict(worker.draining) for worker in room.workers]
    return told, states, room.board.epoch, [room.everywhere(name) for name in names or ("shop",)], history, draining


# --- what a switch does ---------------------------------------------------------------------------------------------


async def test_a_switch_is_in_memory_on_the_board_and_on_the_disk_when_it_answers(room):
    """And the answer, the status and the history say the same."""
    before = room.controller.generation("shop")
    result = await switch(room, reason="release 2.0")
    assert room.everywhere() == ("green", "green", "green")
    assert (result.live, result.previous, result.generation) == ("green", "blue", before + 1)
    assert result.switched_in_ms > 0
    assert result.drained is None
    service = room.service()
    assert (service["live"], service["previous"], service["generation"]) == ("green", "blue", before + 1)
    assert service["switched_at"].endswith("Z")
    event = room.controller.events.history("shop")[-1]
    assert (event["type"], event["pool"], event["reason"], event["actor"]) == (
        "switched",
        "green",
        "release 2.0",
        {"name": "alice", "address": "10.0.0.1"},
    )
    assert set(result.to_json()) == {"service", "live", "previous", "generation", "switched_in_ms", "drained"}


async def test_the_disk_comes_before_the_board(room, monkeypatch):
    """At the moment of the commit a restart would already find the new state: no order of crashes loses an answer."""
    seen = []

    class Spy:  # a compiled class lets nobody replace its methods
        workers = room.board.workers

        def commit(self, *args):
            seen.append(("blue", "green")[room.on_disk().services["shop"].live])
            return room.board.commit(*args)

    monkeypatch.setattr(room.controller._parts.switcher, "_board", Spy())
    await switch(room)
    assert seen == ["green"]


async def test_workers_are_told_to_drain_the_old_pool_and_to_open_connections_ahead(room):
    """The drain dates from the very commit; connections are for the pool that comes."""
    await switch(room)
    await eventually_async(lambda: all(worker.of(DrainPool) for worker in room.workers))
    for worker in room.workers:
        assert worker.of(DrainPool)[0].pool == BLUE
        assert worker.of(DrainPool)[0].since == pytest.approx(room.board.switched_at(room.slot()), abs=1e-3)
        assert worker.of(Warm)[0].pools == (("shop", GREEN),)


async def test_without_a_target_the_idle_pool_is_meant(room):
    """There and back again."""
    assert (await switch(room, None)).live == "green"
    assert (await switch(room, None)).live == "blue"
    assert room.everywhere() == ("blue", "blue", "blue")


async def test_a_switch_to_the_live_pool_changes_nothing_and_succeeds(room):
    """It is what was asked for; a script may say it twice."""
    before = picture(room)
    result = await switch(room, "blue")
    assert (result.live, result.switched_in_ms) == ("blue", 0)
    assert picture(room) == before


async def test_the_answer_can_wait_for_the_drain(room):
    """And says what was drained; the old pool is a standby then, and its end is an event."""
    room.workers[1].in_flight(room.slot(), BLUE, 0, 2)
    waiting = asyncio.create_task(switch(room, wait="drained"))
    await eventually_async(lambda: room.service()["live"] == "green")
    pool = room.pool("shop", "blue")
    assert pool["state"] == "draining"
    assert pool["drain"]["waiting_for"] == {"requests": 2, "streams": 0, "websockets": 0}
    assert not waiting.done()
    room.workers[1].in_flight(room.slot(), BLUE, 0, 0)
    drained = (await waiting).drained
    assert (drained["requests"], drained["complete"], drained["cut"]["requests"]) == (2, True, 0)
    assert room.pool("shop", "blue")["state"] == "standby"
    assert room.pool("shop", "blue")["drain"] is None
    assert room.controller.events.since(0)[-1]["type"] == "drained"
    await eventually_async(lambda: all(worker.draining == {} for worker in room.workers))


async def test_several_services_switch_in_one_instant(two):
    """One epoch, one generation."""
    epoch = two.board.epoch
    results = await two.controller.switch({"shop": "green", "api": None}, actor=ALICE)
    assert [(result.service, result.live) for result in results] == [("shop", "green"), ("api", "green")]
    assert two.board.epoch == epoch + 1
    assert len({result.generation for result in results}) == 1
    assert two.everywhere("shop") == two.everywhere("api") == ("green", "green", "green")


async def test_of_several_services_those_that_are_there_already_stay_as_they_are(two):
    """Their generation too."""
    await switch(two, "green")
    before = two.service("shop")["generation"]
    shop, api = await two.controller.switch({"shop": "green", "api": "green"}, actor=ALICE)
    assert (shop.generation, shop.switched_in_ms) == (before, 0)
    assert api.generation > before


# --- refusals -------------------------------------------------------------------------------------------------------


async def test_a_pool_that_is_not_healthy_is_refused_with_the_reasons(room):
    """Upstream by upstream; nothing has changed anywhere."""
    room.upstreams["shop", "green"].status = 500
    await room.until("shop", "green", healthy=False)
    before = picture(room)
    with pytest.raises(NotHealthy, match="shop: green is not healthy") as caught:
        await switch(room)
    assert len(caught.value.details) == 1
    assert "status 500, expected 200-399" in caught.value.details[0]
    assert room.upstreams["shop", "green"].id in caught.value.details[0]
    assert picture(room) == before


async def test_one_service_that_cannot_keeps_all_from_switching(two):
    """All or none."""
    two.upstreams["api", "green"].status = 500
    await two.until("api", "green", healthy=False)
    before = picture(two, "shop", "api")
    with pytest.raises(NotHealthy, match="api"):
        await two.controller.switch({"shop": "green", "api": "green"}, actor=ALICE)
    assert picture(two, "shop", "api") == before


async def test_force_overrules_health_but_not_emptiness(room):
    """An operator may know better than a check; but there is nobody in an empty pool."""
    room.upstreams["shop", "green"].status = 500
    await room.until("shop", "green", healthy=False)
    assert (await switch(room, force=True)).live == "green"
    await switch(room, "blue")
    await room.controller.set_pool("shop", "green", version=None, upstreams=[], actor=ALICE)
    before = picture(room)
    with pytest.raises(Refused, match="no upstreams"):
        await switch(room, force=True)
    assert picture(room) == before


async def test_what_is_out_by_hand_does_not_speak_against_a_pool_unless_it_is_all(room):
    """A pool of which everything is in maintenance cannot answer."""
    green = room.upstreams["shop", "green"]
    await room.controller.set_upstream_state("shop", "green", green.url, "maint", actor=ALICE)
    with pytest.raises(NotHealthy):
        await switch(room)
    await room.controller.set_upstream_state("shop", "green", green.id, "ready", actor=ALICE)
    await room.until("shop", "green", healthy=True)
    assert (await switch(room)).live == "green"


@pytest.mark.parametrize(
    ("targets", "how", "error"),
    [
        ({"shpo": "green"}, {}, NotFound),
        ({"shop": "red"}, {}, Invalid),
        ({}, {}, Invalid),
        ({"shop": "green"}, {"wait": "forever"}, Invalid),
        ({"shop": "green"}, {"if_match": 10**9}, Stale),
    ],
)
async def test_what_cannot_be_meant_is_refused(room, targets, how, error):
    """And nothing is changed."""
    before = picture(room)
    with pytest.raises(error):
        await room.controller.switch(targets, actor=ALICE, **how)
    assert picture(room) == before


async def test_a_stopped_worker_is_named_and_nothing_is_changed(room):
    """SIGSTOP: it could not be told apart from one that still sends requests to the old pool. It goes on, and all is well."""
    room.workers[1].stop()
    before = picture(room)
    with pytest.raises(Unavailable, match=r"worker 1 \(pid 1001\)"):
        await switch(room)
    assert picture(room) == before
    room.workers[1].go()
    assert (await switch(room)).live == "green"


async def test_a_dead_worker_is_not_waited_for(room):
    """Its successor begins with a whole snapshot."""
    room.workers[1].die()
    room.controller.lost(1)
    assert (await switch(room)).live == "green"
    assert not room.controller.ready()[0]


async def test_a_disk_that_fails_changes_nothing(room, monkeypatch):
    """Not in memory, not on the disk, not on the board; and afterwards all goes on."""
    before = picture(room)

    async def fail(*_):
        raise StateError("full")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", fail)
        with pytest.raises(StateError, match="full"):
            await switch(room)
        assert picture(room) == before
    assert (await switch(room)).live == "green"


async def test_only_one_change_of_a_service_at_a_time(room):
    """The second is refused, not queued: it was decided on by somebody who did not see the first."""
    first = asyncio.create_task(switch(room))
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await switch(room)
    assert (await first).live == "green"


async def test_services_do_not_keep_each_other_busy(two):
    """Only changes of the same service exclude each other."""
    first, second = await asyncio.gather(
        two.controller.switch({"shop": "green"}, actor=ALICE), two.controller.switch({"api": "green"}, actor=ALICE)
    )
    assert first[0].generation != second[0].generation
    assert two.everywhere("shop") == two.everywhere("api") == ("green", "green", "green")


async def test_a_caller_that_leaves_does_not_leave_half_a_switch(room):
    """It is made as a whole, or not at all; in any case memory, board and disk say the same."""
    task = asyncio.create_task(switch(room))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually_async(lambda: room.everywhere() == ("green",) * 3)
    assert (await switch(room, "blue")).live == "blue"


# --- concurrency ----------------------------------------------------------------------------------------------------


async def test_of_those_who_decided_on_the_same_generation_one_wins(room):
    """The others are told that they were late, whichever way; the board has moved once."""
    generation = room.controller.generation("shop")
    epoch = room.board.epoch
    results = await asyncio.gather(*(switch(room, None, if_match=generation) for _ in range(8)), return_exceptions=True)
    winners = [result for result in results if not isinstance(result, Exception)]
    assert len(winners) == 1
    assert all(isinstance(result, Busy | Stale) for result in results if isinstance(result, Exception))
    assert room.board.epoch == epoch + 1
    assert room.controller.generation("shop") == winners[0].generation


async def test_a_storm_of_compare_and_switch_is_linearizable(room):
    """Each success follows from the one before it: the generations that were seen and made are one chain."""
    chain: list[tuple[int, int, str]] = []

    async def client() -> None:
        for _ in range(10):
            seen = room.controller.generation("shop")
            try:
                result = await switch(room, None, if_match=seen)
            except (Busy, Stale):
                await asyncio.sleep(0.001)
            else:
                chain.append((seen, result.generation, result.live))

    first = room.controller.generation("shop")
    await asyncio.gather(*(client() for _ in range(8)))
    chain.sort()
    assert len(chain) >= 5
    assert [seen for seen, _, _ in chain] == [first, *(made for _, made, _ in chain[:-1])]
    assert [live for _, _, live in chain] == [("green", "blue")[turn % 2] for turn in range(len(chain))]
    assert room.everywhere() == (chain[-1][2],) * 3
    assert [event["data"]["to"] for event in room.controller.events.history("shop", 1000)] == [
        live for *_, live in chain
    ]


# --- rollback -------------------------------------------------------------------------------------------------------


async def test_a_rollback_in_the_middle_of_a_drain_undrains(room):
    """The pool is live again at once, without deadlines; the other drains. Whoever waited for the drain is told."""
    slot = room.slot()
    room.workers[0].in_flight(slot, BLUE, 2, 3)
    waiting = asyncio.create_task(switch(room, wait="drained"))
    await eventually_async(lambda: room.workers[0].draining.keys() == {("shop", BLUE)})
    room.workers[0].in_flight(slot, GREEN, 0, 1)
    result = await room.controller.rollback("shop", actor=ALICE, reason="errors")
    assert (result.live, result.previous) == ("blue", "green")
    assert room.everywhere() == ("blue", "blue", "blue")
    assert room.pool("shop", "blue")["drain"] is None
    async with asyncio.timeout(2):  # at once, not at the deadline of the drain
        assert (await waiting).drained["complete"] is False
    await eventually_async(lambda: all(worker.draining.keys() == {("shop", GREEN)} for worker in room.workers))
    assert [room.pool("shop", pool)["state"] for pool in ("blue", "green")] == ["live", "draining"]
    assert room.pool("shop", "blue")["in_flight"]["websockets"] == 3
    assert [event["type"] for event in room.controller.events.history("shop")] == ["switched", "rolled_back"]
    room.workers[0].in_flight(slot, GREEN, 0, 0)
    await eventually_async(lambda: room.pool("shop", "green")["state"] == "standby")


async def test_there_is_nothing_to_roll_back_to_before_the_first_switch(room):
    """It is refused, and nothing is changed."""
    before = picture(room)
    with pytest.raises(Refused, match="roll back"):
        await room.controller.rollback("shop", actor=ALICE)
    assert picture(room) == before


async def test_a_rollback_needs_one_upstream_that_is_up(room):
    """It is an emergency: half a pool is better than a broken version; nobody at all is not."""
    await switch(room)
    blue, second = room.upstreams["shop", "blue"], "http://127.0.0.1:9"
    await room.controller.set_pool("shop", "blue", version=None, upstreams=[blue.url, second], actor=ALICE)
    await room.until("shop", "blue", healthy=False)
    with pytest.raises(NotHealthy):
        await switch(room, "blue")
    assert (await room.controller.rollback("shop", actor=ALICE)).live == "blue"
    await room.controller.rollback("shop", actor=ALICE)
    blue.status = 500
    await eventually_async(lambda: not any(one["state"] == "up" for one in room.pool("shop", "blue")["upstreams"]))
    with pytest.raises(NotHealthy):
        await room.controller.rollback("shop", actor=ALICE)
    assert (await room.controller.rollback("shop", actor=ALICE, force=True)).live == "blue"


# --- over restarts --------------------------------------------------------------------------------------------------


async def test_a_restart_of_the_controller_changes_nothing(room):
    """Live, previous, generation, history, the way back; the workers keep their slots, and so their counts."""
    result = await switch(room)
    slots = {name: spec.slot for name, spec in room.workers[0].services.items()}
    upstreams = [spec.slot for spec in room.workers[0].services["shop"].pools[GREEN].upstreams]
    await room.restart()
    assert room.everywhere() == ("green", "green", "green")
    assert room.controller.generation("shop") == result.generation
    assert [event["type"] for event in room.controller.events.history("shop")] == ["switched"]
    assert {name: spec.slot for name, spec in room.workers[0].services.items()} == slots
    assert [spec.slot for spec in room.workers[0].services["shop"].pools[GREEN].upstreams] == upstreams
    assert (await room.controller.rollback("shop", actor=ALICE)).live == "blue"


@pytest.mark.parametrize("restarts", [0, 1], ids=["not told", "told"])
async def test_a_drain_survives_the_controller(room, restarts):
    """Its successor watches it to the end, by the moment of the switch; no worker is left with deadlines for ever.

    Whether or not it was told that it has a predecessor: the board knows.
    """
    room.workers[0].in_flight(room.slot(), BLUE, 1, 1)
    await switch(room)
    await eventually_async(lambda: all(worker.draining for worker in room.workers))
    since = room.board.switched_at(room.slot())
    await room.restart(restarts=restarts)
    assert room.board.switched_at(room.slot()) == since
    assert room.pool("shop", "blue")["state"] == "draining"
    room.workers[0].in_flight(room.slot(), BLUE, 1, 0)
    await eventually_async(lambda: room.pool("shop", "blue")["state"] == "standby")
    await eventually_async(lambda: all(worker.draining == {} for worker in room.workers))


@pytest.mark.parametrize("restarts", [0, 1], ids=["not told", "told"])
async def test_counters_go_on_over_a_restart_of_the_controller(room, restarts):
    """The workers have not stopped counting; a metric that falls would be taken for a restart of the whole."""
    cell = layout.pool_base(room.slot(), BLUE) + layout.CODES + layout.code_cell(200)
    room.workers[0].set_cell(cell, 41)
    assert room.pool("shop", "blue")["requests"] == 41
    await room.restart(restarts=restarts)
    assert room.pool("shop", "blue")["requests"] == 41


@pytest.mark.parametrize("restarts", [0, 1], ids=["not told", "told"])
async def test_a_switch_of_several_that_was_written_only_is_completed_in_one_instant(two, restarts):
    """Never two of them on different sides, also where the controller was killed before the commit."""
    state = two.on_disk()
    services = {
        name: replace(record, live=GREEN, previous=BLUE, generation=state.generation + 1, switched_at=1.0)
        for name, record in state.services.items()
    }
    await two.close()
    (two.state_dir / "state.json").write_bytes(
        encode(replace(state, generation=state.generation + 1, services=services))
    )
    sides: set[tuple[str, str]] = set()
    cells = two.board.cells
    slots = [two.slot("shop"), two.slot("api")]

    class Watching:
        """The cells, looked at after every store."""

        def __getitem__(self, at):
            return cells[at]

        def __setitem__(self, at, value) -> None:
            cells[at] = value
            sides.add(tuple(("blue", "green")[Switchboard.live(two.board, slot)] for slot in slots))

        def release(self) -> None:
            cells.release()

    two.board.cells = Watching()
    await two.open(restarts=restarts)
    two.board.cells = cells
    assert sides <= {("blue", "blue"), ("green", "green")}
    assert two.everywhere("shop") == two.everywhere("api") == ("green",) * 3


async def test_a_worker_is_not_left_with_the_deadlines_of_a_drain_that_ended_unseen(room):
    """The controller died, the switch was rolled back on the disk: what is live must not be cut."""
    await switch(room)
    for worker in room.workers:
        worker.draining["shop", GREEN] = 1.0  # as if it had missed the end of an older drain
    await room.restart()
    await eventually_async(lambda: not any(("shop", GREEN) in worker.draining for worker in room.workers))


async def test_what_was_written_and_not_committed_is_committed_by_the_next_life(room):
    """Killed between the disk and the board: nobody was answered, and afterwards all agree."""
    state = room.on_disk()
    record = replace(
        state.services["shop"], live=GREEN, previous=BLUE, generation=state.generation + 1, switched_at=1.0
    )
    await room.close()
    (room.state_dir / "state.json").write_bytes(
        encode(replace(state, generation=state.generation + 1, services={"shop": record}))
    )
    assert room.on_board() == "blue"
    await room.open()
    await room.until_healthy()
    assert room.everywhere() == ("green", "green", "green")


async def test_pinned_sessions_keep_the_old_pool_draining(tmp_path):
    """With on_switch: deadline the pool is not drained before they have moved."""
    sessions = Sessions(mode="cookie", on_switch="deadline", drain=600.0)
    async with ControlRoom(tmp_path, sessions=sessions) as room:
        await switch(room)
        await room.controller.set_upstream_state(
            "shop", "blue", room.upstreams["shop", "blue"].url, "drain", actor=ALICE
        )
        pool = room.pool("shop", "blue")
        assert pool["state"] == "draining"
        assert 590 < pool["drain"]["sessions_until_in"] <= 600


# --- while a deployment runs ----------------------------------------------------------------------------------------


async def test_a_deployment_is_not_switched_past(room):
    """A switch by hand is refused while one is under way, unless forced; the way back always goes; and it is told of both."""
    service = room.controller._registry.find("shop")
    told = []
    room.controller._parts.switcher.moved = lambda service, actor, reason: told.append((actor.name, reason))
    service.deployment = 9
    with pytest.raises(Busy, match="deployment 9 is under way; abort it first"):
        await switch(room)
    assert room.everywhere() == ("blue", "blue", "blue")
    await room.controller.switch({"shop": "green"}, actor=deployer(9), reason="its own")
    await room.controller.rollback("shop", actor=ALICE, reason="enough")
    await switch(room, force=True)
    assert told == [("deployment 9", "its own"), ("alice", "enough"), ("alice", "")]
