"""Drains: when a pool counts as empty, what is reported, and what ends a drain early."""

from __future__ import annotations

import asyncio

import pytest
from support.fake_worker import FakeWorker
from support.waiting import eventually_async

from bgproxy.config.schema import Drain as DrainSettings
from bgproxy.config.schema import Pools, Sessions
from bgproxy.config.schema import Service as Settings
from bgproxy.control.counters import Counters
from bgproxy.control.draining import GRACE, Drain, Drained, Drains
from bgproxy.control.links import Links
from bgproxy.control.registry import Service
from bgproxy.switchboard.board import Switchboard
from bgproxy.switchboard.messages import DrainPool, Flush, Snapshot, UndrainPool

REQUESTS, STREAMS, WEBSOCKETS = range(3)
NONE = {"requests": 0, "streams": 0, "websockets": 0}


class Office:
    """One service, two workers, and a clock that only the test moves."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.board = Switchboard(2)
        self.links = Links(2, welcome=lambda: [self.first_snapshot()], on_failure=lambda _: None)
        self.counters = Counters(self.board, lambda _: 0, self.links.living)
        self.ended: list[tuple[Drain, Drained]] = []
        self.drains = Drains(
            lambda: self.links, self.counters, lambda drain, drained: self.ended.append((drain, drained)), self.now
        )
        self.service = Service(
            "shop", 0, Settings(pools=Pools(), drain=DrainSettings(requests=30, streams=60, websockets=90))
        )
        self.workers: list[FakeWorker] = []

    def now(self) -> float:
        return self.time

    def first_snapshot(self) -> Snapshot:
        return Snapshot(self.links.number(), whole=True, services=())

    def sessions(self, **settings) -> None:
        self.service.settings = Settings(
            pools=Pools(), drain=self.service.settings.drain, sessions=Sessions(**settings)
        )

    async def serving(self, index: int) -> FakeWorker:
        worker = FakeWorker(self.board, index)
        self.workers.append(worker)
        self.links.add(index, worker.pid, worker.theirs)
        await worker.start()
        await eventually_async(lambda: self.links.state(index) == "serving")
        return worker


@pytest.fixture
async def office():
    office = Office()
    yield office
    await office.drains.close()
    await office.links.close()
    for worker in office.workers:
        worker.die()
    await asyncio.sleep(0)
    office.board.close()


@pytest.fixture
async def workers(office):
    return await office.serving(0), await office.serving(1)


async def finished(office) -> Drained:
    await eventually_async(lambda: office.ended)
    return office.ended[0][1]


async def test_an_empty_pool_is_drained_at_once_but_not_before_every_worker_has_said_so(office, workers):
    """Each gets the drain, then a flush, then the end of the drain."""
    office.drains.begin(office.service, 0, 1000.0)
    assert (await finished(office)).complete
    await office.links.acknowledged()
    for worker in workers:
        kinds = [type(message) for message in worker.heard if not isinstance(message, Flush)]
        assert kinds[-2:] == [DrainPool, UndrainPool]
        assert worker.of(DrainPool) == [DrainPool("shop", 0, 1000.0)]
        assert len(worker.of(Flush)) >= 1
    assert office.drains.of("shop", 0) is None


async def test_a_request_that_was_claimed_just_before_the_commit_is_seen(office, workers):
    """The cells say zero until the worker has stored its counts: the flush finds it, and the drain waits for it."""

    def store_counts() -> None:
        if len(workers[1].of(Flush)) == 1:
            workers[1].in_flight(0, 0, REQUESTS, 1)

    workers[1].at_flush = store_counts
    office.drains.begin(office.service, 0, 1000.0)
    await eventually_async(lambda: workers[1].of(Flush))
    await asyncio.sleep(0.06)  # several looks: it must not be believed to be empty
    assert not office.ended
    workers[1].in_flight(0, 0, REQUESTS, 0)
    assert (await finished(office)).complete


async def test_a_worker_that_does_not_answer_keeps_the_drain_open(office, workers):
    """Its zero may be old."""
    workers[0].stop()
    office.drains.begin(office.service, 0, 1000.0)
    await asyncio.sleep(0.1)
    assert not office.ended
    workers[0].go()
    assert (await finished(office)).complete


async def test_the_report_tells_what_ended_and_what_was_cut(office, workers):
    """By class, over all workers, in seconds since the commit; counts from before do not matter."""
    workers[0].cut(0, 0, WEBSOCKETS, 100)
    workers[0].in_flight(0, 0, REQUESTS, 2)
    workers[1].in_flight(0, 0, REQUESTS, 1)
    workers[0].in_flight(0, 0, WEBSOCKETS, 5)
    drain = office.drains.begin(office.service, 0, 1000.0)
    office.time = 1030.0
    assert drain.status() == {
        "since": drain.status()["since"],
        "seconds": 30.0,
        "waiting_for": {"requests": 3, "streams": 0, "websockets": 5},
        "deadline_in": {"requests": 0.0, "streams": 30.0, "websockets": 60.0},
        "sessions_until_in": None,
    }
    workers[0].cut(0, 0, WEBSOCKETS, 102)
    for worker in workers:
        worker.in_flight(0, 0, REQUESTS, 0)
        worker.in_flight(0, 0, WEBSOCKETS, 0)
    drained = await finished(office)
    assert drained.to_json() == {
        **NONE,
        "requests": 3,
        "websockets": 3,
        "cut": {**NONE, "websockets": 2},
        "seconds": 30.0,
        "complete": True,
    }


async def test_a_request_that_became_a_stream_and_was_cut_is_counted_once(office, workers):
    """It was in flight as a request at the switch, and its class changed when its answer began."""
    workers[0].in_flight(0, 0, REQUESTS, 2)
    office.drains.begin(office.service, 0, 1000.0)
    workers[0].cut(0, 0, STREAMS, 1)
    workers[0].in_flight(0, 0, REQUESTS, 0)
    drained = await finished(office)
    assert drained.ended == [1, 0, 0]
    assert drained.cut == [0, 1, 0]


async def test_a_dead_workers_requests_are_not_waited_for(office, workers):
    """They died with it."""
    workers[0].in_flight(0, 0, STREAMS, 7)
    office.drains.begin(office.service, 0, 1000.0)
    await asyncio.sleep(0.05)
    assert not office.ended
    workers[0].die()
    assert (await finished(office)).complete


async def test_what_outlives_every_deadline_ends_the_drain_incomplete(office, workers):
    """A worker that is stuck, or testers that keep previewing the old pool: nobody waits for ever."""
    workers[0].in_flight(0, 0, REQUESTS, 1)
    ending = office.drains.begin(office.service, 0, 1000.0) and office.drains.ending("shop", 0)
    office.time = 1000.0 + 90 + GRACE - 0.01
    await asyncio.sleep(0.06)
    assert not ending.done()
    office.time += 0.02
    drained = await finished(office)
    assert not drained.complete
    assert (await ending) is drained
    await office.links.acknowledged()
    assert workers[0].draining == {}


@pytest.mark.parametrize("policy", ["finish", "deadline"])
async def test_pinned_clients_keep_the_drain_open_for_as_long_as_they_may_come(office, workers, policy):
    """They may begin something on the old pool at any moment until then."""
    office.sessions(mode="cookie", on_switch=policy, drain=600.0)
    drain = office.drains.begin(office.service, 0, 1000.0)
    await asyncio.sleep(0.06)
    assert not office.ended
    office.time = 1599.0
    assert drain.status()["sessions_until_in"] == 1.0
    assert drain.last_moment == 1000.0 + 600 + 90 + GRACE
    office.time = 1600.0
    assert (await finished(office)).complete


@pytest.mark.parametrize("settings", [{"mode": "cookie", "on_switch": "follow"}, {"mode": "source"}, {"mode": "none"}])
async def test_clients_that_follow_keep_nothing_open(office, workers, settings):
    """They have moved with the switch."""
    office.sessions(**settings)
    drain = office.drains.begin(office.service, 0, 1000.0)
    assert drain.status()["sessions_until_in"] is None
    assert (await finished(office)).complete


async def test_a_drain_that_is_cancelled_undrains_and_answers_whoever_waits(office, workers):
    """The pool is live again: no deadlines any more, and no event that it was drained."""
    workers[0].in_flight(0, 0, REQUESTS, 4)
    office.drains.begin(office.service, 0, 1000.0)
    ending = office.drains.ending("shop", 0)
    office.drains.cancel("shop", 0)
    office.drains.cancel("shop", 0)
    drained = await ending
    assert not drained.complete
    assert drained.ended == [0, 0, 0]
    await office.links.acknowledged()
    assert all(worker.draining == {} for worker in workers)
    await asyncio.sleep(0.05)
    assert office.ended == []
    assert office.drains.ending("shop", 0) is None


async def test_a_worker_that_comes_later_is_told_of_drains_under_way(office, workers):
    """With the moment of the switch, so that its deadlines are the same."""
    workers[0].in_flight(0, 1, STREAMS, 1)
    office.drains.begin(office.service, 1, 1000.0)
    assert office.drains.notes() == [DrainPool("shop", 1, 1000.0)]


async def test_closing_leaves_the_deadlines_to_the_workers(office, workers):
    """Whoever waits is answered, and no task is left."""
    workers[0].in_flight(0, 0, REQUESTS, 1)
    office.drains.begin(office.service, 0, 1000.0)
    ending = office.drains.ending("shop", 0)
    await eventually_async(lambda: all(worker.draining for worker in workers))
    await office.drains.close()
    assert ending.done()
    assert not ending.result().complete
    await office.links.acknowledged()
    assert all(worker.draining == {("shop", 0): 1000.0} for worker in workers)
