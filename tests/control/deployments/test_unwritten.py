"""Ends that the disk has not taken: written as soon as it does, and never gone on with before."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from support.control_room import ALICE
from support.deployments import FakeClock, make_run

from bgproxy.control.deployments.telling import draft_of
from bgproxy.control.deployments.unwritten import AGAIN, Unwritten
from bgproxy.control.events import EventLog
from bgproxy.control.ledger import Hints, Ledger
from bgproxy.control.state import State
from bgproxy.errors import StateError
from bgproxy.model.deployment import DeploymentState


class Disk:
    """Full for so many writes."""

    def __init__(self, full: int) -> None:
        self.full = full
        self.states: list[State] = []

    async def write(self, state: State) -> None:
        if self.full:
            self.full -= 1
            raise StateError("state.json cannot be written: No space left on device.")
        self.states.append(state)


def failed(number: int = 7):
    record = make_run("http://127.0.0.1:9002").record
    return replace(record, id=number, state=DeploymentState.FAILED)


def make(disk: Disk):
    clock, events = FakeClock(), EventLog()
    ledger = Ledger(State(), disk, events, lambda: Hints({}, {}))
    return Unwritten(ledger, clock), clock, ledger, events


async def test_it_is_written_once_the_disk_takes_it():
    """With its event; until then it is told all the same."""
    disk = Disk(full=2)
    unwritten, clock, ledger, events = make(disk)
    record = failed()
    unwritten.add(record, draft_of(record, ALICE, "too slow"))
    assert unwritten.records == {7: record}
    while unwritten.records:
        await asyncio.sleep(0)
    assert clock.slept == 3 * AGAIN
    assert ledger.state.deployments == {7: record}
    assert [event["reason"] for event in events.history()] == ["too slow"]
    await unwritten.stop()


async def test_several_are_written_in_one(caplog):
    """Also those that come while one waits already."""
    disk = Disk(full=0)
    unwritten, *_ = make(disk)
    for number in (7, 9):
        unwritten.add(failed(number), draft_of(failed(number), ALICE, ""))
    with caplog.at_level(logging.INFO, "bgproxy.controller"):
        while unwritten.records:
            await asyncio.sleep(0)
    assert [sorted(state.deployments) for state in disk.states] == [[7, 9]]
    for number in (7, 9):
        assert f"the end of deployment {number} is on the disk now" in caplog.text
    await unwritten.stop()


async def test_a_stop_tries_once_more(caplog):
    """And says what the next start will do where that is in vain."""
    disk = Disk(full=1)
    unwritten, *_ = make(disk)
    unwritten.add(failed(), draft_of(failed(), ALICE, ""))
    await unwritten.stop()
    assert "the end of deployment 7 is not on the disk; the next start goes on with it" in caplog.text
    await unwritten.stop()
    assert not unwritten.records
    assert len(disk.states) == 1
