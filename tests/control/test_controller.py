"""The controller as a whole: how it begins, how it ends, and what it does for workers that come and go."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.control_room import ALICE, ControlRoom
from support.fake_worker import FakeWorker
from support.waiting import eventually_async

from bgproxy.config.schema import Config, Pool, Pools, Service
from bgproxy.control import controller as module
from bgproxy.control import store as store_module
from bgproxy.control.controller import Controller
from bgproxy.control.statefile import encode
from bgproxy.errors import StartError, StateError, Unavailable
from bgproxy.switchboard import layout
from bgproxy.switchboard.board import Switchboard
from bgproxy.switchboard.messages import DrainPool, Snapshot
from bgproxy.switchboard.wiring import ControllerBirth

BLUE, GREEN = 0, 1


@pytest.fixture
async def room(tmp_path):
    async with ControlRoom(tmp_path) as room:
        yield room


@pytest.fixture
async def make(tmp_path):
    """Makes controllers on one directory that are stopped at the end."""
    made: list[tuple[Controller, socket.socket, socket.socket]] = []
    board = Switchboard(1)

    def make(config: Config | None = None, links: dict[int, socket.socket] | None = None) -> Controller:
        ours, theirs = socket.socketpair()
        config = config or Config(services={"shop": Service(pools=Pools(), live="green")})
        config = replace(config, state_dir=str(tmp_path / "state"))
        controller = Controller(ControllerBirth(board, config, None, "", [], ours, links or {}, {}))
        made.append((controller, ours, theirs))
        return controller

    make.board = board  # type: ignore[attr-defined]
    yield make
    for controller, ours, theirs in made:
        await controller.stop()
        ours.close()
        theirs.close()
    board.close()


# --- how it begins --------------------------------------------------------------------------------------------------


async def test_a_first_start_takes_the_file_at_its_word(make):
    """Who is live stands on the board before any worker hears of the service, and on the disk."""
    controller = make()
    await controller.start()
    assert make.board.live(controller._registry.slot_of("shop")) == GREEN
    assert controller.service_status("shop")["live"] == "green"
    again = make()
    with pytest.raises(StateError, match="Another bgproxy"):
        await again.start()


async def test_state_that_cannot_be_read_is_a_refusal_with_the_way_on(make, tmp_path):
    """Nothing is started, nothing is overwritten; a stop afterwards is in order."""
    (tmp_path / "state").mkdir(mode=0o700)
    file = tmp_path / "state" / "state.json"
    file.write_text("rubbish")
    file.chmod(0o600)
    controller = make()
    with pytest.raises(StateError, match="To begin anew"):
        await controller.start()
    await controller.stop()
    assert file.read_text() == "rubbish"


async def test_more_services_than_slots_are_a_refusal_to_start(make, monkeypatch):
    """With the limit in the text."""
    controller = make()
    monkeypatch.setattr(controller._registry.service_slots, "_free", type(controller._registry.service_slots._free)())
    with pytest.raises(StartError, match="services"):
        await controller.start()


async def test_before_it_has_started_changes_are_refused(make):
    """The API may be asked a moment too early."""
    controller = make()
    assert controller.ready() == (False, ["the controller is still starting"])
    with pytest.raises(Unavailable, match="still starting"):
        await controller.switch({"shop": None}, actor=ALICE)


async def test_links_that_come_before_it_has_started_wait(make):
    """A worker is told nothing before the state is restored; of two links of one worker the newer counts."""
    old, new = FakeWorker(make.board, 0), FakeWorker(make.board, 0)
    await old.start()
    await new.start()
    controller = make(links={0: old.theirs})
    controller.link(0, new.pid, new.theirs)
    await asyncio.sleep(0.02)
    assert new.heard == []
    await controller.start()
    await eventually_async(lambda: "shop" in new.services)
    assert old.heard == []
    new.die()
    old.die()


async def test_a_worker_that_dies_before_the_start_is_not_waited_for(make):
    """Its link is gone with it."""
    worker = FakeWorker(make.board, 0)
    await worker.start()
    controller = make(links={0: worker.theirs})
    controller.lost(0)
    await controller.start()
    assert controller.status()["workers"][0]["state"] == "lost"
    worker.die()


async def test_a_stop_without_a_start_is_in_order(make):
    """And a second stop too."""
    worker = FakeWorker(make.board, 0)
    controller = make(links={0: worker.theirs})
    await controller.stop()
    await controller.stop()
    assert worker.theirs.fileno() == -1
    worker._ours.close()


# --- restarts -------------------------------------------------------------------------------------------------------


async def test_several_services_that_were_written_and_not_committed_move_as_one(tmp_path):
    """The successor commits in one instant what its predecessor had promised the disk."""
    async with ControlRoom(tmp_path, names=("shop", "api", "rest")) as room:
        state = room.on_disk()
        services = dict(state.services)
        for name in ("shop", "api"):
            services[name] = replace(services[name], live=GREEN, previous=BLUE, switched_at=1.0)
        await room.close()
        (room.state_dir / "state.json").write_bytes(encode(replace(state, services=services)))
        epoch = room.board.epoch
        await room.open()
        await room.until_healthy()
        assert [room.on_board(name) for name in ("shop", "api", "rest")] == ["green", "green", "blue"]
        assert room.board.epoch == epoch + 1


async def test_the_time_of_the_last_switch_outlives_the_controller(room):
    """Session policies count from it; a restart must not begin them anew, nor end them."""
    await room.controller.switch({"shop": "green"}, actor=ALICE)
    at = room.board.switched_at(room.slot())
    shown = room.service()["switched_at"]
    await room.restart()
    assert room.board.switched_at(room.slot()) == at
    assert room.service()["switched_at"] == shown


async def test_the_time_of_the_last_switch_outlives_the_whole_program(room):
    """A new board gets it from the disk, as near as two clocks agree."""
    await room.controller.switch({"shop": "green"}, actor=ALICE)
    at, slot = room.board.switched_at(room.slot()), room.slot()
    await room.close()
    for worker in room.workers:
        worker.die()
        worker.theirs.close()
    old, room.board = room.board, Switchboard(2)
    room.workers = [FakeWorker(room.board, index) for index in range(2)]
    for worker in room.workers:
        await worker.start()
    await room.open()
    await room.until_healthy()
    assert room.board.live(slot) == GREEN
    assert room.board.switched_at(slot) == pytest.approx(at, abs=0.5)
    await asyncio.sleep(0)
    old.close()


async def test_a_drain_that_is_long_over_is_not_resumed(room):
    """A tester previews the old pool hours after the switch: a restart neither cuts him nor tells of a drain."""
    await room.controller.switch({"shop": "green"}, actor=ALICE)
    await eventually_async(lambda: room.pool("shop", "blue")["state"] == "standby")
    slot = room.slot()
    room.board.cells[layout.WORDS + 2 * slot + 1] = 1  # microseconds: long before every deadline
    room.workers[0].in_flight(slot, BLUE, 0, 1)
    for worker in room.workers:
        worker.heard.clear()
    last = room.controller.events.last_id
    await room.restart()
    assert room.pool("shop", "blue")["drain"] is None
    assert not any(worker.of(DrainPool) for worker in room.workers)
    assert [event for event in room.controller.events.since(last) or () if event["type"] == "drained"] == []


async def test_a_full_disk_does_not_keep_a_controller_from_coming_back(room, monkeypatch):
    """It has read who is live: it checks, shows and ejects; only changes are refused, until there is room again."""
    await room.controller.switch({"shop": "green"}, actor=ALICE)
    await room.close()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "os", SimpleNamespace(**{**vars(os), "fsync": full}))
        await room.open()
        await room.until_healthy()
        assert room.everywhere() == ("green", "green", "green")
        with pytest.raises(StateError, match="No space left on device"):
            await room.controller.switch({"shop": "blue"}, actor=ALICE)
        assert room.everywhere() == ("green", "green", "green")
    await room.controller.switch({"shop": "blue"}, actor=ALICE)
    assert room.everywhere() == ("blue", "blue", "blue")


async def test_a_first_start_on_a_full_disk_is_refused(make, monkeypatch):
    """Nothing was ever written: who would be live after the next restart is not known."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    controller = make()
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "os", SimpleNamespace(**{**vars(os), "fsync": full}))
        with pytest.raises(StateError, match="No space left on device"):
            await controller.start()


async def test_event_ids_rise_over_restarts(room):
    """Followers resume by them."""
    last = room.controller.events.last_id
    await room.restart()
    assert room.controller.events.since(0)[0]["id"] > last


async def test_slots_outlive_the_controller_though_the_file_has_another_order(tmp_path):
    """The workers go on by the words that they know: no service ever reads another's."""
    async with ControlRoom(tmp_path, names=("shop", "api")) as room:
        before = {name: room.slot(name) for name in ("shop", "api")}
        services = room.config.services
        room.config = replace(room.config, services={name: services[name] for name in ("api", "shop")})
        await room.restart()
        assert {name: room.slot(name) for name in ("shop", "api")} == before


# --- workers that come and go ---------------------------------------------------------------------------------------


async def test_a_new_worker_gets_everything(room):
    """The whole snapshot with what holds for the program, and the drains that are under way."""
    room.workers[0].in_flight(room.slot(), BLUE, 2, 1)
    await room.controller.switch({"shop": "green"}, actor=ALICE)
    room.workers[1].die()
    room.controller.lost(1)
    assert room.controller.status()["workers"][1]["state"] == "lost"
    worker = room.workers[1] = FakeWorker(room.board, 1, pid=2001)
    room.controller.link(1, worker.pid, worker.theirs)
    assert room.controller.status()["workers"][1]["state"] == "starting"
    await worker.start()
    await eventually_async(lambda: room.controller.ready()[0])
    snapshot = worker.of(Snapshot)[0]
    assert snapshot.whole
    assert len(snapshot.proxy.session_key) == 32
    assert [spec.name for spec in snapshot.services] == ["shop"]
    await eventually_async(lambda: worker.of(DrainPool))
    assert worker.draining.keys() == {("shop", BLUE)}
    types = [event["type"] for event in room.controller.events.since(0)]
    assert [kind for kind in types if kind.startswith("worker_")][-2:] == ["worker_lost", "worker_started"]
    assert types.count("worker_lost") == 1


async def test_a_dead_workers_requests_do_not_hold_up_a_drain(room):
    """They died with it."""
    room.workers[1].in_flight(room.slot(), BLUE, 0, 5)
    await room.controller.switch({"shop": "green"}, actor=ALICE)
    waiting = asyncio.create_task(room.controller.wait_drained("shop", "blue"))
    await asyncio.sleep(0)
    room.workers[1].die()
    room.controller.lost(1)
    drained = await asyncio.wait_for(waiting, 5)
    assert drained["complete"] is True
    assert await room.controller.wait_drained("shop", "blue") is None


async def test_a_worker_that_failed_an_upstream_is_heard(room):
    """Passive ejection is the controller's."""
    from bgproxy.switchboard.messages import UpstreamFailed

    first, second = room.upstreams["shop", "blue"], "http://127.0.0.1:9"
    await room.controller.set_pool("shop", "blue", version=None, upstreams=[first.url, second], actor=ALICE)
    room.workers[0].say(UpstreamFailed(first.id, "shop", BLUE, 5, "connection reset"))
    await eventually_async(lambda: room.pool("shop", "blue")["upstreams"][0]["ejected"])
    await eventually_async(lambda: not room.workers[0].services["shop"].pools[BLUE].upstreams[0].usable)


# --- what it leaves behind ------------------------------------------------------------------------------------------


async def test_addresses_are_noted_for_the_next_life(room, monkeypatch):
    """So that a successor has somewhere to send requests while no name resolves."""
    monkeypatch.setattr(module, "NOTE_AFTER", 0.01)
    await room.controller.set_pool("shop", "green", version=None, upstreams=["http://web:1"], actor=ALICE)
    room.controller._watch._discovery._names["web"].addresses = ("127.0.0.1",)
    room.controller._watch._resolved("web")
    await eventually_async(lambda: dict(room.on_disk().addresses) == {"web": ("127.0.0.1",)})
    await room.close()
    await room.open()
    assert [one["address"] for one in room.pool("shop", "green")["upstreams"]] == ["127.0.0.1:1"]


async def test_followers_end_with_the_controller(room):
    """Nobody waits for events that never come."""
    events = room.controller.events.subscribe(None)
    following = asyncio.create_task(anext(events, None))
    await asyncio.sleep(0)
    await room.close()
    assert await asyncio.wait_for(following, 5) is None
    await room.open()


async def test_it_leaves_no_task_behind(make):
    """Every task is owned, and awaited at the stop."""
    before = asyncio.all_tasks()
    pool = Pool(upstreams=("http://127.0.0.1:9", "http://name.invalid:80"))
    worker = FakeWorker(make.board, 0)
    await worker.start()
    controller = make(Config(services={"shop": Service(pools=Pools(blue=pool))}), links={0: worker.theirs})
    await controller.start()
    await eventually_async(lambda: worker.services)
    await controller.stop()
    assert asyncio.all_tasks() - before == set()
    worker.die()
