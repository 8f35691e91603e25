"""Where a deployment is shown that is followed: redrawn on a terminal, plain lines elsewhere, nothing with --json."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TextIO

from bgproxy.cli.story import Deployment, bar, between, figure_lines, passed, result_lines, said, took
from bgproxy.cli.terminal import Paint, Region, fold
from bgproxy.cli.words import duration, printable

#: Seconds between two lines of progress that are not redrawn: at first, how much more each time, and at the most, so that half an hour
#: of standing by is no page of them, and no CI takes the job for dead.
EVERY: Final = 10.0
_LONGER: Final = 1.5
SELDOM: Final = 60.0
_AWAY: Final = "the admin API is away; the deployment goes on, trying again"
_AGAIN: Final = "begins anew, since bgproxy was restarted"


class Sink(Protocol):
    """Where it is shown."""

    def entered(self, step: Mapping[str, Any]) -> None:
        """A stage has begun."""

    def found(self, result: Mapping[str, Any]) -> None:
        """It has found something out."""

    def left(self, step: Mapping[str, Any], following: Mapping[str, Any]) -> None:
        """It has ended."""

    def again(self, step: Mapping[str, Any]) -> None:
        """It has begun anew, and so will its results."""

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

    def again(self, step: Mapping[str, Any]) -> None:
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
        self._every = EVERY
        self._last = ""

    def entered(self, step: Mapping[str, Any]) -> None:
        """A line."""
        self.say(said(step["state"]) + (f": {printable(step['why'])}" if step["why"] else ""))
        self._next, self._every, self._last = 0.0, EVERY, ""

    def found(self, result: Mapping[str, Any]) -> None:
        """A line, and more if it failed."""
        for line in result_lines(result, self._paint, marks=("ok", "FAILED"), details=False):
            self.say(f"  {line}")

    def left(self, step: Mapping[str, Any], following: Mapping[str, Any]) -> None:
        """Nothing: what follows has a line."""

    def again(self, step: Mapping[str, Any]) -> None:
        """A line."""
        self.say(f"{said(step['state'])} {_AGAIN}")

    def progress(self, deployment: Deployment) -> None:
        """A line, if there is news, not more often than every `EVERY` seconds, and less often as the stage goes on."""
        progress = deployment["progress"] or {}
        text = printable(progress.get("text") or "")
        now = self._now()
        if not self._next:
            self._next = now + EVERY  # what is over sooner needs none
        asked = deployment["waits"]  # whoever is waited for was told so
        if not text or asked or now < self._next or text == self._last:
            return
        self._every = min(self._every * _LONGER, SELDOM)
        self._next, self._last = now + self._every, text
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
        self._stage = ""  # the present one
        self._well = True  # as far as it has come
        self._results: list[str] = []  # of the present stage
        utf8 = (out.encoding or "").lower().replace("-", "") == "utf8"
        self._marks = ("✓", "✗") if utf8 else ("ok", "!!")

    def entered(self, step: Mapping[str, Any]) -> None:
        """It is shown by `progress`."""
        self._stage, self._well = said(step["state"]), True

    def found(self, result: Mapping[str, Any]) -> None:
        """It is shown below its stage."""
        self._well = self._well and bool(result["ok"])
        lines = result_lines(result, self._paint, marks=self._marks, details=False)
        self._results += [f"    {line}" for line in lines]

    def left(self, step: Mapping[str, Any], following: Mapping[str, Any]) -> None:
        """The stage and its results stay."""
        good = passed(step["state"], following["state"]) and self._well
        mark = self._paint(self._marks[0], "green") if good else self._paint(self._marks[1], "red")
        name = self._paint(said(step["state"]), "bold")
        why = f": {printable(step['why'])}" if step["why"] else ""
        self.say(f"{mark} {name}  {took(between(step['at'], following['at']))}{why}")
        self._flush()
        self._stage, self._well = "", True

    def again(self, step: Mapping[str, Any]) -> None:
        """Its results so far do not count."""
        self._results, self._well = [], True
        self.say(f"  {self._paint(said(step['state']), 'bold')} {_AGAIN}")

    def progress(self, deployment: Deployment) -> None:
        """Redraw the present stage."""
        step = deployment["steps"][-1]
        progress = deployment["progress"] or {"text": "", "share": None, "figures": {}}
        lines = [f"  {self._paint(said(step['state']), 'bold')}  {duration(between(step['at']))}", *self._results]
        share, text = progress["share"], printable(progress["text"])
        if share is not None:
            left = progress["figures"].get("left")
            lines.append(f"    {bar(share)}" + (f", {duration(left)} left" if isinstance(left, int | float) else ""))
        if text:
            lines.append(f"    {text}")
        lines += [f"    {line}" for line in figure_lines(progress["figures"], self._paint)]
        self._region.show(lines)

    def say(self, line: str) -> None:
        """Above what is redrawn."""
        self._region.clear()
        self._print(line)

    def away(self) -> None:
        """In the place of the stage."""
        self._region.show([f"  {self._paint(_AWAY, 'yellow')}"])

    def end(self) -> None:
        """Leave the results that were not yet below a stage, below the stage that goes on."""
        self._region.clear()
        if self._stage:
            self._print(f"  {self._paint(self._stage, 'bold')}")
            self._stage = ""
        self._flush()

    def _flush(self) -> None:
        for line in self._results:
            self._print(line)
        self._results = []

    def _print(self, line: str) -> None:
        for row in fold(line, shutil.get_terminal_size().columns):
            print(row, file=self._stream, flush=True)


def sink_of(*, json: bool = False) -> Sink:
    """What suits the output."""
    if json:
        return Quiet()
    return Screen() if Region.suits(sys.stdout) else Lines()
