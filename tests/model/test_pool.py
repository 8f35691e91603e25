"""The pools of a service, and the table of their states."""

from __future__ import annotations

import pytest

from bgproxy.model.machine import IllegalTransition
from bgproxy.model.pool import POOL_TABLE, POOLS, PoolEvent, PoolState, index_of


def test_blue_is_0_and_green_is_1():
    """Snapshots, cells and words rely on it."""
    assert [index_of(name) for name in POOLS] == [0, 1]
    assert (index_of("blue"), index_of("green")) == (0, 1)


@pytest.mark.parametrize("name", ["", "red", "Blue", "live"])
def test_there_is_no_third_pool(name):
    """A ValueError, for whoever passes on what a user wrote."""
    with pytest.raises(ValueError):
        index_of(name)


def walk(*events):
    state = POOL_TABLE.initial
    for event in events:
        state = POOL_TABLE.next(state, event)
    return state


def test_the_whole_cycle():
    """Idle, standby, live, draining, and standby again for the next deployment."""
    cycle = (PoolEvent.BECAME_FIT, PoolEvent.SWITCHED_TO, PoolEvent.SWITCHED_AWAY, PoolEvent.DRAINED_FIT)
    states = [walk(*cycle[: count + 1]) for count in range(4)]
    assert states == [PoolState.STANDBY, PoolState.LIVE, PoolState.DRAINING, PoolState.STANDBY]


def test_a_rollback_in_the_middle_of_a_drain():
    """A draining pool can be live again at once."""
    assert POOL_TABLE.next(PoolState.DRAINING, PoolEvent.SWITCHED_TO) is PoolState.LIVE


def test_a_forced_switch_takes_an_idle_pool():
    """What is not healthy can be live where an operator insists."""
    assert POOL_TABLE.next(PoolState.IDLE, PoolEvent.SWITCHED_TO) is PoolState.LIVE


@pytest.mark.parametrize("event", [event for event in PoolEvent if event is not PoolEvent.SWITCHED_AWAY])
def test_a_live_pool_leaves_by_a_switch_only(event):
    """Nothing else ends being live: not its health, not a drain."""
    with pytest.raises(IllegalTransition):
        POOL_TABLE.next(PoolState.LIVE, event)


def test_every_state_is_reached_and_left():
    """No state of the table is an island or a trap."""
    reached = {POOL_TABLE.initial, *POOL_TABLE.transitions.values()}
    left = {state for state, _ in POOL_TABLE.transitions}
    assert reached == left == set(PoolState)
