"""Upstreams as they rise and fall, are ejected, and come and go with their names."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import pytest

from bgproxy.config.schema import Health, Passive, Pools
from bgproxy.config.schema import Service as Settings
from bgproxy.control.discovery import Discovery
from bgproxy.control.doors import BARRED, Doors
from bgproxy.control.events import EventLog
from bgproxy.control.health import CheckResult
from bgproxy.control.registry import Registry, Service
from bgproxy.control.watching import Watch
from bgproxy.model.upstream import UpstreamState
from bgproxy.switchboard.messages import UpstreamFailed

GOOD, BAD = CheckResult(ok=True, reason="", seconds=0.001), CheckResult(ok=False, reason="refused", seconds=0.002)


class Checks:
    """Health checks that the test makes."""

    def __init__(self, on_result) -> None:
        self.report = on_result
        self.watched: dict[str, dict] = {}

    def watch(self, key, **about) -> None:
        self.watched[key] = about

    def unwatch(self, key) -> None:
        self.watched.pop(key, None)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Publisher:
    """Remembers what was touched."""

    def __init__(self) -> None:
        self.touched: list[str] = []

    def touch(self, *names: str) -> None:
        self.touched += names


class Station:
    """A watch over one service, with names that the test resolves."""

    def __init__(self, *urls: str, doors: Doors | None = None, **settings) -> None:
        self.names: dict[str, tuple[str, ...]] = {}
        self.registry = Registry()
        self.publisher = Publisher()
        self.events = EventLog()
        self.clock = 100.0
        self.checks: Checks = None  # type: ignore[assignment]
        self.watch = Watch(
            self.registry,
            self.publisher,
            self.events,
            doors=doors,
            checks=self._make_checks,
            discovery=lambda changed: Discovery(changed, interval=0.01, resolve=self._resolve),
            now=lambda: self.clock,
        )
        health = Health(rise=2, fall=2)
        passive = Passive(failures=3, within=10.0, eject=0.02, max_ejected=50.0)
        settings = {"health": health, "passive": passive} | settings
        self.service = Service("shop", 0, Settings(pools=Pools(), **settings))
        self.registry.services["shop"] = self.service
        self.pool = self.service.pools[0]
        self.pool.urls = urls
        self.watch.follow(self.service)

    def _make_checks(self, on_result):
        self.checks = Checks(on_result)
        return self.checks

    async def _resolve(self, host: str, _port: int) -> tuple[str, ...]:
        if host not in self.names:
            raise OSError("unknown")
        return self.names[host]

    def check(self, result: CheckResult, *, times: int = 1, at: int = 0) -> None:
        for _ in range(times):
            self.checks.report(f"shop/blue/{self.pool.upstreams[at].id}", result)

    def fail(self, count: int = 1, *, at: int = 0) -> None:
        self.watch.failed(UpstreamFailed(self.pool.upstreams[at].id, "shop", 0, count, "connection reset"))

    def types(self) -> list[str]:
        return [event["type"] for event in self.events.since(0) or []]


ONE, TWO, THREE = (f"http://127.0.0.1:{port}" for port in (1, 2, 3))


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_an_upstream_rises_and_falls_after_so_many_checks_in_a_row():
    """Each change is an event, a reason, and told to the workers."""
    station = Station(ONE)
    (upstream,) = station.pool.upstreams
    station.check(GOOD)
    assert upstream.state is UpstreamState.CHECKING
    station.publisher.touched.clear()
    station.check(GOOD)
    assert upstream.state is UpstreamState.UP
    assert station.publisher.touched == ["shop"]
    station.check(BAD)
    station.check(GOOD)
    station.check(BAD)
    assert upstream.state is UpstreamState.UP
    station.check(BAD)
    assert (upstream.state, upstream.reason) == (UpstreamState.DOWN, "refused")
    assert upstream.check_seconds == BAD.seconds
    assert station.types() == ["upstream_up", "upstream_down"]


async def test_checks_are_fast_only_until_the_first_judgement():
    """A pool is up soon after a start, and not checked to death later."""
    station = Station(ONE)
    fast = station.checks.watched["shop/blue/127.0.0.1:1"]["fast"]
    assert fast()
    station.check(GOOD, times=2)
    assert not fast()


async def test_failures_of_live_requests_eject_for_a_while():
    """At the threshold, not before; then it is back by itself. Both are events."""
    station = Station(ONE, TWO)
    station.check(GOOD, times=2)
    station.check(GOOD, times=2, at=1)
    upstream = station.pool.upstreams[0]
    station.fail(2)
    assert not upstream.ejected
    station.fail()
    assert upstream.ejected
    assert upstream.reason == "connection reset"
    assert not upstream.usable(live=True)
    await until(lambda: not upstream.ejected)
    assert upstream.reason == ""
    assert station.types()[-2:] == ["upstream_ejected", "upstream_returned"]
    await station.watch.stop()


async def test_failures_that_are_long_past_do_not_count():
    """Only those within the window do."""
    station = Station(ONE, TWO)
    station.fail(2)
    station.clock += 11
    station.fail(2)
    assert not station.pool.upstreams[0].ejected


async def test_never_more_than_the_share_is_ejected():
    """Of two, one; of one, none: someone has to answer."""
    station = Station(ONE, TWO)
    station.fail(3, at=0)
    station.fail(3, at=1)
    assert [upstream.ejected for upstream in station.pool.upstreams] == [True, False]
    alone = Station(ONE)
    alone.fail(3)
    assert not alone.pool.upstreams[0].ejected
    await station.watch.stop()


async def test_failures_of_an_upstream_that_is_gone_are_nobodys():
    """A worker may tell of one that was removed a moment ago."""
    station = Station(ONE)
    station.watch.failed(UpstreamFailed("127.0.0.1:9", "shop", 0, 9, "late"))
    station.watch.failed(UpstreamFailed("127.0.0.1:1", "gone", 0, 9, "late"))
    assert station.types() == []


async def test_a_name_is_as_many_upstreams_as_it_has_addresses():
    """They come and go with it; those that stay keep their state; slots of those that go are free again."""
    station = Station("http://web:80")
    station.names["web"] = ("10.0.0.1", "10.0.0.2")
    free = station.registry.upstream_slots.free
    await station.watch.start()
    assert [upstream.address for upstream in station.pool.upstreams] == [("10.0.0.1", 80), ("10.0.0.2", 80)]
    kept = station.pool.upstreams[1]
    station.check(GOOD, times=2, at=1)
    station.names["web"] = ("10.0.0.2",)
    await until(lambda: station.pool.upstreams == [kept])
    assert kept.state is UpstreamState.UP
    assert list(station.checks.watched) == ["shop/blue/web:80~10.0.0.2:80"]
    assert station.registry.upstream_slots.free == free - 1
    assert station.watch.slots() == {"shop blue web:80~10.0.0.2:80": kept.slot}
    await station.watch.stop()


async def test_a_name_that_stops_resolving_keeps_its_last_good_addresses():
    """And the pool its health: a resolver that is down takes nothing down. The status says so."""
    station = Station("http://web:80")
    station.names["web"] = ("10.0.0.1",)
    await station.watch.start()
    station.check(GOOD, times=2)
    del station.names["web"]
    await until(lambda: station.pool.name_troubles)
    assert station.pool.healthy
    assert "web: name does not resolve" in station.pool.name_troubles["http://web:80"]
    assert station.watch.addresses() == {"web": ("10.0.0.1",)}
    await station.watch.stop()


async def test_a_name_that_never_resolved_is_a_trouble_of_its_pool():
    """There is nowhere to send anything."""
    station = Station("http://web:80")
    await station.watch.start()
    assert station.pool.upstreams == []
    assert station.pool.troubles()[0].startswith("http://web:80: web: name does not resolve")
    await station.watch.stop()


async def test_a_successor_begins_with_the_addresses_and_slots_that_it_was_left():
    """While no name resolves, and with the slots under which the workers know the upstreams."""
    station = Station()
    station.watch.restore({"web": ("10.0.0.1",)}, {"shop blue web:80~10.0.0.1:80": 7, "shop blue gone": 9})
    station.pool.urls = ("http://web:80",)
    station.watch.follow(station.service)
    assert [(one.address, one.slot) for one in station.pool.upstreams] == [(("10.0.0.1", 80), 7)]
    free = station.registry.upstream_slots.free
    await station.watch.start()
    assert station.registry.upstream_slots.free == free + 1  # of the one that is gone
    await station.watch.stop()


async def test_a_name_that_no_pool_uses_is_not_resolved_any_more():
    """Nor are its upstreams checked."""
    station = Station("http://web:80")
    station.names["web"] = ("10.0.0.1",)
    await station.watch.start()
    station.watch.forget(station.service)
    assert station.watch.addresses() == {}
    assert station.checks.watched == {}
    assert station.pool.upstreams == []
    await station.watch.stop()


async def test_other_settings_are_in_force_at_once():
    """Checks begin anew by them; what is known of the upstream stays."""
    station = Station(ONE)
    station.check(GOOD, times=2)
    before = station.service.settings
    station.service.settings = replace(before, health=Health(fall=1), passive=Passive(failures=1, max_ejected=100))
    station.watch.renew(station.service, before)
    assert station.checks.watched["shop/blue/127.0.0.1:1"]["settings"].fall == 1
    station.check(BAD)
    assert station.pool.upstreams[0].state is UpstreamState.DOWN


@pytest.mark.parametrize("word", ["draining", "maint"])
async def test_what_is_out_by_hand_is_judged_by_hand_only(word):
    """Checks and failures change nothing of it; ready again, it has to rise anew."""
    station = Station(ONE, TWO)
    station.check(GOOD, times=2)
    (upstream, _) = station.pool.upstreams
    station.pool.by_hand = {upstream.id: word}
    assert station.watch.obey(station.service, station.pool) == [upstream]
    station.check(BAD, times=5)
    station.fail(9)
    assert upstream.state.value == word
    assert ("shop/blue/127.0.0.1:1" in station.checks.watched) == (word == "draining")
    station.pool.by_hand = {}
    station.watch.obey(station.service, station.pool)
    assert upstream.state is UpstreamState.CHECKING
    station.check(GOOD)
    assert upstream.state is UpstreamState.CHECKING
    station.check(GOOD)
    assert upstream.state is UpstreamState.UP


async def test_no_upstream_is_placed_where_the_admin_api_is(caplog):
    """Neither by its address nor by a name that stands for it now; the status and the log say so, the log once."""
    with socket.create_server(("127.0.0.1", 0)) as admin:
        port = admin.getsockname()[1]
        named = f"tcp://web:{port}"
        station = Station(ONE, f"http://127.0.0.1:{port}", named, doors=Doors([admin]))
        station.names["web"] = ("127.0.0.1", "192.0.2.1")
        await station.watch.start()
        await until(lambda: len(station.pool.upstreams) == 2)
        assert [upstream.address for upstream in station.pool.upstreams] == [("127.0.0.1", 1), ("192.0.2.1", port)]
        assert station.pool.unresolved == [(f"http://127.0.0.1:{port}", BARRED), (named, BARRED)]
        station.names["web"] = ("127.0.0.1",)
        await until(lambda: len(station.pool.upstreams) == 1)
        assert station.pool.unresolved[1] == (named, BARRED)
        station.names["web"] = ("192.0.2.1",)
        await until(lambda: len(station.pool.unresolved) == 1)
        await station.watch.stop()
    assert [record.args[2] for record in caplog.records if BARRED in record.getMessage()] == [
        f"http://127.0.0.1:{port}",
        named,
    ]
