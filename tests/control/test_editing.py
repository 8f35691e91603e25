"""Pools and upstreams as operators change them."""

from __future__ import annotations

import pytest
from support.control_room import ALICE, ControlRoom, Upstream
from support.waiting import eventually_async

from bgproxy.control.store import Store
from bgproxy.errors import Busy, Invalid, NotFound, Refused, Stale, StateError, Unavailable


@pytest.fixture
async def room(tmp_path):
    async with ControlRoom(tmp_path) as room:
        yield room


@pytest.fixture
async def another():
    upstream = await Upstream().start()
    yield upstream
    await upstream.stop()


async def set_pool(room: ControlRoom, pool="green", *, version=None, upstreams=None, **how):
    return await room.controller.set_pool("shop", pool, version=version, upstreams=upstreams, actor=ALICE, **how)


async def set_state(room: ControlRoom, upstream: str, state: str, pool="green"):
    return await room.controller.set_upstream_state("shop", pool, upstream, state, actor=ALICE)


def usable(room: ControlRoom, pool: int = 1) -> list[list[tuple[str, bool]]]:
    """What each worker thinks of a pool."""
    return [
        [(spec.id, spec.usable) for spec in worker.services["shop"].pools[pool].upstreams] for worker in room.workers
    ]


# --- what a pool is made of -----------------------------------------------------------------------------------------


async def test_a_new_version_is_in_force_when_it_answers(room):
    """In the status, on the disk, at the workers, and in the history."""
    before = room.controller.generation("shop")
    status = await set_pool(room, version="2.1")
    assert status["pools"]["green"]["version"] == "2.1"
    assert status["generation"] == before + 1
    assert room.on_disk().services["shop"].pools[1].version == "2.1"
    assert all(worker.services["shop"].pools[1].version == "2.1" for worker in room.workers)
    event = room.controller.events.history("shop")[-1]
    assert (event["type"], event["pool"], event["data"]["version"]) == ("pool_changed", "green", "2.1")


async def test_upstreams_that_stay_keep_their_slot_and_health(room, another):
    """The new one is checked before it is used; the old one goes on as it was."""
    kept = room.upstreams["shop", "green"]
    slot = room.workers[0].services["shop"].pools[1].upstreams[0].slot
    status = await set_pool(room, upstreams=[another.url, kept.url])
    assert [one["state"] for one in status["pools"]["green"]["upstreams"]] == ["checking", "up"]
    assert usable(room) == [[(another.id, False), (kept.id, True)]] * 2
    assert room.workers[0].services["shop"].pools[1].upstreams[1].slot == slot
    await room.until("shop", "green", healthy=True)
    await eventually_async(lambda: usable(room) == [[(another.id, True), (kept.id, True)]] * 2)


async def test_a_change_at_run_time_outlives_the_controller(room, another):
    """And is told apart from what the file says."""
    await set_pool(room, upstreams=[another.url])
    assert room.on_disk().services["shop"].pools[1].runtime
    await room.restart()
    assert [one["url"] for one in room.pool("shop", "green")["upstreams"]] == [another.url]


async def test_what_is_so_already_is_no_change(room):
    """A script may say it twice."""
    before = room.controller.generation("shop")
    green = room.upstreams["shop", "green"]
    status = await set_pool(room, version="2.0", upstreams=[green.url])
    assert status["generation"] == before
    assert room.controller.events.history("shop") == []


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ({"upstreams": ["127.0.0.1:1"]}, Invalid, "write http://127.0.0.1:1"),
        ({"upstreams": ["http://127.0.0.1:1", "http://127.0.0.1:1"]}, Invalid, "same upstream"),
        ({"version": "x" * 129}, Invalid, "version"),
        ({"version": "two\nlines"}, Invalid, "version"),
        ({"pool": "blue", "upstreams": []}, Refused, "live"),
        ({"version": "3", "if_match": 10**9}, Stale, "generation"),
        ({"pool": "red", "version": "3"}, NotFound, "red"),
    ],
)
async def test_what_cannot_be_meant_is_refused(room, how, error, text):
    """And nothing is changed."""
    before = (room.service(), room.on_disk())
    with pytest.raises(error, match=text):
        await set_pool(room, **how)
    after = (room.service(), room.on_disk())
    assert (after[0]["generation"], after[1]) == (before[0]["generation"], before[1])


async def test_no_upstream_is_in_both_pools(room):
    """A switch would move nothing."""
    with pytest.raises(Invalid, match="in blue too"):
        await set_pool(room, upstreams=[room.upstreams["shop", "blue"].url])


async def test_a_disk_that_fails_leaves_the_pool_as_it_was(room, monkeypatch):
    """In memory, at the workers, in the history."""

    async def fail(*_):
        raise StateError("full")

    monkeypatch.setattr(Store, "write", fail)
    with pytest.raises(StateError):
        await set_pool(room, version="2.1")
    assert room.pool("shop", "green")["version"] == "2.0"
    assert room.controller.events.history("shop") == []


async def test_a_stopped_worker_is_named_and_nothing_is_changed(room):
    """The change can be asked for again when it goes on."""
    room.workers[0].stop()
    with pytest.raises(Unavailable, match="worker 0"):
        await set_pool(room, version="2.1")
    assert room.on_disk().services["shop"].pools[1].version == "2.0"
    room.workers[0].go()
    assert (await set_pool(room, version="2.1"))["pools"]["green"]["version"] == "2.1"


async def test_a_pool_is_not_changed_under_a_switch(room):
    """One change of a service at a time."""
    import asyncio

    switching = asyncio.create_task(room.controller.switch({"shop": "green"}, actor=ALICE))
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await set_pool(room, version="2.1")
    await switching


# --- upstreams by hand ----------------------------------------------------------------------------------------------


async def test_the_pool_that_is_deployed_to_is_the_deployments(room, another):
    """Until its switch; the live pool can be changed all the time, since somebody may have to."""
    service = room.controller._registry.find("shop")
    service.deployment, service.deploying = 4, 1
    with pytest.raises(Busy, match="green is being deployed to; abort deployment 4"):
        await set_pool(room, version="3.0")
    await set_pool(room, "blue", version="1.1")
    service.deploying = None
    await set_pool(room, version="3.0")
    assert room.pool("shop", "green")["version"] == "3.0"


@pytest.mark.parametrize(("word", "state"), [("drain", "draining"), ("maint", "maint")])
async def test_an_upstream_that_is_taken_out_gets_nothing_new(room, word, state):
    """No worker sends to it when the call answers; back, it is checked anew."""
    green = room.upstreams["shop", "green"]
    status = await set_state(room, green.id, word)
    assert status["pools"]["green"]["upstreams"][0]["state"] == state
    assert usable(room) == [[(green.id, False)]] * 2
    status = await set_state(room, green.id, "ready")
    assert status["pools"]["green"]["upstreams"][0]["state"] == "checking"
    await room.until("shop", "green", healthy=True)
    assert [event["type"] for event in room.controller.events.history("shop")] == ["upstream_state"] * 2


async def test_what_was_said_by_hand_outlives_the_controller(room):
    """Maintenance is not over because a process was started again."""
    green = room.upstreams["shop", "green"]
    await set_state(room, green.url, "maint")
    await room.close()
    await room.open()
    assert room.pool("shop", "green")["upstreams"][0]["state"] == "maint"


async def test_an_upstream_in_maint_is_not_checked(room):
    """Its checks would only be in the way of whoever works there."""
    green = room.upstreams["shop", "green"]
    await set_state(room, green.id, "maint")
    green.status = 500
    await set_state(room, green.id, "drain")
    await eventually_async(lambda: "500" in room.pool("shop", "green")["upstreams"][0]["reason"])
    assert room.pool("shop", "green")["upstreams"][0]["state"] == "draining"


async def test_ready_where_it_is_ready_is_no_change(room):
    """And an unknown upstream is named with those that are known."""
    before = room.controller.generation("shop")
    green = room.upstreams["shop", "green"]
    await set_state(room, green.id, "ready")
    assert room.controller.generation("shop") == before
    with pytest.raises(NotFound, match=green.id):
        await set_state(room, "http://127.0.0.1:1", "maint")
    with pytest.raises(Invalid, match="ready, drain, maint"):
        await set_state(room, green.id, "off")


async def test_one_address_of_a_name_can_be_taken_back_alone(room):
    """The others stay in the state that was said of the whole URL."""
    await room.controller.set_pool("shop", "green", version=None, upstreams=["http://web:1"], actor=ALICE)
    discovery = room.controller._watch._discovery
    name = discovery._names["web"]
    name.addresses = ("127.0.0.1", "127.0.0.2")
    room.controller._watch._resolved("web")
    await set_state(room, "http://web:1", "maint")
    states = {one["id"]: one["state"] for one in room.pool("shop", "green")["upstreams"]}
    assert states == {"web:1~127.0.0.1:1": "maint", "web:1~127.0.0.2:1": "maint"}
    await set_state(room, "web:1~127.0.0.2:1", "ready")
    states = {one["id"]: one["state"] for one in room.pool("shop", "green")["upstreams"]}
    assert states["web:1~127.0.0.1:1"] == "maint"
    assert states["web:1~127.0.0.2:1"] in {"checking", "down"}
