"""Which deployments are kept."""

from __future__ import annotations

from bgproxy.control.deployments.keeping import KEPT, KEPT_OF_A_SERVICE, kept
from bgproxy.control.state import State
from bgproxy.model.deployment import DeploymentRecord, DeploymentState


def record(number: int, service: str = "shop", state: DeploymentState = DeploymentState.SUCCEEDED) -> DeploymentRecord:
    return DeploymentRecord(
        id=number,
        service=service,
        target="green",
        version="",
        upstreams=None,
        strategy="all-at-once",
        reason="",
        actor={},
        state=state,
    )


def test_the_latest_of_a_service_are_kept():
    """Those of others, and what is under way, are not pushed out by them."""
    state = kept(kept(State(), record(1, state=DeploymentState.BAKING)), record(2, "api"))
    for number in range(3, 33):
        state = kept(state, record(number))
    assert sorted(state.deployments) == [1, 2, *range(33 - KEPT_OF_A_SERVICE, 33)]


def test_of_all_services_not_more_than_the_file_can_bear():
    """However many services there are: the oldest go first."""
    state = State()
    for number in range(1, KEPT + 51):
        state = kept(state, record(number, f"service-{number}"))
    assert sorted(state.deployments) == list(range(51, KEPT + 51))


def test_one_that_goes_on_takes_its_own_place():
    """The last word about it is the one that is kept."""
    state = kept(State(), record(1, state=DeploymentState.BAKING))
    assert kept(state, record(1)).deployments == {1: record(1)}
