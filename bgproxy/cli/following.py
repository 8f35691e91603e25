"""Following a deployment: what `deploy` and `abort` show until it has ended. Redrawn on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TextIO

from bgproxy.cli.client import Answer, ApiError, Client
from bgproxy.cli.exits import UnreachableError
from bgproxy.cli.story import (
    Deployment,
    bar,
    between,
    briefly,
    figure_lines,
    is_stage,
    passed,
    repeats,
    result_lines,
    said,
)
from bgproxy.cli.terminal import Paint, Region
from bgproxy.cli.words import duration, printable

POLL: Final = 0.4  # seconds between two looks
PATIENCE: Final = (
    60.0  # seconds that the API may be away: the deployment goes on, and a controller is soon started again
)
EVERY: Final = 10.0  # seconds between two lines of progress that are not redrawn
_AWAY: Final = "the admin API is away; the deployment goes on, trying again"


class Sink(Protocol):
    """Where it is shown."""

    def entered(self, step: Mapping[str, Any]) -> None:
        """A stage has begun."""

    def found(self, result: Mapping[str, Any]) -> None:
        """It has found something out."""

    def left(self, step: Mapping[str, Any], following: Mapping[str, Any]) -> None:
        """It has ended."""

    def progress(self, deployment: Deployment) -> None:
        """It is so far."""

    def say(self, line: str) -> None:
        """Something that stays to be read."""

    def away(self) -> None:
        """The API does not answer."""

    def end(self) -> None:
        """Nothing more will come."""


class Quiet:
    """Shows nothing: for --json."""

    def entered(self, step: Mapping[str, Any]) -> None:
        """Nothing."""

    def found(self, result: Mapping[str, Any]) -> None:
        """Nothing."""

    def left(self, step: Mapping[str, Any], following: Mapping[str, Any]) -> None:
        """Nothing."""

    def progress(self, deployment: Deployment) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        """Nothing."""

    def away(self) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class Lines:
    """Plain lines, for CI and files: one for each stage and each result, and now and then one of progress."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._paint = Paint(on=False)
        self._next = 0.0
        self._last = ""

    def entered(self, step: Mapping[str, Any]) -> None:
        """A line."""
        self.say(said(step["state"]) + (f": {printable(step['why'])}" if step["why"] else ""))
        self._next, self._last = 0.0, ""

    def found(self, result: Mapping[str, Any]) -> None:
        """A line, and more if it failed."""
        for line in result_lines(result, self._paint, marks=("ok", "FAILED"), details=False):
            self.say(f"  {line}")

    def left(self, step: Mapping[str, Any], following: Mapping[str, Any]) -> None:
        """Nothing: what follows has a line."""

    def progress(self, deployment: Deployment) -> None:
        """A line, if there is news, not more often than every `EVERY` seconds."""
        progress = deployment["progress"] or {}
        text = printable(progress.get("text") or "")
        now = self._now()
        if not self._next:
            self._next = now + EVERY  # what is over sooner needs none
        if not text or now < self._next or text == self._last:
            return
        self._next, self._last = now + EVERY, text
        share = progress.get("share")
        self.say(f"  {text}" + ("" if share is None else f" ({share * 100:.0f}%)"))

    def say(self, line: str) -> None:
        """Print it."""
        print(line, flush=True)

    def away(self) -> None:
        """A line each time."""
        if self._last != _AWAY:
            self.say(_AWAY)
            self._last = _AWAY

    def end(self) -> None:
        """Nothing."""


class Screen:
    """A terminal: the stages that are over as lines that stay, the present one redrawn below them."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = out = stream or sys.stdout
        self._paint = Paint.of(out)
        self._region = Region(out)
        self._results: list[str] = []  # of the present stage
        utf8 = (out.encoding or "").lower().replace("-", "") == "utf8"
        self._marks = ("✓", "✗") if utf8 else ("ok", "!!")

    def entered(self, step: Mapping[str, Any]) -> None:
        """It is shown by `progress`."""

    def found(self, result: Mapping[str, Any]) -> None:
        """It is shown below its stage."""
        lines = result_lines(result, self._paint, marks=self._marks, details=False)
        self._results += [f"    {line}" for line in lines]

    def left(self, step: Mapping[str, Any], following: Mapping[str, Any]) -> None:
        """The stage and its results stay."""
        good = passed(step["state"], following["state"])
        mark = self._paint(self._marks[0], "green") if good else self._paint(self._marks[1], "red")
        name = self._paint(said(step["state"]), "bold")
        why = f": {printable(step['why'])}" if step["why"] else ""
        self.say(f"{mark} {name}  {duration(between(step['at'], following['at']))}{why}")
        self._flush()

    def progress(self, deployment: Deployment) -> None:
        """Redraw the present stage."""
        step = deployment["steps"][-1]
        progress = deployment["progress"] or {"text": "", "share": None, "figures": {}}
        lines = [f"  {self._paint(said(step['state']), 'bold')}  {duration(between(step['at']))}", *self._results]
        share, text = progress["share"], printable(progress["text"])
        if share is not None:
            lines.append(f"    {bar(share)}")
        if text:
            lines.append(f"    {text}")
        lines += [f"    {line}" for line in figure_lines(progress["figures"], self._paint)]
        self._region.show(lines)

    def say(self, line: str) -> None:
        """Above what is redrawn."""
        self._region.clear()
        print(line, file=self._stream, flush=True)

    def away(self) -> None:
        """In the place of the stage."""
        self._region.show([f"  {self._paint(_AWAY, 'yellow')}"])

    def end(self) -> None:
        """Leave the results that were not yet below a stage."""
        self._region.clear()
        self._flush()

    def _flush(self) -> None:
        for line in self._results:
            print(line, file=self._stream, flush=True)
        self._results = []


def sink_of(*, json: bool = False) -> Sink:
    """What suits the output."""
    if json:
        return Quiet()
    return Screen() if Region.suits(sys.stdout) else Lines()


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
        self._waited = ""  # the state for whose approval was asked

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
                        f"deployment {number} goes on by itself, but it is out of sight: {error}"
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
        """Say who must type what, once for each time that it waits."""
        state = deployment["state"] if deployment["waits"] else ""
        if state and state != self._waited:
            number = deployment["id"]
            text = printable((deployment["progress"] or {}).get("text") or "")
            if state != "awaiting_approval" and text:
                self._sink.say(f"deployment {number} {text}")
            self._sink.say(
                f"deployment {number} waits for an operator: `bgproxy approve {number}{self._suffix}` lets it go on, "
                f"`bgproxy abort {number}{self._suffix}` ends it"
            )
        self._waited = state


def standing_by(deployment: Deployment) -> float | None:
    """Seconds until the old pool is retired, where that is all that is left to do."""
    if deployment["state"] != "retiring" or not deployment["running"]:
        return None
    left = ((deployment["progress"] or {}).get("figures") or {}).get("left")
    return float(left) if isinstance(left, int | float) else None
