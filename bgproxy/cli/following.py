"""Following a deployment: what `deploy`, `follow` and `abort` do until it has ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from bgproxy.cli.client import Answer, ApiError, Client
from bgproxy.cli.exits import UnreachableError
from bgproxy.cli.sinks import Sink
from bgproxy.cli.story import Deployment, briefly, is_stage, repeats
from bgproxy.cli.words import printable

POLL: Final = 0.4  # seconds between two looks
PATIENCE: Final = (
    60.0  # seconds that the API may be away: the deployment goes on, and a controller is soon started again
)


class Follower:
    """Watches one deployment; `suffix` is what a command that is proposed to the user ends with."""

    def __init__(
        self,
        client: Client,
        sink: Sink,
        *,
        suffix: str = "",
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._sink = sink
        self._suffix = suffix
        self._now = now
        self._sleep = sleep
        self._step = 0  # the step that is shown
        self._results: list[Mapping[str, Any]] = []  # those that were shown
        self._asked = -1  # the step in which an operator was asked last

    def skip(self, deployment: Deployment) -> None:
        """Begin after what is there already."""
        self._step = len(deployment["steps"]) - 1
        self._results = list(deployment["results"])

    def follow(self, number: int, *, retired: bool = True) -> Answer:
        """Show how it goes until it has ended, or, unless `retired`, until only the retirement of the old pool is left.

        Raises:
            UnreachableError: The API was away for longer than `PATIENCE`.
            ApiError: It does not tell.
        """
        try:
            while True:
                answer = self._look(number)
                deployment = answer.data
                self._news(deployment)
                if not deployment["running"] or (not retired and standing_by(deployment) is not None):
                    return answer
                self._ask(deployment)
                self._sink.progress(deployment)
                self._sleep(POLL)
        finally:
            self._sink.end()

    def _look(self, number: int) -> Answer:
        """The deployment, though the API may be away for a while."""
        deadline = self._now() + PATIENCE
        while True:
            try:
                return self._client.get(f"/v1/deployments/{number}")
            except (UnreachableError, ApiError) as error:
                if isinstance(error, ApiError) and error.http_status != 503:
                    raise
                if self._now() >= deadline:
                    raise UnreachableError(
                        f"deployment {number} goes on by itself, but it is out of sight: {error}\n"
                        f"`bgproxy follow {number}{self._suffix}` shows it again"
                    ) from None
                self._sink.away()
                self._sleep(POLL)

    def _news(self, deployment: Deployment) -> None:
        """Show what was not there the last time, in the order in which it came."""
        steps, results = deployment["steps"], deployment["results"]
        same = 0
        # Results go to the disk with the next transition: after a crash, those of a stage that began anew come again.
        while same < min(len(results), len(self._results)) and results[same] == self._results[same]:
            same += 1
        fresh = list(results[same:])
        if same < len(self._results) and deployment["running"] and self._step == len(steps) - 1:
            self._sink.again(steps[self._step])
        self._results = list(results)
        while True:
            step = briefly(steps[self._step], results)
            following = briefly(steps[self._step + 1], results) if self._step + 1 < len(steps) else None
            while fresh and (following is None or fresh[0]["stage"] == step["state"]):
                result = fresh.pop(0)
                if not repeats(result, results):
                    self._sink.found(result)
            if following is None:
                return
            if is_stage(step["state"]):
                self._sink.left(step, following)
            self._step += 1
            if is_stage(following["state"]):
                self._sink.entered(following)

    def _ask(self, deployment: Deployment) -> None:
        """Say who must type what, once for each stage that waits, also if that begins anew after a restart."""
        if deployment["waits"] and self._asked != self._step:
            self._asked = self._step
            number = deployment["id"]
            text = printable((deployment["progress"] or {}).get("text") or "")
            if deployment["state"] != "awaiting_approval" and text:
                self._sink.say(f"deployment {number} {text}")
            self._sink.say(
                f"deployment {number} waits for an operator: `bgproxy approve {number}{self._suffix}` lets it go on, "
                f"`bgproxy abort {number}{self._suffix}` ends it"
            )


def standing_by(deployment: Deployment) -> float | None:
    """Seconds until the old pool is retired, where that is all that is left to do."""
    if deployment["state"] != "retiring" or not deployment["running"]:
        return None
    left = ((deployment["progress"] or {}).get("figures") or {}).get("left")
    return float(left) if isinstance(left, int | float) else None
