"""Following a drain: what `switch` and `rollback` do once the traffic is across, until the old pool is empty."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bgproxy.cli.client import ApiError, Client, service_path
from bgproxy.cli.exits import DONE, FAILED, UnreachableError
from bgproxy.cli.sse import EventStream
from bgproxy.cli.terminal import Progress
from bgproxy.cli.words import duration, in_classes

POLL: Final = 0.2  # seconds between two looks
PATIENCE: Final = 15.0  # seconds that the API may be away meanwhile: a new controller takes a moment
REPORT: Final = 2.0  # seconds to wait for the event that says what was drained


@dataclass(frozen=True, slots=True)
class Old:
    """A pool that was live until a switch."""

    service: str
    pool: str


class Follower:
    """Watches old pools until each is empty, or live again."""

    def __init__(
        self,
        client: Client,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._now = now
        self._sleep = sleep
        self._progress = Progress(sys.stdout)

    def follow(self, olds: list[Old]) -> int:
        """Say how each drain goes and ends; 1 where a pool became live again, or the API refuses to tell."""
        waiting = list(olds)
        result = DONE
        try:
            while waiting:
                lines = []
                for old in list(waiting):
                    service = self._look(old)
                    pool = service["pools"][old.pool]
                    if service["live"] == old.pool:
                        self._say(f"{old.service}: {old.pool} is live again (generation {service['generation']})")
                        result = FAILED
                    elif pool["drain"] is None and not any(pool["in_flight"].values()):
                        self._say(f"{old.service}: {old.pool} is drained{self._report(old)}")
                    else:
                        lines.append(f"{old.service}: {old.pool} drains, {waits_for(pool)}")
                        continue
                    waiting.remove(old)
                if waiting:
                    self._progress.show("; ".join(lines), self._now())
                    self._sleep(POLL)
        finally:
            self._progress.clear()
        return result

    def _say(self, line: str) -> None:
        self._progress.clear()
        print(line, flush=True)

    def _look(self, old: Old) -> dict[str, Any]:
        """The status of the service, though the API may be away for a moment."""
        deadline = self._now() + PATIENCE
        while True:
            try:
                service: dict[str, Any] = self._client.get(service_path(old.service)).data
                return service
            except UnreachableError as error:
                if self._now() >= deadline:
                    self._progress.clear()
                    raise UnreachableError(f"the switch was made, but its drain is out of sight: {error}") from None
                self._sleep(POLL)

    def _report(self, old: Old) -> str:
        """What ended by itself and what was cut, from the event about it; empty where it is not to be had."""
        try:
            event = self._drained_event(old)
        except (ApiError, UnreachableError):
            return ""
        return drained_words(event["data"]) if event is not None else ""

    def _drained_event(self, old: Old) -> dict[str, Any] | None:
        history = self._client.get("/v1/history", service=old.service, limit=20).data["events"]
        since = [event["id"] for event in history if event["type"] in {"switched", "rolled_back"}]
        if not since:
            return None
        found = None
        with EventStream(self._client, max(since), old.service, silence=REPORT) as stream:
            deadline = self._now() + REPORT
            for event in stream:
                if event.get("type") == "drained" and event.get("pool") == old.pool:
                    found = event
                    break
                if self._now() >= deadline:
                    break
        return found


def waits_for(pool: Mapping[str, Any]) -> str:
    """What a draining pool still waits for, and until when: `2 requests, 1 websocket (the last cut in 28 s)`."""
    drain = pool["drain"] or {}
    counts = drain.get("waiting_for") or pool["in_flight"]
    parts = []
    if any(counts.values()):
        deadlines = drain.get("deadline_in") or {}
        left = [deadlines[name] for name, count in counts.items() if count and deadlines.get(name) is not None]
        parts.append(f"waits for {in_classes(counts)}" + (f" (cut in {duration(max(left))})" if left else ""))
    sessions = drain.get("sessions_until_in")
    if sessions is not None:
        parts.append(f"sessions stay for {duration(sessions)} at the most")
    return ", ".join(parts) or "nearly empty"


def drained_words(data: Mapping[str, Any]) -> str:
    """The end of a drain: ` after 1.2 s: 3 requests finished, cut at the deadline: 1 websocket`."""
    ended, cut = in_classes(data), in_classes(data.get("cut") or {})
    seconds = data.get("seconds")
    after = "" if seconds is None else f" after {duration(seconds)}"
    parts = []
    if ended:
        parts.append(f"{ended} finished")
    if cut:
        parts.append(f"cut at the deadline: {cut}")
    if not parts:
        return ", nothing was in flight"
    return f"{after}: {', '.join(parts)}" + ("" if cut else ", nothing was cut")
