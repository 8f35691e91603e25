"""Groups of processes, real ones."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest
from support.waiting import eventually_async

from bgproxy.control.deployments import groups

#: Says that it is there, and goes on; what it has started does so, too.
STUBBORN = "trap '' TERM; sh -c 'while :; do sleep 0.05; done' & echo ready; while :; do sleep 0.05; done"


@pytest.fixture
def leader() -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Starts a shell that leads a group, and is there once this returns."""
    started = []

    def start(command: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["/bin/sh", "-c", command], stdout=subprocess.PIPE, start_new_session=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in started:
        groups.send(process.pid, signal.SIGKILL)
        process.communicate()


async def test_a_group_that_heeds_sigterm_gets_nothing_worse(leader):
    """It has its time to put things in order."""
    process = leader("trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done")
    assert groups.lives(process.pid)
    assert await groups.end(process.pid)
    assert not groups.lives(process.pid)
    assert process.wait() == 3


async def test_one_that_does_not_is_killed(leader, monkeypatch):
    """All of it."""
    monkeypatch.setattr(groups, "GRACE", 0.3)
    process = leader(STUBBORN)
    assert await groups.end(process.pid)
    assert process.wait() == -signal.SIGKILL


async def test_whoever_is_cancelled_has_it_killed_at_once(leader):
    """The time for good manners is over then."""
    process = leader(STUBBORN)
    ending = asyncio.ensure_future(groups.end(process.pid))
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    await eventually_async(lambda: not groups.lives(process.pid))
    assert process.wait() == -signal.SIGKILL


async def test_a_group_that_is_not_there(leader):
    """It lives no more, gets no signal, and has been ended."""
    process = leader("echo ready")
    process.wait()
    assert not groups.lives(process.pid)
    assert not groups.send(process.pid, 0)
    assert await groups.end(process.pid)
