"""Slots: which number comes next, and when there is none."""

from __future__ import annotations

import pytest

from bgproxy.control.slots import Slots
from bgproxy.errors import Refused


def test_a_freed_slot_is_taken_last() -> None:
    """Fresh slots come before those that had a holder, and those come in the order in which they were freed."""
    slots = Slots(4, "services")
    first, second = slots.take(), slots.take()
    slots.give_back(second)
    slots.give_back(first)
    assert [slots.take() for _ in range(4)] == [2, 3, second, first]


def test_the_last_one_is_followed_by_a_refusal() -> None:
    """Without a slot there is a refusal that names what ran out, and how many there are."""
    slots = Slots(1, "upstreams")
    slots.take()
    with pytest.raises(Refused, match="upstreams: 1 are the limit"):
        slots.take()
    assert slots.free == 0


def test_a_known_slot_can_be_claimed_once() -> None:
    """A service keeps its slot over a restart of the controller; nobody else gets it."""
    slots = Slots(3, "services")
    assert slots.claim(1)
    assert not slots.claim(1)
    assert not slots.claim(7)
    assert [slots.take(), slots.take()] == [0, 2]
