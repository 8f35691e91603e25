"""Which coroutine is which stage, when it is configured, and how long it may take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from bgproxy.control.deployments.approval import await_approval
from bgproxy.control.deployments.bake import bake
from bgproxy.control.deployments.compare import compare
from bgproxy.control.deployments.drain import drain
from bgproxy.control.deployments.flip import duration, flip
from bgproxy.control.deployments.provision import provision
from bgproxy.control.deployments.retire import retire
from bgproxy.control.deployments.rollback import roll_back
from bgproxy.control.deployments.stage import Run, Stage
from bgproxy.control.deployments.verify import verify
from bgproxy.control.deployments.warm import warm
from bgproxy.control.draining import GRACE, deadlines, sessions_stay
from bgproxy.model.deployment import DeploymentState as State

#: Seconds that a stage gets on top of what its parts may take.
MARGIN: Final = 60.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A stage; `limit` is in seconds."""

    stage: Stage
    configured: Callable[[Run], bool]
    limit: Callable[[Run], float]


def _always(_: Run) -> bool:
    return True


def _compare_limit(run: Run) -> float:
    settings = run.settings.compare
    return MARGIN if settings is None else settings.for_ + settings.timeout + MARGIN


def _bake_limit(run: Run) -> float:
    settings = run.settings.bake
    return MARGIN if settings is None else settings.for_ + settings.wait + MARGIN


def _provision_limit(run: Run) -> float:
    """The pool may have to be drained first."""
    settings = run.settings.provision
    return MARGIN + (0.0 if settings is None else _drain_limit(run) + settings.timeout)


def _drain_limit(run: Run) -> float:
    settings = run.service.settings
    return sessions_stay(settings.sessions) + max(deadlines(settings.drain)) + GRACE + MARGIN


ENTRIES: Final[Mapping[State, Entry]] = {
    State.PROVISIONING: Entry(
        provision,
        lambda run: run.settings.provision is not None or run.record.upstreams is not None,
        _provision_limit,
    ),
    State.VERIFYING: Entry(
        verify,
        lambda run: run.settings.verify is not None,
        lambda run: run.settings.verify.timeout if run.settings.verify is not None else MARGIN,
    ),
    State.COMPARING: Entry(compare, lambda run: run.settings.compare is not None, _compare_limit),
    State.WARMING: Entry(
        warm,
        lambda run: run.settings.warm is not None,
        lambda run: run.settings.warm.timeout if run.settings.warm is not None else MARGIN,
    ),
    State.AWAITING_APPROVAL: Entry(
        await_approval,
        lambda run: run.settings.approve.mode == "manual",
        lambda run: run.settings.approve.timeout + MARGIN,
    ),
    State.SWITCHING: Entry(flip, _always, lambda run: duration(run.settings.strategy) + 2 * MARGIN),
    State.BAKING: Entry(bake, lambda run: run.settings.bake is not None, _bake_limit),
    State.DRAINING: Entry(drain, _always, _drain_limit),
    State.RETIRING: Entry(
        retire,
        lambda run: run.settings.retire is not None,
        lambda run: MARGIN + (run.settings.retire.after + run.settings.retire.timeout if run.settings.retire else 0.0),
    ),
    State.ROLLING_BACK: Entry(roll_back, _always, lambda _: MARGIN),
}
