"""Births, deaths and links, where no process is needed to see them; test_supervisor.py has the real ones."""

from __future__ import annotations

import errno
import selectors
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgproxy.config.schema import Config
from bgproxy.process import family as family_module
from bgproxy.process.family import Family, Inheritance
from bgproxy.switchboard.board import Switchboard


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def family(clock) -> Iterator[Family]:
    board = Switchboard(2)
    selector = selectors.DefaultSelector()
    inheritance = Inheritance(Config(), None, "", board, [], [], lambda birth: 0, lambda birth: 0)
    yield Family(inheritance, selector, lambda: None, now=clock)
    selector.close()
    board.close()


def test_a_system_without_room_for_processes_is_tried_again(family, clock, monkeypatch):
    """A fork that fails is a crash like another: back-off, no descriptor leaked, the others are tried too."""

    def no_room(*_: object) -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(family_module, "fork", no_room)
    assert family.next_birth() == 0.0
    before = len(list(Path("/proc/self/fd").iterdir()))
    for wait in (0.0, 0.1, 0.2):
        family.bear_due()
        assert [child.due for child in family.children] == [pytest.approx(clock.now + wait)] * 3
        clock.now += wait
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert family.pids() == []


def test_births_wait_for_their_time(family, clock, monkeypatch):
    """Nobody is born before it is due, and `next_birth` says when that is."""
    born: list[str] = []

    def fork(name: str, main: object) -> int:
        born.append(name)
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(family_module, "fork", fork)
    family.bear_due()
    assert born == ["worker 0", "worker 1", "controller"]
    for child in family.children:
        child.due = None
    assert family.next_birth() is None
    family.workers[1].due = clock.now + 3.0
    assert family.next_birth() == pytest.approx(3.0)
    family.bear_due()
    assert born == ["worker 0", "worker 1", "controller"]
    clock.now += 3.0
    assert family.next_birth() == 0.0
    family.bear_due()
    assert born[3:] == ["worker 1"]
