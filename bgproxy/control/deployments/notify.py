"""Notifications: who wants to know of a deployment is told, behind its back. That somebody cannot be told is in the log, no more."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from bgproxy.config.schema import Notify
from bgproxy.control.deployments.hooks import call
from bgproxy.control.deployments.stage import Run
from bgproxy.model.deployment import DeploymentState

log = logging.getLogger("bgproxy.controller")

#: Notifications that may wait or be under way; what comes on top is left out.
MOST: Final = 20

#: Events by the state that was entered; "switched" is the first one after the switching.
_EVENTS: Final = {
    DeploymentState.QUEUED: "started",
    DeploymentState.AWAITING_APPROVAL: "awaiting_approval",
    DeploymentState.SUCCEEDED: "succeeded",
    DeploymentState.ROLLED_BACK: "rolled_back",
    DeploymentState.FAILED: "failed",
    DeploymentState.ABORTED: "aborted",
}
_SWITCHED: Final = frozenset({DeploymentState.BAKING, DeploymentState.DRAINING})


class Notifier:
    """Tells of transitions; several at once, each with a deadline of its own."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def heard(self, run: Run, before: DeploymentState) -> None:
        """A deployment has gone from `before` to where it is now."""
        state = run.record.state
        event = _EVENTS.get(state, "")
        if before is DeploymentState.SWITCHING and state in _SWITCHED:
            event = "switched"
        for number, settings in enumerate(run.settings.notify):
            if event in settings.on:
                self._tell(run, settings, number, {**run.described(), "event": event, "text": _sentence(run, event)})

    def _tell(self, run: Run, settings: Notify, number: int, payload: dict[str, Any]) -> None:
        if len(self._tasks) >= MOST:
            log.warning("deployment %d: nobody is told of %r: %d wait already", run.record.id, payload["event"], MOST)
            return
        name = f"notify {number} of deployment {run.record.id}"
        task = asyncio.get_running_loop().create_task(self._call(run, settings, number, payload), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, run: Run, settings: Notify, number: int, payload: dict[str, Any]) -> None:
        result = await call(
            run,
            run_command=settings.run,
            webhook=settings.webhook,
            timeout=settings.timeout,
            stage=payload["state"],
            name=f"notify[{number}]",
            payload=payload,
        )
        if not result.ok:
            log.warning(
                "deployment %d: %s was not told of %r: %s", run.record.id, result.name, payload["event"], result.found
            )

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _sentence(run: Run, event: str) -> str:
    """As chats show it (Slack, Mattermost and others take `text`)."""
    record = run.record
    version = f" {record.version}" if record.version else ""
    why = record.steps[-1].why if record.steps else ""
    return f"{record.service}: deployment {record.id} of {record.target}{version}: {event.replace('_', ' ')}{f' ({why})' if why else ''}"
