"""The table of stages: which are configured, and how long they may take."""

from __future__ import annotations

import pytest
from support.deployments import make_run

from bgproxy.config.schema import Approve, Bake, Compare, Deployment, Hook, Retire, Strategy, Verify, Warm
from bgproxy.control.deployments.stages import ENTRIES, MARGIN
from bgproxy.model.deployment import STAGES, DeploymentState

EVERYTHING = Deployment(
    provision=Hook(run="true"),
    verify=Verify(),
    compare=Compare(),
    warm=Warm(),
    approve=Approve(mode="manual"),
    bake=Bake(),
    retire=Retire(run="true"),
)


def test_every_state_with_a_stage_has_one():
    """And the way back."""
    expected = {state for state, _ in STAGES if state is not DeploymentState.SUCCEEDED}
    assert set(ENTRIES) == expected | {DeploymentState.ROLLING_BACK}


def test_what_is_not_configured_is_skipped():
    """The switch and the drain always are there."""
    nothing, everything = make_run("http://127.0.0.1:1"), make_run("http://127.0.0.1:1", deployment=EVERYTHING)
    always = {DeploymentState.SWITCHING, DeploymentState.DRAINING, DeploymentState.ROLLING_BACK}
    assert {state for state, entry in ENTRIES.items() if entry.configured(nothing)} == always
    assert all(entry.configured(everything) for entry in ENTRIES.values())


@pytest.mark.parametrize("state", ENTRIES)
def test_every_stage_has_a_limit(state):
    """That leaves room for what the configuration allows its parts."""
    settings = EVERYTHING
    strategy = Strategy(type="linear", step=10.0, every=60.0)
    run = make_run(
        "http://127.0.0.1:1",
        deployment=Deployment(
            **{
                name: getattr(settings, name)
                for name in ("provision", "verify", "compare", "warm", "approve", "bake", "retire")
            },
            strategy=strategy,
        ),
    )
    least = {
        DeploymentState.PROVISIONING: 600.0,
        DeploymentState.VERIFYING: 1800.0,
        DeploymentState.COMPARING: 70.0,
        DeploymentState.WARMING: 120.0,
        DeploymentState.AWAITING_APPROVAL: 86400.0,
        DeploymentState.SWITCHING: 540.0,
        DeploymentState.BAKING: 300.0 + 86400.0,
        DeploymentState.DRAINING: 300.0,
        DeploymentState.RETIRING: 2100.0,
        DeploymentState.ROLLING_BACK: 30.0,
    }
    assert least[state] <= ENTRIES[state].limit(run) <= least[state] + 3 * MARGIN
    assert 0.0 < ENTRIES[state].limit(make_run("http://127.0.0.1:1")) <= 86400.0 + 6 * MARGIN
