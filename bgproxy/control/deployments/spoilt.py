"""Whether a pool is still what it was when it was live: a deployment that came to nothing may have been made to it since.

A rollback promises what was there before. After a good deployment and a failed one, the pool that was live before holds the version that
has failed, and its health check may well find nothing wrong with that; so it does after a rollback, when somebody asks for another.
"""

from __future__ import annotations

from typing import Final

from bgproxy.control.state import State
from bgproxy.model.deployment import DeploymentRecord, DeploymentState

_ENDS: Final = {DeploymentState.ABORTED: "was aborted", DeploymentState.ROLLED_BACK: "was rolled back"}


def as_left_by(record: DeploymentRecord) -> str:
    """`as deployment 4 left it, which has failed (check 'cart': status 500)`."""
    why = record.steps[-1].why if record.steps else ""
    return (
        f"as deployment {record.id} left it, which {_ENDS.get(record.state, 'has failed')}{f' ({why})' if why else ''}"
    )


def spoilt_by(state: State, service: str, pool: str) -> DeploymentRecord | None:
    """The deployment that was made to a pool and has not succeeded, unless traffic was moved by hand since; None if there is none."""
    records = [record for record in state.deployments.values() if record.service == service]
    last = max(records, key=lambda record: record.id, default=None)
    if last is None or last.target != pool or last.state is DeploymentState.SUCCEEDED:
        return None
    switched_at = state.services[service].switched_at or 0.0
    return last if last.steps and switched_at <= last.steps[-1].at else None
