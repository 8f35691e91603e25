"""The tables of connections, and the flat lists that the hot path steps through."""

from __future__ import annotations

import pytest

from bgproxy.model import connection
from bgproxy.model.connection import (
    CLIENT_STEPS,
    CLIENT_TABLE,
    SERVER_STEPS,
    SERVER_TABLE,
    TUNNEL_STEPS,
    TUNNEL_TABLE,
    ClientEvent,
    ClientState,
    ServerEvent,
    ServerState,
    TunnelEvent,
    TunnelState,
    flatten,
)
from bgproxy.model.machine import IllegalTransition

BOTH = [
    (CLIENT_TABLE, CLIENT_STEPS, ClientState, ClientEvent),
    (SERVER_TABLE, SERVER_STEPS, ServerState, ServerEvent),
]
ALL = [*BOTH, (TUNNEL_TABLE, TUNNEL_STEPS, TunnelState, TunnelEvent)]


@pytest.mark.parametrize(("table", "steps", "states", "events"), ALL)
def test_the_flat_list_is_the_table(table, steps, states, events):
    """For every pair of state and event: the same next state, or -1 where there is none; and room for no other pair."""
    assert len(steps) == len(states) * len(events)
    for state in states:
        for event in events:
            after = steps[event * len(states) + state]
            if table.allows(state, event):
                assert states(after) is table.next(state, event)
            else:
                assert after == -1


@pytest.mark.parametrize(("table", "steps", "states", "events"), ALL)
def test_flatten_is_what_made_the_list(table, steps, states, events):
    """The lists are made from the tables, not written beside them."""
    assert flatten(table) == steps


@pytest.mark.parametrize(("table", "steps", "states", "events"), BOTH)
def test_every_state_can_lose_its_connection_and_nothing_comes_after(table, steps, states, events):
    """LOST leads from everywhere to CLOSED, and CLOSED to nothing else."""
    for state in states:
        assert table.next(state, events.LOST) is states.CLOSED
    assert {event for state, event in table.transitions if state is states.CLOSED} == {events.LOST}


@pytest.mark.parametrize(("table", "steps", "states", "events"), ALL)
def test_every_state_is_reached(table, steps, states, events):
    """No state stands in an enum for nothing."""
    assert {table.initial, *table.transitions.values()} == set(states)


def test_a_client_is_answered_before_it_is_idle_again():
    """A request makes it busy; only its answer ends that."""
    assert CLIENT_TABLE.next(ClientState.IDLE, ClientEvent.REQUEST) is ClientState.BUSY
    assert not CLIENT_TABLE.allows(ClientState.BUSY, ClientEvent.REQUEST)
    assert not CLIENT_TABLE.allows(ClientState.BUSY, ClientEvent.BYTES)
    assert CLIENT_TABLE.next(ClientState.BUSY, ClientEvent.ANSWERED) is ClientState.IDLE


def test_a_server_carries_one_request_at_a_time():
    """It is claimed when idle alone, and idle again only after a whole answer."""
    claimable = [state for state in ServerState if SERVER_TABLE.allows(state, ServerEvent.CLAIMED)]
    assert claimable == [ServerState.IDLE]
    to_idle = {state for (state, _), after in SERVER_TABLE.transitions.items() if after is ServerState.IDLE}
    assert to_idle == {ServerState.CONNECTING, ServerState.ANSWERING}


def test_a_tunnel_never_carries_a_request_again():
    """What was upgraded ends."""
    assert {after for (state, _), after in CLIENT_TABLE.transitions.items() if state is ClientState.TUNNEL} == {
        ClientState.LINGERING,
        ClientState.CLOSED,
    }
    assert {after for (state, _), after in SERVER_TABLE.transitions.items() if state is ServerState.TUNNEL} == {
        ServerState.CLOSED
    }


def test_a_tunnel_ends_from_everywhere_and_once_only():
    """END leads to OVER from every state, and nothing else leads out of it; who has ended or answered is not waited for."""
    for state in TunnelState:
        assert TUNNEL_TABLE.next(state, TunnelEvent.END) is TunnelState.OVER
    assert {event for state, event in TUNNEL_TABLE.transitions if state is TunnelState.OVER} == {TunnelEvent.END}
    after = TUNNEL_TABLE.next(TunnelState.CLIENT_ENDED, TunnelEvent.RESTART)
    assert TUNNEL_TABLE.next(after, TunnelEvent.SERVER_ANSWER) is TunnelState.OVER
    after = TUNNEL_TABLE.next(TunnelState.SERVER_ENDED, TunnelEvent.RESTART)
    assert TUNNEL_TABLE.next(after, TunnelEvent.CLIENT_ANSWER) is TunnelState.OVER


def test_an_illegal_step_is_told_with_its_numbers():
    """The hot path raises this for a -1."""
    error = connection.illegal("client connection", 2, 1)
    assert isinstance(error, IllegalTransition)
    assert str(error) == "client connection: event 1 in state 2"
