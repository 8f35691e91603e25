"""Snapshots: what has changed goes out once, and to those that come later as a whole."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from support.fake_worker import FakeWorker
from support.waiting import eventually_async

from bgproxy.config.schema import Limits, Match, Pools, Timeouts
from bgproxy.config.schema import Service as Settings
from bgproxy.control.links import Links
from bgproxy.control.places import Place
from bgproxy.control.publishing import GATHER, Publisher
from bgproxy.control.registry import Registry, Service
from bgproxy.model.snapshot import ProxySpec
from bgproxy.model.upstream import UpstreamEvent
from bgproxy.switchboard.board import Switchboard
from bgproxy.switchboard.messages import Snapshot


class Office:
    """A registry of two services, published to one worker."""

    def __init__(self) -> None:
        self.board = Switchboard(2)
        self.proxy = ProxySpec(Limits(), Timeouts(), (), "off", b"k" * 32)
        self.registry = Registry()
        self.links = Links(2, welcome=lambda: [self.publisher.whole()], on_failure=lambda _: None)
        self.clock = 100.0
        self.publisher = Publisher(self.registry, lambda: self.links, lambda: self.proxy, lambda: self.clock)
        self.workers: list[FakeWorker] = []
        for name in ("shop", "api"):
            self.add(name)

    def add(self, name: str) -> Service:
        service = Service(
            name, self.registry.service_slots.take(), Settings(pools=Pools(), match=Match(path=f"/{name}"))
        )
        place = Place("127.0.0.1:1", "http://127.0.0.1:1", ("127.0.0.1", 1))
        slots = self.registry.upstream_slots
        for pool in service.pools:
            pool.place([place], lambda _: slots.take(), slots.give_back)
        self.registry.services[name] = service
        return service

    async def serving(self, index: int) -> FakeWorker:
        worker = FakeWorker(self.board, index)
        self.workers.append(worker)
        self.links.add(index, worker.pid, worker.theirs)
        await worker.start()
        await eventually_async(lambda: self.links.state(index) == "serving")
        return worker

    def rise(self, name: str, pool: int) -> None:
        self.registry.services[name].pools[pool].upstreams[0].step(UpstreamEvent.ROSE)


@pytest.fixture
async def office():
    office = Office()
    yield office
    office.publisher.close()
    await office.links.close()
    for worker in office.workers:
        worker.die()
    await asyncio.sleep(0)
    office.board.close()


async def test_a_worker_that_comes_gets_all_services_and_the_proxys_rules(office):
    """Whether or not somebody has said that they changed."""
    worker = await office.serving(0)
    (snapshot,) = worker.of(Snapshot)
    assert snapshot.whole
    assert snapshot.proxy == office.proxy
    assert {spec.name: spec.path for spec in snapshot.services} == {"shop": "/shop", "api": "/api"}


async def test_what_changes_in_one_turn_goes_out_together(office):
    """And of the services only those that differ now."""
    worker = await office.serving(0)
    office.rise("shop", 1)
    office.publisher.touch("shop")
    office.rise("shop", 0)
    office.publisher.touch("shop", "api")
    await office.links.acknowledged()
    _, delta = worker.of(Snapshot)
    assert not delta.whole
    assert delta.proxy is None
    assert [spec.name for spec in delta.services] == ["shop"]
    assert [pool.upstreams[0].usable for pool in delta.services[0].pools] == [True, True]


async def test_changes_that_follow_each_other_are_gathered(office):
    """The first goes out at once; what comes within a moment of it goes out together."""
    worker = await office.serving(0)
    office.rise("shop", 1)
    office.publisher.touch("shop")
    await office.links.acknowledged()
    assert len(worker.of(Snapshot)) == 2
    for name in ("shop", "api"):
        office.registry.services[name].pools[1].upstreams[0].step(UpstreamEvent.DRAIN)
        office.registry.services[name].pools[0].upstreams[0].step(UpstreamEvent.DRAIN)
        office.publisher.touch(name)
        await office.links.acknowledged()
    assert len(worker.of(Snapshot)) == 2
    office.clock += GATHER
    await eventually_async(lambda: len(worker.of(Snapshot)) == 3)
    assert {spec.name for spec in worker.of(Snapshot)[2].services} == {"shop", "api"}
    office.publisher.touch("shop")
    await office.links.acknowledged()
    assert len(worker.of(Snapshot)) == 3


async def test_who_waits_for_the_workers_does_not_wait_for_others(office):
    """A switch tells them now, whatever went out a moment ago."""
    worker = await office.serving(0)
    for name in ("shop", "api"):
        office.rise(name, 1)
        office.publisher.touch(name)
        office.publisher.publish()
        await office.links.acknowledged()
    assert len(worker.of(Snapshot)) == 3


async def test_what_does_not_change_for_a_worker_is_not_sent(office):
    """An upstream of the live pool that is checked for the first time was usable before."""
    worker = await office.serving(0)
    office.rise("shop", 0)
    office.publisher.touch("shop")
    await asyncio.sleep(0)
    await office.links.acknowledged()
    assert len(worker.of(Snapshot)) == 1


async def test_a_service_that_goes_is_named_and_one_that_comes_is_sent(office):
    """In one snapshot, so that no request falls between."""
    worker = await office.serving(0)
    del office.registry.services["api"]
    office.add("blog")
    office.publisher.touch("api", "blog")
    office.publisher.publish()
    await office.links.acknowledged()
    delta = worker.of(Snapshot)[-1]
    assert delta.removed == ("api",)
    assert [spec.name for spec in delta.services] == ["blog"]
    assert set(worker.services) == {"shop", "blog"}


async def test_a_service_that_came_and_went_unseen_is_not_named(office):
    """The workers never knew it."""
    worker = await office.serving(0)
    office.add("blink")
    office.publisher.touch("blink")
    del office.registry.services["blink"]
    await asyncio.sleep(0)
    await office.links.acknowledged()
    assert len(worker.of(Snapshot)) == 1


async def test_new_rules_for_the_proxy_go_out_at_the_next_publishing(office):
    """Even if no service has changed."""
    worker = await office.serving(0)
    office.proxy = replace(office.proxy, access_log="stdout")
    office.publisher.publish()
    await office.links.acknowledged()
    assert worker.of(Snapshot)[-1].proxy == office.proxy
    assert worker.of(Snapshot)[-1].services == ()
    office.publisher.publish()
    await office.links.acknowledged()
    assert len(worker.of(Snapshot)) == 2


async def test_a_worker_that_comes_in_the_middle_and_the_others_end_up_with_the_same(office):
    """What has been touched and not published yet is in its whole snapshot, and reaches the others too."""
    first = await office.serving(0)
    office.rise("shop", 1)
    office.publisher.touch("shop")
    second = await office.serving(1)
    await office.links.acknowledged()
    assert first.services == second.services
    assert first.services["shop"].pools[1].upstreams[0].usable
    numbers = [message.number for message in first.of(Snapshot)]
    assert numbers == sorted(set(numbers))


async def test_after_closing_nothing_is_published(office):
    """Not even what was due."""
    worker = await office.serving(0)
    office.rise("shop", 1)
    office.publisher.touch("shop")
    office.publisher.close()
    await asyncio.sleep(0)
    await office.links.acknowledged()
    assert len(worker.of(Snapshot)) == 1
