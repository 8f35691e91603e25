"""A deployment: its states, what moves it from one to the next, and the record of it that outlives restarts.

    queued -> provisioning -> verifying -> comparing -> warming -> awaiting approval -> switching -> baking -> draining
           -> retiring -> succeeded

A stage that is not configured is skipped, so from each of them the table leads to every later one; the flip alone cannot
be skipped. Before it a deployment fails or is aborted, and live users never noticed; from it on it is rolled back.
The states are those of CodeDeploy's and Argo Rollouts' blue/green, in one row. A stage in which traffic is held (`hold` in
the configuration) belongs between `awaiting_approval` and `switching`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from bgproxy.model.machine import Table


class DeploymentState(Enum):
    """Where a deployment stands."""

    QUEUED = "queued"
    PROVISIONING = "provisioning"
    VERIFYING = "verifying"
    COMPARING = "comparing"
    WARMING = "warming"
    AWAITING_APPROVAL = "awaiting_approval"
    SWITCHING = "switching"
    BAKING = "baking"
    DRAINING = "draining"
    RETIRING = "retiring"
    SUCCEEDED = "succeeded"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"  # before the flip: the other pool was live all the time; after it: it could not be rolled back
    ABORTED = "aborted"


class DeploymentEvent(Enum):
    """What moves it."""

    PROVISION = "provision"
    VERIFY = "verify"
    COMPARE = "compare"
    WARM = "warm"
    ASK = "ask for approval"
    SWITCH = "switch"
    BAKE = "bake"
    DRAIN = "drain"
    RETIRE = "retire"
    SUCCEED = "succeed"
    FAIL = "fail"
    ABORT = "abort"
    ROLL_BACK = "roll back"
    ROLLED_BACK = "rolled back"


_S, _E = DeploymentState, DeploymentEvent

#: The stages, and the event that leads into each.
STAGES: Final = (
    (_S.PROVISIONING, _E.PROVISION),
    (_S.VERIFYING, _E.VERIFY),
    (_S.COMPARING, _E.COMPARE),
    (_S.WARMING, _E.WARM),
    (_S.AWAITING_APPROVAL, _E.ASK),
    (_S.SWITCHING, _E.SWITCH),
    (_S.BAKING, _E.BAKE),
    (_S.DRAINING, _E.DRAIN),
    (_S.RETIRING, _E.RETIRE),
    (_S.SUCCEEDED, _E.SUCCEED),
)
_ROW: Final = (_S.QUEUED, *(state for state, _ in STAGES))
_FLIP: Final = _ROW.index(_S.SWITCHING)

#: Nothing of what users get has changed in these.
BEFORE_FLIP: Final = frozenset(_ROW[:_FLIP])
#: The switch is under way or done.
AFTER_FLIP: Final = frozenset(_ROW[_FLIP:-1])
#: It is over.
ENDED: Final = frozenset({_S.SUCCEEDED, _S.ROLLED_BACK, _S.FAILED, _S.ABORTED})

DEPLOYMENT_TABLE: Final = Table(
    "deployment",
    _S.QUEUED,
    {
        **{
            (before, event): after
            for at, before in enumerate(_ROW)
            for after, event in STAGES[at:]
            # The flip is never skipped.
            if at >= _FLIP or _ROW.index(after) <= _FLIP
        },
        **{(state, _E.FAIL): _S.FAILED for state in (*_ROW[:-1], _S.ROLLING_BACK)},
        # In the switching, where somebody else has made the pool live meanwhile.
        **{(state, _E.ABORT): _S.ABORTED for state in _ROW[: _FLIP + 1]},
        **{(state, _E.ROLL_BACK): _S.ROLLING_BACK for state in _ROW[_FLIP:-1]},
        # By hand, before the flip was ours; or by ourselves.
        (_S.ROLLING_BACK, _E.ROLLED_BACK): _S.ROLLED_BACK,
    },
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one stage found out: a check, a rule, a comparison."""

    stage: str  # a state's value
    name: str
    ok: bool
    expected: str = ""
    found: str = ""
    seconds: float = 0.0
    details: tuple[str, ...] = ()  # further lines: the end of a command's output, mismatches side by side


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A transition: the state that was entered, when (seconds since 1970), by whom, why."""

    state: str
    at: float
    by: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentRecord:
    """A deployment as it is kept on the disk; a change makes a new one. Values are JSON's."""

    id: int
    service: str
    target: str  # the pool that it is to make live
    version: str
    upstreams: tuple[str, ...] | None  # that the pool is to have; None: those that it has
    strategy: str  # all-at-once | canary | linear
    reason: str
    actor: dict[str, str]  # name, address
    state: DeploymentState = DeploymentState.QUEUED
    steps: tuple[Step, ...] = ()  # the way so far, the present state last
    results: tuple[Result, ...] = ()
    #: What a stage must know after a restart, such as the figures of the live pool before the switch.
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.state not in ENDED

    @property
    def created_at(self) -> float:
        """Seconds since 1970."""
        return self.steps[0].at if self.steps else 0.0
