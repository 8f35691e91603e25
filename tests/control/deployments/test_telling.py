"""What is told of a deployment."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support.deployments import make_run

from bgproxy.control.actor import Actor
from bgproxy.control.deployments.telling import described, draft_of
from bgproxy.model.deployment import DeploymentState, Result, Step


def ended(run):
    step = Step(state="failed", at=1_700_000_060.0, by="bgproxy", why="no cart")
    return replace(run.record, state=DeploymentState.FAILED, steps=(*run.record.steps, step))


def test_one_that_is_under_way():
    """With how far it is; it has no end and no outcome yet."""
    run = make_run("http://127.0.0.1:9002")
    run.show("half of it", 0.5, requests=10)
    run.keep(Result(stage="verifying", name="cart", ok=True, details=("a",)))
    said = json.loads(json.dumps(described(run.record, run)))
    assert said["progress"] == {"share": 0.5, "text": "half of it", "figures": {"requests": 10}}
    assert (said["running"], said["ended_at"], said["outcome"]) == (True, None, "")
    assert said["results"][0]["details"] == ["a"]
    assert said["steps"][0] == {"state": "verifying", "at": "2023-11-14T22:30:00.000Z", "by": "alice", "why": "a test"}


def test_one_that_has_ended():
    """When, and why; nothing moves any more."""
    said = described(ended(make_run("http://127.0.0.1:9002")), None)
    assert (said["running"], said["ended_at"], said["outcome"]) == (False, "2023-11-14T22:14:20.000Z", "no cart")
    assert (said["progress"], said["waits"]) == (None, False)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (DeploymentState.AWAITING_APPROVAL, "shop: deployment 7 of green 2.0 is awaiting approval."),
        (DeploymentState.FAILED, "shop: deployment 7 of green 2.0 has failed: no cart."),
        (DeploymentState.ROLLED_BACK, "shop: deployment 7 of green 2.0 was rolled back: no cart."),
    ],
)
def test_its_events_are_sentences(state, text):
    """For people; with the numbers for programs beside them."""
    record = replace(make_run("http://127.0.0.1:9002").record, state=state)
    draft = draft_of(record, Actor("alice", "local"), "" if "awaiting" in state.value else "no cart")
    assert draft.message == text
    assert draft.data == {"id": 7, "state": state.value, "version": "2.0"}
    assert (draft.type, draft.service, draft.pool) == ("deployment", "shop", "green")
