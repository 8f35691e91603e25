"""What is told of a deployment: to the API, in its events, in sentences."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from bgproxy.control.actor import Actor
from bgproxy.control.clock import rfc3339
from bgproxy.control.deployments.stage import Run
from bgproxy.control.events import Draft
from bgproxy.model.deployment import DeploymentRecord
from bgproxy.model.deployment import DeploymentState as State


def described(record: DeploymentRecord, run: Run | None) -> dict[str, Any]:
    """A deployment as the API answers it; `run` is None once it has ended."""
    progress = None
    if run is not None:
        progress = {"share": run.progress.share, "text": run.progress.text, "figures": dict(run.progress.figures)}
    ended = record.steps[-1] if not record.running else None
    return {
        "id": record.id,
        "service": record.service,
        "state": record.state.value,
        "running": record.running,
        "waits": run is not None and run.waits,
        "target": record.target,
        "version": record.version,
        "upstreams": None if record.upstreams is None else list(record.upstreams),
        "strategy": record.strategy,
        "reason": record.reason,
        "actor": dict(record.actor),
        "created_at": rfc3339(record.created_at),
        "ended_at": None if ended is None else rfc3339(ended.at),
        "outcome": "" if ended is None else ended.why,
        "steps": [{**asdict(step), "at": rfc3339(step.at)} for step in record.steps],
        "results": [{**asdict(result), "details": list(result.details)} for result in record.results],
        "progress": progress,
    }


def draft_of(record: DeploymentRecord, actor: Actor, why: str) -> Draft:
    """The durable event of a transition."""
    version = f" {record.version}" if record.version else ""
    return Draft(
        type="deployment",
        message=f"{record.service}: deployment {record.id} of {record.target}{version} {went(record.state)}{f': {why}' if why else ''}.",
        service=record.service,
        pool=record.target,
        actor=actor,
        reason=why,
        data={"id": record.id, "state": record.state.value, "version": record.version},
    )


def said(state: State) -> str:
    """A state in words: `awaiting approval`."""
    return state.value.replace("_", " ")


def went(state: State) -> str:
    """`is verifying`, `has failed`, `was rolled back`."""
    ends = {
        State.SUCCEEDED: "has succeeded",
        State.FAILED: "has failed",
        State.ABORTED: "was aborted",
        State.ROLLED_BACK: "was rolled back",
        State.ROLLING_BACK: "is being rolled back",
    }
    return ends.get(state, f"is {said(state)}")


def because(reason: str) -> str:
    """A reason behind a sentence, if there is one."""
    return f" ({reason})" if reason else ""


def success(run: Run) -> str:
    """What a deployment that has succeeded has come to."""
    return f"{run.record.target} is live"
