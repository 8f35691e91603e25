"""Links to workers, over real socket pairs: who has what, who answers, who is gone."""

from __future__ import annotations

import asyncio

import pytest
from support.fake_worker import FakeWorker
from support.waiting import eventually_async

from bgproxy.control import links as module
from bgproxy.control.links import WINDOW, Links
from bgproxy.errors import Unavailable
from bgproxy.switchboard.board import Switchboard
from bgproxy.switchboard.messages import (
    Ack,
    AskRecent,
    DrainPool,
    Flush,
    Hello,
    Mirrored,
    Recent,
    Snapshot,
    UpstreamFailed,
)

NOTE = DrainPool("shop", 0, 1.0)
POOLS = (("shop", 1),)


class Office:
    """Links of two workers, what they were told about, and the workers themselves."""

    def __init__(self) -> None:
        self.board = Switchboard(2)
        self.failures: list[UpstreamFailed] = []
        self.changes: list[tuple[int, str]] = []
        self.links = Links(
            2,
            welcome=lambda: [self.whole(), NOTE],
            on_failure=self.failures.append,
            on_change=lambda worker, state: self.changes.append((worker, state)),
        )
        self.workers: list[FakeWorker] = []

    def whole(self) -> Snapshot:
        return Snapshot(self.links.number(), whole=True, services=())

    def delta(self) -> Snapshot:
        return Snapshot(self.links.number(), whole=False, services=())

    async def worker(self, index: int, *, hello: bool = True, pid: int | None = None) -> FakeWorker:
        worker = FakeWorker(self.board, index, pid=pid)
        self.workers.append(worker)
        self.links.add(index, worker.pid, worker.theirs)
        return await worker.start(hello=hello)

    async def serving(self, index: int) -> FakeWorker:
        worker = await self.worker(index)
        await eventually_async(lambda: self.links.state(index) == "serving")
        return worker


@pytest.fixture
async def office():
    office = Office()
    yield office
    await office.links.close()
    for worker in office.workers:
        worker.die()
    await asyncio.sleep(0)
    office.board.close()


async def test_a_worker_that_says_hello_gets_everything(office):
    """A whole snapshot and the drains under way; it serves once it has acknowledged."""
    assert office.links.state(0) == "starting"
    worker = await office.worker(0, hello=False)
    assert office.links.state(0) == "starting"
    worker.hello()
    await eventually_async(lambda: office.links.state(0) == "serving")
    assert [type(message) for message in worker.heard] == [Snapshot, DrainPool]
    assert worker.heard[0].whole
    assert office.changes == [(0, "serving")]
    assert office.links.pid(0) == worker.pid


async def test_changes_go_to_all_that_had_a_whole_snapshot(office):
    """One that has not said Hello gets it with its first."""
    first, second = await office.serving(0), await office.worker(1, hello=False)
    snapshot = office.delta()
    office.links.publish(snapshot)
    office.links.send(NOTE)
    await eventually_async(lambda: snapshot in first.heard and first.heard[-1] == NOTE)
    assert second.heard == []


async def test_acknowledged_means_that_every_worker_has_it(office):
    """It returns when the last of them has said so."""
    first, second = await office.serving(0), await office.serving(1)
    office.links.publish(office.delta())
    await office.links.acknowledged()
    assert [len(worker.of(Snapshot)) for worker in (first, second)] == [2, 2]


async def test_what_comes_after_the_answer_is_told_with_the_question(office):
    """A worker is woken once, and answers before it begins with that."""
    worker = await office.serving(0)
    warm = await office.links.acknowledged(then_warm=POOLS)
    assert warm.pools == POOLS
    assert await office.links.warmed(warm, 5.0)
    assert worker.heard[-2:] == [Flush(worker.of(Flush)[-1].number), warm]
    office.links.publish(office.delta())
    office.links.send(NOTE, NOTE)
    await eventually_async(lambda: worker.heard[-2:] == [NOTE, NOTE])


async def test_connections_are_not_waited_for_longer_than_said(office):
    """They spare time, no more. The answer to the question is none to this; and who has gone is not waited for."""
    await office.serving(0)
    second = await office.serving(1)
    second.warms = False
    warm = await office.links.acknowledged(then_warm=POOLS)
    assert not await office.links.warmed(warm, 0.02)
    waiting = asyncio.create_task(office.links.warmed(warm, 5.0))
    await asyncio.sleep(0)
    second.die()
    assert await waiting


async def test_a_stopped_worker_is_named_even_if_it_had_acknowledged_everything(office):
    """SIGSTOP: there is nothing new for it, and it does not answer all the same."""
    await office.serving(0)
    second = await office.serving(1)
    second.stop()
    with pytest.raises(Unavailable, match=r"worker 1 \(pid 1001\) did not answer within 0\.05s; nothing was changed"):
        await office.links.acknowledged(0.05)
    assert not await office.links.flush(0.05)
    second.go()
    await office.links.acknowledged()
    assert await office.links.flush()


async def test_a_worker_that_has_not_said_hello_counts(office):
    """It may serve, by what a former controller told it."""
    await office.serving(0)
    second = await office.worker(1, hello=False)
    with pytest.raises(Unavailable, match="worker 1"):
        await office.links.acknowledged(0.05)
    second.hello()
    await office.links.acknowledged()


async def test_a_worker_that_dies_is_waited_for_no_more(office):
    """Its successor gets a whole snapshot before it serves."""
    await office.serving(0)
    second = await office.serving(1)
    second.stop()
    waiting = asyncio.create_task(office.links.acknowledged(5.0))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    office.links.lost(1)
    async with asyncio.timeout(1):
        await waiting
    assert office.links.state(1) == "lost"
    assert office.links.living() == [0]
    assert office.changes[-1] == (1, "lost")


async def test_the_end_of_a_link_is_the_loss_of_its_worker(office):
    """The kernel tells sooner than the supervisor; it is one loss all the same."""
    worker = await office.serving(0)
    worker.die()
    await eventually_async(lambda: office.links.state(0) == "lost")
    office.links.lost(0)
    assert office.changes == [(0, "serving"), (0, "lost")]


async def test_a_successor_counts_as_living_once_it_has_begun_anew(office):
    """Until then the cells have the gauges of the dead one."""
    former = await office.serving(0)
    former.die()
    await eventually_async(lambda: office.links.state(0) == "lost")
    successor = await office.worker(0, hello=False, pid=2000)
    assert office.links.state(0) == "starting"
    assert office.links.living() == [1]
    successor.hello()
    await eventually_async(lambda: office.links.state(0) == "serving")
    assert office.links.living() == [0, 1]
    assert office.links.pid(0) == 2000


async def test_a_link_that_comes_unannounced_replaces_the_former(office):
    """The loss of the worker was not told; the former link ends, and what still comes over it is not heard."""
    former = await office.serving(0)
    successor = await office.worker(0, pid=2000)
    await eventually_async(lambda: former.gone)
    await eventually_async(lambda: office.links.state(0) == "serving")
    assert office.links.pid(0) == 2000
    assert len(successor.of(Snapshot)) == 1


async def test_what_a_stopped_worker_does_not_read_does_not_pile_up(office):
    """It is sent no more than a window of changes, and everything at once when it goes on."""
    worker = await office.serving(0)
    worker.stop()
    for _ in range(20 * WINDOW):
        office.links.publish(office.delta())
        office.links.send(NOTE)
    worker.go()
    await eventually_async(lambda: len(worker.of(Snapshot)) > WINDOW and worker.of(Snapshot)[-1].whole)
    await office.links.acknowledged()
    assert len(worker.of(Snapshot)) <= WINDOW + 2
    last = office.delta()
    office.links.publish(last)
    await eventually_async(lambda: last in worker.heard)


async def test_a_flush_is_answered_after_everything_before_it(office):
    """In one order with snapshots, so that its answer stands for them too."""
    worker = await office.serving(0)
    flushed: list[int] = []
    worker.at_flush = lambda: flushed.append(len(worker.of(Snapshot)))
    office.links.publish(office.delta())
    assert await office.links.flush()
    assert flushed == [2]
    assert [type(message) for message in worker.heard[-2:]] == [Snapshot, Flush]


async def test_failures_that_workers_met_are_passed_on(office):
    """As they came."""
    worker = await office.serving(0)
    failure = UpstreamFailed("127.0.0.1:9001", "shop", 0, 3, "connection refused")
    worker.say(failure)
    await eventually_async(lambda: office.failures == [failure])


async def test_without_workers_there_is_nobody_to_wait_for(office):
    """All of them are dead: a switch can still be made, and their successors begin with it."""
    await office.links.acknowledged(0.05)
    assert await office.links.flush(0.05)


async def test_an_answer_that_was_not_asked_for_disturbs_nothing(office):
    """An acknowledgement of the past or the future, and a second Hello."""
    worker = await office.serving(0)
    worker.say(Ack(0))
    worker.say(Hello(0, worker.pid))
    await eventually_async(lambda: len(worker.of(Snapshot)) == 2)
    await office.links.acknowledged()


async def test_census_tells_which_workers_are_down(office):
    """A worker without a process and without a link does not count in gauges."""
    await office.serving(0)
    office.links.census({0: None, 1: None})
    assert office.links.living() == [0]
    assert office.links.state(1) == "lost"


async def test_closing_ends_links_and_waits(office):
    """Whoever waits for an answer does not wait for ever; workers see the end."""
    worker = await office.worker(0, hello=False)
    waiting = asyncio.create_task(office.links.acknowledged(5.0))
    await asyncio.sleep(0.01)
    await office.links.close()
    async with asyncio.timeout(1):
        await waiting
    await eventually_async(lambda: worker.gone)


def mirrored(service: str, number: int) -> Mirrored:
    return Mirrored(service, number, b"GET", b"/", b"", b"", 200, b"", b"", True, 0.1)


async def test_mirrored_requests_go_to_who_wants_them(office):
    """With the link that they came over; those of another deployment or service, and later ones, are dropped."""
    worker = await office.serving(0)
    taken = []
    office.links.take_mirrored("shop", 7, lambda link, message: taken.append((link.worker, message)))
    for service, number in (("shop", 6), ("other", 7), ("shop", 7)):
        worker.say(mirrored(service, number))
    await eventually_async(lambda: taken)
    assert taken == [(0, mirrored("shop", 7))]
    office.links.leave_mirrored("shop", 7)
    office.links.leave_mirrored("shop", 7)
    worker.say(mirrored("shop", 7))
    await office.links.acknowledged()
    assert len(taken) == 1


async def test_a_worker_that_is_behind_is_not_up_to_date(office):
    """Nor is one that has not said Hello: what is sent to it now may not be understood."""
    first = await office.serving(0)
    await office.worker(1, hello=False)
    assert [link.worker for link in office.links.up_to_date()] == [0]
    first.acks = False
    for _ in range(WINDOW + 1):
        office.links.publish(office.delta())
    assert office.links.up_to_date() == []


async def answer(worker: FakeWorker, *targets: tuple[str, int]) -> None:
    await eventually_async(lambda: worker.of(AskRecent))
    asked = worker.of(AskRecent)[-1]
    worker.say(Recent(asked.number, asked.service, targets))


async def test_what_was_asked_for_of_late_is_summed_over_workers(office):
    """The most first, and no more than was asked for."""
    first, second = await office.serving(0), await office.serving(1)
    asking = asyncio.create_task(office.links.recent("shop", 2))
    await answer(first, ("/a", 3), ("/b", 2))
    assert first.of(AskRecent)[0].limit == 2
    await answer(second, ("/b", 2), ("/c", 1))
    assert await asking == [("/b", 4), ("/a", 3)]


async def test_who_does_not_answer_is_left_out(office, monkeypatch):
    """A stopped worker after a while, one that dies at once; a late answer is none to the next question."""
    monkeypatch.setattr(module, "RECENT_WITHIN", 0.1)
    first, second = await office.serving(0), await office.serving(1)
    second.stop()
    asking = asyncio.create_task(office.links.recent("shop", 5))
    await answer(first, ("/a", 3))
    assert await asking == [("/a", 3)]
    second.go()
    await answer(second, ("/late", 9))
    second.die()
    await eventually_async(lambda: office.links.state(1) == "lost")
    assert await office.links.recent("shop", 5) == []
