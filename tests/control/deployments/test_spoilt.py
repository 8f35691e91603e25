"""What a pool was when it was live, and what has become of it since."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.deployments import make_run

from bgproxy.config.schema import Pool
from bgproxy.control.deployments.spoilt import as_left_by, spoilt_by
from bgproxy.control.state import ServiceRecord, State, from_file
from bgproxy.model.deployment import DeploymentState as S
from bgproxy.model.deployment import Step


def state(*ends: tuple[int, str, S, float], switched_at: float | None = 100.0) -> State:
    """Deployments of `shop` (number, target, state, moment of the last step), which has switched at that moment."""
    pools = (from_file(Pool()), from_file(Pool()))
    records = {}
    for number, target, ended, at in ends:
        record = make_run("http://127.0.0.1:9002").record
        steps = (Step(state=ended.value, at=at, by="bgproxy", why=""),)
        records[number] = replace(record, id=number, target=target, state=ended, steps=steps)
    return State(services={"shop": ServiceRecord(0, 1, 0, 1, switched_at, pools)}, deployments=records)


@pytest.mark.parametrize("ended", [S.FAILED, S.ABORTED, S.ROLLED_BACK])
def test_what_came_to_nothing_has_spoilt_it(ended):
    """However it ended: another version is there than the one that was live."""
    found = spoilt_by(state((3, "green", S.SUCCEEDED, 100.1), (4, "blue", ended, 200.0)), "shop", "blue")
    assert found is not None
    assert found.id == 4


@pytest.mark.parametrize(
    ("ends", "switched_at"),
    [
        ([], None),
        ([(3, "green", S.SUCCEEDED, 100.1)], 100.0),
        ([(3, "blue", S.FAILED, 90.0)], 100.0),
        ([(3, "blue", S.FAILED, 90.0), (4, "green", S.FAILED, 120.0)], 100.0),
    ],
    ids=["none", "of the other", "moved by hand since", "live by what could not be rolled back"],
)
def test_what_was_live_before_is_there_still(ends, switched_at):
    """Nothing has come to it since."""
    assert spoilt_by(state(*ends, switched_at=switched_at), "shop", "blue") is None


def test_other_services_do_not_matter():
    """Each has its own."""
    known = state((4, "blue", S.FAILED, 200.0))
    known = replace(known, services={**known.services, "api": known.services["shop"]})
    assert spoilt_by(known, "api", "blue") is None


def test_it_is_told_with_the_cause():
    """For who is refused."""
    known = state((4, "blue", S.FAILED, 200.0)).deployments[4]
    assert as_left_by(known) == "as deployment 4 left it, which has failed"
    known = replace(known, state=S.ROLLED_BACK, steps=(replace(known.steps[0], why="too slow"),))
    assert as_left_by(known) == "as deployment 4 left it, which was rolled back (too slow)"
