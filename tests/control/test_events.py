"""The log of events: its order, its followers, its history."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from support.waiting import eventually_async

from bgproxy.control.actor import Actor
from bgproxy.control.events import HISTORY_LENGTH, Draft, EventLog


def say(log: EventLog, message: str, service: str | None = None) -> int:
    return log.emit(Draft(type="upstream_up", message=message, service=service))["id"]


def messages(events) -> list[str]:
    return [event["message"] for event in events]


def test_an_event_has_all_its_members():
    """Readers rely on each of them."""
    log = EventLog()
    event = log.emit(
        Draft(type="switched", message="m", service="shop", pool="green", actor=Actor("ci", "::1"), reason="why")
    )
    assert {**event, "at": ""} == {
        "id": 1,
        "at": "",
        "type": "switched",
        "service": "shop",
        "pool": "green",
        "upstream": None,
        "actor": {"name": "ci", "address": "::1"},
        "reason": "why",
        "message": "m",
        "data": {},
    }


def test_ids_go_on_where_the_last_life_ended():
    """And its durable events can be had again."""
    log = EventLog()
    (old,) = log.reserve([Draft(type="switched", message="old", service="shop")])
    log.settle((old,))
    log = EventLog()
    log.restore([old], last_id=500)
    assert say(log, "new") == 501
    assert messages(log.history()) == ["old"]
    assert messages(log.since(0)) == ["old", "new"]


def test_a_reserved_event_comes_before_those_that_happened_while_it_was_written():
    """The log stays in the order of its ids, and others do not overtake."""
    log = EventLog()
    reserved = log.reserve([Draft(type="switched", message="switched")])
    say(log, "meanwhile")
    assert log.since(0) == []
    log.settle(reserved)
    assert messages(log.since(0)) == ["switched", "meanwhile"]
    assert [event["id"] for event in log.since(0)] == [1, 2]


def test_a_reserved_event_that_did_not_happen_leaves_no_trace():
    """Its id is lost, and what was kept back is told."""
    log = EventLog()
    log.reserve([Draft(type="switched", message="switched")])
    say(log, "meanwhile")
    log.settle(())
    assert messages(log.since(0)) == ["meanwhile"]
    assert log.history() == []
    assert say(log, "next") == 3


def test_two_reservations_at_a_time_are_a_bug():
    """They would have no order."""
    log = EventLog()
    log.reserve([])
    with pytest.raises(RuntimeError):
        log.reserve([])


def test_history_is_of_durable_events_and_bounded():
    """By service, the latest, oldest first."""
    log = EventLog()
    for number in range(HISTORY_LENGTH + 5):
        log.settle(log.reserve([Draft(type="switched", message=str(number), service="ab"[number % 2])]))
    say(log, "up", "a")
    assert len(log.history(limit=1000)) == HISTORY_LENGTH
    assert messages(log.history("a", 2)) == ["202", "204"]
    assert log.history(limit=0) == []


def test_since_says_when_the_log_does_not_reach_back():
    """A reader must learn that it missed something."""
    log = EventLog(length=3)
    for number in range(5):
        say(log, str(number))
    assert log.since(1) is None
    assert messages(log.since(2)) == ["2", "3", "4"]
    assert log.since(99) == []


async def test_a_follower_gets_what_was_and_what_comes():
    """From the id that it names on, and then as it happens."""
    log = EventLog()
    for text in "abc":
        say(log, text)
    async with contextlib.aclosing(log.subscribe(1)) as events:
        assert messages([await anext(events), await anext(events)]) == ["b", "c"]
        waiting = asyncio.create_task(anext(events))
        await asyncio.sleep(0)
        say(log, "d")
        assert (await waiting)["message"] == "d"


async def test_without_an_id_only_the_future_comes():
    """Counted from the call, not from the first read."""
    log = EventLog()
    say(log, "before")
    async with contextlib.aclosing(log.subscribe()) as events:
        say(log, "after")
        assert (await anext(events))["message"] == "after"


async def test_a_follower_that_is_too_slow_is_let_go():
    """It costs no memory, and resumes with its last id."""
    log = EventLog(length=3)
    async with contextlib.aclosing(log.subscribe()) as events:
        say(log, "0")
        await anext(events)
        for number in range(1, 6):
            say(log, str(number))
        assert await anext(events, None) is None


async def test_the_end_of_the_log_ends_its_followers():
    """Those that wait and those that have something left to read."""
    log = EventLog()
    said: list[str] = []

    async def follow() -> None:
        async for event in log.subscribe():
            said.append(event["message"])  # noqa: PERF401 - it is looked at meanwhile

    task = asyncio.create_task(follow())
    await asyncio.sleep(0)
    say(log, "last")
    log.end()
    await eventually_async(task.done)
    assert said == ["last"]
