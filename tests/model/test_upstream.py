"""The table of an upstream's states."""

from __future__ import annotations

import pytest

from bgproxy.model.upstream import UPSTREAM_TABLE, UpstreamEvent, UpstreamState

S, E = UpstreamState, UpstreamEvent


def test_a_new_upstream_is_being_checked():
    """It is neither up nor down before its first checks."""
    assert UPSTREAM_TABLE.initial is S.CHECKING


@pytest.mark.parametrize(
    ("state", "event", "after"),
    [
        (S.CHECKING, E.ROSE, S.UP),
        (S.CHECKING, E.FELL, S.DOWN),
        (S.UP, E.FELL, S.DOWN),
        (S.DOWN, E.ROSE, S.UP),
        (S.DRAINING, E.READY, S.CHECKING),
        (S.MAINT, E.READY, S.CHECKING),
    ],
)
def test_checks_and_the_way_back(state, event, after):
    """Checks move it up and down; from an operator's hand it comes back to be checked anew."""
    assert UPSTREAM_TABLE.next(state, event) is after


@pytest.mark.parametrize("state", list(S))
def test_an_operator_can_take_it_out_of_any_state(state):
    """Drain and maint are always allowed, also from one another and from themselves."""
    assert UPSTREAM_TABLE.next(state, E.DRAIN) is S.DRAINING
    assert UPSTREAM_TABLE.next(state, E.MAINT) is S.MAINT


@pytest.mark.parametrize("state", [S.DRAINING, S.MAINT])
@pytest.mark.parametrize("event", [E.ROSE, E.FELL])
def test_no_check_brings_back_what_was_taken_out_by_hand(state, event):
    """Only `ready` does."""
    assert not UPSTREAM_TABLE.allows(state, event)


@pytest.mark.parametrize(("state", "event"), [(S.UP, E.ROSE), (S.DOWN, E.FELL), (S.UP, E.READY), (S.CHECKING, E.READY)])
def test_what_is_no_change_is_no_step(state, event):
    """The one who judges checks asks first whether there is a change."""
    assert not UPSTREAM_TABLE.allows(state, event)


def test_the_words_are_the_operators():
    """The values stand in the admin API."""
    assert [state.value for state in S] == ["checking", "up", "down", "draining", "maint"]
