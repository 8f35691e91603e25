"""What is known of a live pool before anybody deploys."""

from __future__ import annotations

import asyncio

import pytest
from support.deployments import FakeClock, make_service
from support.traffic import BLUE, GREEN, Traffic
from support.waiting import eventually_async

from bgproxy.config.schema import Bake, Deployment
from bgproxy.control.counters import Counters
from bgproxy.control.deployments.watcher import AT_ONCE, SPAN, Watcher
from bgproxy.errors import NotFound
from bgproxy.switchboard.board import Switchboard


@pytest.fixture
def board():
    board = Switchboard(1)
    yield board
    board.close()


def shop(**more):
    return make_service("http://127.0.0.1:2", deployment=Deployment(bake=Bake()), **more)


def watcher_of(board, services, clock):
    counters = Counters(board, lambda _: 0, lambda: [0])
    return Watcher(services=lambda: services, counters=counters, now=clock.now, sleep=clock.sleep)


async def test_before_is_the_last_five_minutes_up_to_this_moment(board):
    """What is older has gone, and what came after the last round counts."""
    clock, traffic, service = FakeClock(), Traffic(board), shop()
    watcher = watcher_of(board, [service], clock)
    for _ in range(120):  # ten minutes
        await watcher.look()
        clock.at += 5
        traffic.answered(BLUE, 50)
    traffic.answered(BLUE, 7, code=500)
    before = watcher.before(service)
    assert SPAN - 30 <= before.seconds <= SPAN
    assert before.requests == before.seconds * 10 + 7
    assert before.errors == 7


async def test_before_begins_with_the_pool_that_is_live_now(board):
    """The other pool's figures are nobody's baseline; and until the first look there is none."""
    clock, traffic, service = FakeClock(), Traffic(board), shop()
    watcher = watcher_of(board, [service], clock)
    assert watcher.before(service).requests == 0
    await watcher.look()
    traffic.answered(BLUE, 100)
    service.live = GREEN
    assert watcher.before(service).requests == 0
    clock.at += 5
    await watcher.look()
    traffic.answered(GREEN, 3)
    assert watcher.before(service).requests == 3


async def test_services_that_do_not_bake_cost_nothing_and_those_that_go_are_forgotten(board):
    """And one that leaves in the middle of a round disturbs no other."""
    clock = FakeClock()
    plain = make_service("http://127.0.0.1:2")
    plain.name = "plain"
    services = [plain, *(shop() for _ in range(AT_ONCE + 2))]
    for index, service in enumerate(services[1:]):
        service.name = f"shop{index}"

    def slot_of(name):
        if name == "shop1":
            raise NotFound("gone")
        return 0

    watcher = Watcher(services=lambda: services, counters=Counters(board, slot_of, lambda: [0]), now=clock.now)
    await watcher.look()
    assert "plain" not in watcher._watched
    assert not watcher._watched["shop1"].samples
    assert len(watcher._watched["shop2"].samples) == 1
    del services[2:]
    await watcher.look()
    assert list(watcher._watched) == ["shop0"]


async def test_it_keeps_little(board):
    """Eleven samples a service, however often it looks."""
    clock, service = FakeClock(), shop()
    watcher = watcher_of(board, [service], clock)
    for _ in range(500):
        await watcher.look()
        clock.at += 5
    assert len(watcher._watched["shop"].samples) <= 11


async def test_it_starts_and_stops(board):
    """No task is left, and a stop without a start is none."""
    clock, service = FakeClock(), shop()
    watcher = watcher_of(board, [service], clock)
    await watcher.stop()
    watcher.start()
    await eventually_async(lambda: clock.slept > 60)
    await watcher.stop()
    await watcher.stop()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "figures of the live pools"]
