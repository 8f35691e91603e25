"""The table of a deployment's states, and its record."""

from __future__ import annotations

import dataclasses

import pytest

from bgproxy.model.deployment import (
    AFTER_FLIP,
    BEFORE_FLIP,
    DEPLOYMENT_TABLE,
    ENDED,
    STAGES,
    DeploymentEvent,
    DeploymentRecord,
    DeploymentState,
    Step,
)
from bgproxy.model.machine import IllegalTransition

S, E = DeploymentState, DeploymentEvent
NEXT = DEPLOYMENT_TABLE.transitions


def reachable(start, *, without=()):
    """All states that events lead to from `start`, by ways that do not touch those of `without`."""
    found, todo = {start}, [start]
    while todo:
        state = todo.pop()
        after = {to for (before, _), to in NEXT.items() if before is state and to not in without}
        todo += after - found
        found |= after
    return found


def test_every_state_is_reached():
    """No state of the table is an island."""
    assert reachable(S.QUEUED) == set(S)
    assert DEPLOYMENT_TABLE.initial is S.QUEUED


def test_what_has_ended_stays_so():
    """Ended ones have no way out, and all others have one to each end that they may come to."""
    assert {state for state, _ in NEXT} == set(S) - ENDED
    assert all(reachable(state) & ENDED for state in S)


def test_the_flip_is_never_skipped():
    """Nothing succeeds, bakes, drains, retires or is rolled back but by way of the switch."""
    before = reachable(S.QUEUED, without={S.SWITCHING})
    assert before == BEFORE_FLIP | {S.FAILED, S.ABORTED}


def test_any_other_stage_may_be_skipped():
    """From each stage an event leads to every later one, up to the switch, and from there on again."""
    row = [S.QUEUED, *(state for state, _ in STAGES)]
    flip = row.index(S.SWITCHING)
    for at, before in enumerate(row[:-1]):
        for to in range(at + 1, len(row)):
            _, event = STAGES[to - 1]
            assert DEPLOYMENT_TABLE.allows(before, event) == (at >= flip or to <= flip), (before, event)


def test_there_is_no_way_back_but_the_rollback():
    """A stage leads to no earlier one, and not to itself."""
    row = [S.QUEUED, *(state for state, _ in STAGES)]
    for (before, _), after in NEXT.items():
        if before in row and after in row:
            assert row.index(after) > row.index(before)


def test_before_the_flip_nothing_is_rolled_back():
    """There is nothing to go back from: it fails or is aborted."""
    for state in BEFORE_FLIP:
        assert DEPLOYMENT_TABLE.next(state, E.FAIL) is S.FAILED
        assert DEPLOYMENT_TABLE.next(state, E.ABORT) is S.ABORTED
        with pytest.raises(IllegalTransition):
            DEPLOYMENT_TABLE.next(state, E.ROLL_BACK)


def test_from_the_flip_on_it_is_rolled_back():
    """Aborted is what never made its pool live: before the flip, or as somebody else did so; a rollback that cannot be done has failed."""
    for state in AFTER_FLIP:
        assert DEPLOYMENT_TABLE.next(state, E.ROLL_BACK) is S.ROLLING_BACK
        assert DEPLOYMENT_TABLE.allows(state, E.ABORT) is (state is S.SWITCHING)
    assert DEPLOYMENT_TABLE.next(S.ROLLING_BACK, E.ROLLED_BACK) is S.ROLLED_BACK
    assert DEPLOYMENT_TABLE.next(S.ROLLING_BACK, E.FAIL) is S.FAILED
    assert reachable(S.ROLLING_BACK) == {S.ROLLING_BACK, S.ROLLED_BACK, S.FAILED}


def test_each_state_is_of_one_kind():
    """Before the flip, from it on, rolling back, or ended."""
    kinds = [BEFORE_FLIP, AFTER_FLIP, {S.ROLLING_BACK}, ENDED]
    assert [sum(state in kind for kind in kinds) for state in S] == [1] * len(S)


@pytest.mark.parametrize("state", S)
def test_a_record_knows_whether_it_runs(state):
    """What has ended does not run; it began with its first step."""
    record = DeploymentRecord(
        id=1,
        service="a",
        target="green",
        version="",
        upstreams=None,
        strategy="canary",
        reason="",
        actor={},
        state=state,
    )
    assert record.running is (state not in ENDED)
    assert record.created_at == 0.0
    steps = (Step(state="queued", at=5.0, by="a", why=""), Step(state="verifying", at=6.0, by="a", why=""))
    assert dataclasses.replace(record, steps=steps).created_at == 5.0
