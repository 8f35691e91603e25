"""What operators see."""

from __future__ import annotations

import pytest
from support.control_room import ALICE, ControlRoom
from support.deployments import make_run
from support.waiting import eventually_async

from bgproxy.config.schema import Approve, Bake, Compare, Deployment, Hook, Retire, Verify, Warm
from bgproxy.control.deployments.stages import ENTRIES
from bgproxy.control.status import Census, planned
from bgproxy.errors import NotFound
from bgproxy.switchboard import layout


@pytest.fixture
async def room(tmp_path):
    async with ControlRoom(tmp_path) as room:
        yield room


async def test_the_status_of_the_whole(room):
    """Program, workers with their pids, listeners, services."""
    room.workers[0].set_cell(layout.W_CONNECTIONS, 5)
    status = room.controller.status()
    assert (status["program"], status["build"] in {"compiled", "interpreted"}) == ("bgproxy", True)
    assert status["workers"] == [
        {"index": 0, "pid": 1000, "state": "serving", "connections": 5, "restarts": 0},
        {"index": 1, "pid": 1001, "state": "serving", "connections": 0, "restarts": 0},
    ]
    assert status["listeners"] == [str(listen) for listen in room.config.listen]
    assert [service["service"] for service in status["services"]] == ["shop"]
    assert status["generation"] == status["services"][0]["generation"]


async def test_the_status_of_a_service(room):
    """Who is live, what each pool is for, and what each upstream is good for."""
    room.workers[1].in_flight(room.slot(), 0, 1, 4)
    service = room.service()
    blue, green = service["pools"]["blue"], service["pools"]["green"]
    assert (service["live"], service["previous"], service["switched_at"]) == ("blue", None, None)
    assert (blue["state"], blue["version"], blue["healthy"]) == ("live", "1.0", True)
    assert blue["in_flight"] == {"requests": 0, "streams": 4, "websockets": 0}
    assert (green["state"], green["drain"], green["unresolved"]) == ("standby", None, [])
    (upstream,) = green["upstreams"]
    assert upstream["id"] == upstream["address"] == room.upstreams["shop", "green"].id
    assert (upstream["state"], upstream["ejected"], upstream["reason"]) == ("up", False, "")
    assert upstream["check_ms"] > 0


async def test_an_unknown_service_is_not_found(room):
    """Wherever it is asked for."""
    with pytest.raises(NotFound):
        room.controller.service_status("shpo")
    with pytest.raises(NotFound):
        room.controller.generation("shpo")


async def test_a_pool_that_loses_its_health_is_idle(room):
    """And the reason is shown at the upstream."""
    room.upstreams["shop", "green"].status = 503
    await room.until("shop", "green", healthy=False)
    green = room.pool("shop", "green")
    assert green["state"] == "idle"
    assert green["upstreams"][0]["reason"] == "status 503, expected 200-399"


async def test_ready_means_every_worker_and_every_live_pool(room):
    """The reasons name who is missing."""
    assert room.controller.ready() == (True, [])
    room.upstreams["shop", "blue"].status = 500
    await eventually_async(lambda: not room.controller.ready()[0])
    (reason,) = room.controller.ready()[1]
    assert reason.startswith("shop: no upstream of blue, which is live, is up")
    room.upstreams["shop", "blue"].status = 200
    await room.until("shop", "blue", healthy=True)
    room.controller.lost(1)
    assert room.controller.ready() == (False, ["worker 1 is lost"])


async def test_a_dead_workers_gauges_do_not_count(room):
    """What it had in flight died with it; its successor begins at zero."""
    room.workers[1].in_flight(room.slot(), 0, 0, 7)
    assert room.pool("shop", "blue")["in_flight"]["requests"] == 7
    room.workers[1].die()
    room.controller.lost(1)
    assert room.pool("shop", "blue")["in_flight"]["requests"] == 0


async def test_a_deployment_under_way_is_shown(tmp_path):
    """What the status says of the deployment is a part of what its own call says."""
    manual = Deployment(approve=Approve(mode="manual"))
    async with ControlRoom(tmp_path, deployment=manual) as room:
        service = room.service()
        assert (service["deployment"], service["share"]) == (None, 0)
        assert service["deploys"]["stages"] == ["awaiting_approval", "switching", "draining"]
        begun = await room.controller.deploy("shop", actor=ALICE, version="2.1")
        await eventually_async(lambda: room.service()["deployment"]["waits"])
        shown = room.service()["deployment"]
        assert (shown["id"], shown["state"], shown["target"]) == (begun["id"], "awaiting_approval", "green")
        assert (shown["version"], shown["text"]) == ("2.1", "waits for `bgproxy approve`")
        await room.controller.deployments.abort(begun["id"], actor=ALICE)
        assert room.service()["last_deployment"] is None
        await eventually_async(lambda: room.service()["deployment"] is None)
        last = room.service()["last_deployment"]
        assert (last["id"], last["state"], last["target"], last["version"]) == (begun["id"], "aborted", "green", "2.1")
        assert last["outcome"] == f"aborted by {ALICE.name}"
        assert last["ended_at"]


async def test_the_share_of_a_canary_is_shown(room):
    """As the board has it: the clients that go to the pool that is not live."""
    room.board.split(room.slot(), 10)
    assert (room.service()["share"], room.service()["live"]) == (10, "blue")


SETTINGS = [
    Deployment(),
    Deployment(provision=Hook(run="true"), verify=Verify(), compare=Compare(), warm=Warm()),
    Deployment(approve=Approve(mode="manual"), bake=Bake(), retire=Retire()),
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_what_is_planned_is_what_is_done(settings):
    """The stages of the status are those that the runner does not skip."""
    run = make_run(deployment=settings)
    done = [state.value for state, entry in ENTRIES.items() if entry.configured(run) and state.value != "rolling_back"]
    assert planned(settings) == done


async def test_the_census_of_the_supervisor_is_believed(room):
    """Restarts and pids; a worker that is down has none."""
    room.controller.census(
        {"controller": {"pid": 5, "restarts": 2}, "workers": [{"index": 0, "pid": 77, "restarts": 3}]}
    )
    status = room.controller.status()
    assert status["controller"]["restarts"] == 2
    assert (status["workers"][0]["pid"], status["workers"][0]["restarts"]) == (77, 3)


def test_an_empty_census_is_understood():
    """Tests, and a supervisor that has not counted yet."""
    census = Census({})
    assert (census.controller_restarts, census.pids, census.restarts) == (0, {}, {})


async def test_what_a_drain_waits_for_is_shown(room):
    """By class, with the time that is left."""
    room.workers[0].in_flight(room.slot(), 0, 2, 1)
    await room.controller.switch({"shop": "green"}, actor=ALICE)
    drain = room.pool("shop", "blue")["drain"]
    assert drain["waiting_for"] == {"requests": 0, "streams": 0, "websockets": 1}
    assert 0 < drain["deadline_in"]["requests"] <= 30 < drain["deadline_in"]["streams"] <= 60
    assert drain["sessions_until_in"] is None
