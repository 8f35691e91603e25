"""Machines as tables: what is not in the table raises, and changes nothing."""

from __future__ import annotations

from enum import Enum

import pytest

from bgproxy.model.machine import IllegalTransition, Table


class State(Enum):
    SHUT = 1
    OPEN = 2


class Event(Enum):
    PUSH = 1
    PULL = 2


DOOR = Table("door", State.SHUT, {(State.SHUT, Event.PUSH): State.OPEN, (State.OPEN, Event.PULL): State.SHUT})


def test_a_step_is_what_the_table_says():
    """`next` gives the state after; asking changes nothing, so the same question has the same answer."""
    assert DOOR.initial is State.SHUT
    assert DOOR.next(State.SHUT, Event.PUSH) is State.OPEN
    assert DOOR.next(State.SHUT, Event.PUSH) is State.OPEN
    assert DOOR.next(State.OPEN, Event.PULL) is State.SHUT


def test_an_illegal_step_raises_and_changes_nothing():
    """The text names the machine, the event and the state."""
    before = dict(DOOR.transitions)
    with pytest.raises(IllegalTransition, match="door: PULL in state SHUT"):
        DOOR.next(State.SHUT, Event.PULL)
    assert DOOR.transitions == before


def test_allows_says_what_next_would_do():
    """For every pair: allowed exactly where a step is."""
    for state in State:
        for event in Event:
            assert DOOR.allows(state, event) is ((state, event) in DOOR.transitions)


def test_a_table_is_its_own():
    """What the maker does to its mapping afterwards is not seen."""
    rules = {(State.SHUT, Event.PUSH): State.OPEN}
    table = Table("door", State.SHUT, rules)
    rules.clear()
    assert table.next(State.SHUT, Event.PUSH) is State.OPEN
