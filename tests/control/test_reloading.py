"""A new configuration: whole or not at all."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from support.control_room import ALICE, ControlRoom, Upstream
from support.waiting import eventually_async

from bgproxy.config import source
from bgproxy.config.schema import Admin, AdminTls, Config, Health, Limits, Match, Pool, Pools, Service
from bgproxy.control.reloading import Difference, check_reloadable, monotonic
from bgproxy.control.store import Store
from bgproxy.errors import Busy, ConfigError, Mistake, Refused, StateError, Unavailable
from bgproxy.switchboard.messages import Snapshot


@pytest.fixture
async def room(tmp_path):
    async with ControlRoom(tmp_path, names=("shop", "api")) as room:
        yield room


@pytest.fixture
async def another():
    upstream = await Upstream().start()
    yield upstream
    await upstream.stop()


@pytest.fixture
def file(room, monkeypatch):
    """The file as the next reload finds it: a `Config`, or an exception."""
    content = {"now": room.config}

    async def load(*_):
        await asyncio.sleep(0)
        if isinstance(content["now"], Exception):
            raise content["now"]
        return content["now"]

    monkeypatch.setattr(source, "load_async", load)

    def write(now) -> None:
        content["now"] = now

    return write


def with_service(config: Config, name: str, service: Service | None) -> Config:
    services = {**config.services}
    services.pop(name, None)
    return replace(config, services=services if service is None else {**services, name: service})


def service_of(upstream: Upstream, **settings) -> Service:
    return Service(pools=Pools(blue=Pool(upstreams=(upstream.url,))), match=Match(path="/new"), **settings)


def picture(room: ControlRoom):
    """All that a refused reload must leave as it was."""
    generations = [(name, room.controller.generation(name)) for name in ("shop", "api")]
    told = [dict(worker.services) for worker in room.workers]
    disk = room.on_disk()
    slots = room.controller._registry.service_slots.free
    return generations, told, disk.services, disk.generation, room.controller.config, slots


async def reload(room: ControlRoom):
    return await room.controller.reload(actor=ALICE)


async def test_services_come_go_and_change_in_one_step(room, file, another):
    """The workers get it as one snapshot, and have it when the call answers."""
    shop = replace(room.config.services["shop"], match=Match(path="/shop"))
    config = replace(room.config, services={"shop": shop, "new": service_of(another)})
    file(config)
    counts = [len(worker.of(Snapshot)) for worker in room.workers]
    answer = await reload(room)
    assert (answer["added"], answer["removed"], answer["changed"]) == (["new"], ["api"], ["shop"])
    assert "1 added (new)" in answer["message"]
    for worker, count in zip(room.workers, counts, strict=True):
        assert worker.services.keys() == {"shop", "new"}
        assert worker.services["shop"].path == "/shop"
        (snapshot,) = worker.of(Snapshot)[count:]
        assert snapshot.removed == ("api",)
    assert room.controller.config is config
    assert [service["service"] for service in room.controller.status()["services"]] == ["shop", "new"]
    assert room.on_disk().services["api"].slot is None
    event = room.controller.events.history()[-1]
    assert (event["type"], event["data"]["added"], event["actor"]["name"]) == ("reloaded", ["new"], "alice")


async def test_the_board_speaks_of_a_service_before_its_first_snapshot_does(room, file, another, monkeypatch):
    """A worker that knows a service reads its word."""
    seen = []
    for worker in room.workers:
        take = worker._take

        def spy(message, take=take):
            if isinstance(message, Snapshot):
                seen.extend(room.board.live(spec.slot) for spec in message.services if spec.name == "new")
            take(message)

        monkeypatch.setattr(worker, "_take", spy)
    file(with_service(room.config, "new", service_of(another, live="green")))
    await reload(room)
    assert seen == [1, 1]


async def test_who_is_live_outlives_a_reload(room, file):
    """`live:` of the file is for the first time only; the generation of what did not change stays."""
    await room.controller.switch({"shop": "green"}, actor=ALICE)
    generation = room.controller.generation("shop")
    at = room.board.switched_at(room.slot())
    shop = replace(room.config.services["shop"], live="blue")
    api = replace(room.config.services["api"], match=Match(path="/api"))
    file(replace(room.config, services={"shop": shop, "api": api}))
    await reload(room)
    assert room.everywhere("shop") == ("green",) * 3
    assert room.board.switched_at(room.slot()) == at
    assert room.controller.generation("api") > generation


async def test_upstreams_that_stay_are_not_touched(room, file, another):
    """Their id, slot and health; the file wins over the pool that it changes, and says so."""
    green = room.config.services["shop"].pools.green
    slot = room.workers[0].services["shop"].pools[1].upstreams[0].slot
    await room.controller.set_pool("shop", "green", version="hot fix", upstreams=None, actor=ALICE)
    pools = replace(room.config.services["shop"].pools, green=replace(green, upstreams=(*green.upstreams, another.url)))
    file(with_service(room.config, "shop", replace(room.config.services["shop"], pools=pools)))
    await reload(room)
    first, second = room.pool("shop", "green")["upstreams"]
    assert (first["state"], second["state"]) == ("up", "checking")
    assert room.workers[0].services["shop"].pools[1].upstreams[0].slot == slot
    assert room.pool("shop", "green")["version"] == "2.0"
    assert [event["type"] for event in room.controller.events.history("shop")][-1] == "file_wins"


async def test_what_was_changed_at_run_time_stays_when_the_file_leaves_the_pool_alone(room, file):
    """A reload is about what the file says anew."""
    await room.controller.set_pool("shop", "green", version="hot fix", upstreams=None, actor=ALICE)
    file(with_service(room.config, "api", None))
    await reload(room)
    assert room.pool("shop", "green")["version"] == "hot fix"


async def test_a_service_that_comes_back_is_as_it_was(room, file):
    """Who was live is live again, on a slot that has the right word."""
    await room.controller.switch({"api": "green"}, actor=ALICE)
    config = room.config
    file(with_service(config, "api", None))
    await reload(room)
    assert room.controller.counters.pool("shop", "blue").requests == 0
    file(config)
    await reload(room)
    assert room.everywhere("api") == ("green",) * 3


async def test_what_holds_for_the_whole_program_reaches_the_workers(room, file):
    """Limits, time-outs, the access log."""
    file(replace(room.config, limits=Limits(connections=7)))
    answer = await reload(room)
    assert answer["program"] is True
    assert all(worker.proxy.limits.connections == 7 for worker in room.workers)


async def test_new_health_settings_are_in_force(room, file):
    """The pool is judged by them."""
    shop = replace(room.config.services["shop"], health=Health(path="/", interval=0.05, rise=1, fall=1, expect="500"))
    file(with_service(room.config, "shop", shop))
    await reload(room)
    await eventually_async(lambda: room.pool("shop", "blue")["upstreams"][0]["state"] == "down")
    assert room.pool("shop", "blue")["upstreams"][0]["reason"] == "status 200, expected 500"


async def test_the_same_file_again_changes_nothing(room, file):
    """But it is noted that somebody asked."""
    before = picture(room)
    answer = await reload(room)
    assert "nothing in it is different" in answer["message"]
    assert picture(room) == before
    assert room.controller.events.history()[-1]["type"] == "reloaded"


# --- not at all -----------------------------------------------------------------------------------------------------


async def test_mistakes_leave_everything_as_it_was(room, file):
    """They are all told, and the event has them too."""
    before = picture(room)
    file(ConfigError([Mistake("f", 1, "a", "wrong"), Mistake("f", 2, "b", "wrong too")]))
    with pytest.raises(ConfigError) as caught:
        await reload(room)
    assert len(caught.value.mistakes) == 2
    assert picture(room) == before
    event = room.controller.events.since(0)[-1]
    assert (event["type"], len(event["data"]["details"])) == ("reload_refused", 2)
    assert room.controller.events.history() == []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("listen", {"listen": ("127.0.0.1:1",)}),
        ("workers", {"workers": 9}),
        ("admin.listen", {"admin": Admin(listen=("127.0.0.1:2",))}),
        ("admin.tls", {"admin": Admin(tls=AdminTls(cert="/a.pem", key="/a.key"))}),
        ("state_dir", {"state_dir": "/elsewhere"}),
    ],
)
async def test_what_needs_a_restart_is_refused_by_name(room, file, name, change):
    """Also beside changes that would be fine."""
    before = picture(room)
    file(replace(room.config, limits=Limits(connections=7), **change))
    with pytest.raises(Refused, match=f"restart can change {name};") as caught:
        await reload(room)
    assert caught.value.details[0].startswith(f"{name} is ")
    assert picture(room) == before


def test_everything_that_needs_a_restart_is_named_at_once():
    """Not one after the other."""
    with pytest.raises(Refused, match="listen, workers") as caught:
        check_reloadable(Config(), Config(listen=(":1",), workers=3))
    assert len(caught.value.details) == 2


async def test_a_disk_that_fails_leaves_everything_as_it_was(room, file, another, monkeypatch):
    """Slots, services, the configuration, the workers; and the next reload succeeds."""
    before = picture(room)
    file(with_service(with_service(room.config, "api", None), "new", service_of(another)))

    async def fail(*_):
        raise StateError("full")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", fail)
        with pytest.raises(StateError):
            await reload(room)
        assert picture(room) == before
    await reload(room)
    assert room.workers[0].services.keys() == {"shop", "new"}


async def test_a_stopped_worker_leaves_everything_as_it_was(room, file):
    """It could not be told."""
    before = picture(room)
    room.workers[0].stop()
    file(with_service(room.config, "api", None))
    with pytest.raises(Unavailable, match="worker 0"):
        await reload(room)
    assert picture(room) == before
    room.workers[0].go()
    await reload(room)


async def test_a_reload_cannot_take_every_upstream_from_the_live_pool(room, file):
    """The file says that blue is live and empties green, but green is live by a switch: nothing is changed."""
    await room.controller.switch({"shop": "green"}, actor=ALICE)
    shop = room.config.services["shop"]
    emptied = replace(shop, pools=Pools(blue=shop.pools.blue, green=Pool(version="2.0")))
    file(replace(room.config, services={**room.config.services, "shop": emptied}))
    generation = room.controller.generation("shop")
    with pytest.raises(Refused) as caught:
        await room.controller.reload(actor=ALICE)
    assert caught.value.details == ["shop: green is live and would be left without upstreams"]
    assert room.everywhere() == ("green", "green", "green")
    assert room.controller.generation("shop") == generation
    assert room.pool("shop", "green")["upstreams"]
    await room.controller.switch({"shop": "blue"}, actor=ALICE)
    await room.controller.reload(actor=ALICE)
    assert room.pool("shop", "green")["upstreams"] == []


async def test_a_reload_cannot_give_a_pool_what_the_other_has_at_run_time(room, file, another, caplog):
    """A deployment has put it there, and the file does not know: a switch would move nothing. A start can only say so."""
    await room.controller.set_pool("shop", "green", version=None, upstreams=[another.url], actor=ALICE)
    await room.until("shop", "green", healthy=True)
    await room.told()
    shop = room.config.services["shop"]
    blue = replace(shop.pools.blue, upstreams=(another.url,))
    file(with_service(room.config, "shop", replace(shop, pools=replace(shop.pools, blue=blue))))
    before = picture(room)
    with pytest.raises(Refused, match="blue and green need servers of their own") as caught:
        await room.controller.reload(actor=ALICE)
    assert caught.value.details == [f"shop: {another.url} is in blue and in green"]
    assert picture(room) == before
    room.config = with_service(room.config, "shop", replace(shop, pools=replace(shop.pools, blue=blue)))
    await room.restart()
    assert f"shop: {another.url} is in blue and in green: a switch does not move what it gets" in caplog.text
    file(room.config)
    await room.controller.reload(actor=ALICE)  # what is so already is no reason to refuse anything else


async def test_more_upstreams_than_there_is_room_for_are_refused(room, file, another, monkeypatch):
    """Before anything is changed."""
    before = picture(room)
    free = room.controller._registry.upstream_slots._free
    monkeypatch.setattr(room.controller._registry.upstream_slots, "_free", type(free)())
    file(with_service(room.config, "new", service_of(another)))
    with pytest.raises(Refused, match="room for 0 more"):
        await reload(room)
    assert picture(room) == before


async def test_one_reload_at_a_time_and_none_under_a_change(room, file):
    """Both are refused as busy."""
    first = asyncio.create_task(reload(room))
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await reload(room)
    await first
    file(with_service(room.config, "api", None))
    switching = asyncio.create_task(room.controller.switch({"shop": "green"}, actor=ALICE))
    await asyncio.sleep(0)
    with pytest.raises(Busy, match="shop"):
        await reload(room)
    await switching
    await reload(room)


async def test_a_service_that_goes_in_mid_drain_takes_its_drain_along(room, file):
    """Whoever waits is told how far it came."""
    room.workers[0].in_flight(room.slot("api"), 0, 0, 1)
    waiting = asyncio.create_task(room.controller.switch({"api": "green"}, actor=ALICE, wait="drained"))
    await eventually_async(lambda: room.pool("api", "blue")["state"] == "draining")
    file(with_service(room.config, "api", None))
    await reload(room)
    (result,) = await waiting
    assert result.drained["complete"] is False


async def test_a_real_file_is_read_anew(tmp_path, another):
    """By the checker in its own process, as at the start."""
    async with ControlRoom(tmp_path) as room:
        path = tmp_path / "bgproxy.yaml"
        written = {
            "workers": 2,
            "state_dir": str(room.state_dir),
            "services": {"new": {"pools": {"blue": {"upstreams": [another.url]}}}},
        }
        path.write_text(json.dumps(written))
        room.controller._running().reloader._source = str(path)
        answer = await reload(room)
        assert (answer["added"], answer["removed"]) == (["new"], ["shop"])
        path.write_text("workers: no\n")
        with pytest.raises(ConfigError):
            await reload(room)
        assert room.workers[0].services.keys() == {"new"}


def test_differences_are_told_in_the_order_of_the_files():
    """For the answer and for people."""
    service = Service(pools=Pools())
    old = Config(services={"a": service, "b": service})
    new = Config(services={"c": service, "b": replace(service, expose_pool=True)}, access_log="stdout")
    difference = Difference.between(old, new)
    assert difference.to_json() == {"added": ["c"], "removed": ["a"], "changed": ["b"], "program": True}
    assert difference.sentence() == (
        "The configuration was reloaded: 1 added (c); 1 removed (a); 1 changed (b); settings of the whole program changed."
    )


def test_a_moment_of_the_calendar_becomes_one_of_the_clock(monkeypatch):
    """Never in the future, and never before the clock began."""
    monkeypatch.setattr("time.time", lambda: 1000.0)
    assert monotonic(None, 50.0) == 0.0
    assert monotonic(990.0, 50.0) == 40.0
    assert monotonic(2000.0, 50.0) == 50.0
    assert monotonic(1.0, 50.0) == 0.0
