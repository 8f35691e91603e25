"""What happened: one log of events for followers, and the history of changes that outlives restarts.

An event is a dict that goes to readers as it stands: id, at, type, service, pool, upstream, actor, reason, message, data.
Ids rise, also over restarts. Followers read from one bounded log, so that a slow one costs no memory: who falls out of
the log's far end is let go, and resumes with the id that it saw last.

A durable event is written to the disk before its change takes effect, and so needs its id before it happens. While
such an event is *reserved*, others that come are kept back, so that the log stays in the order of its ids.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from bgproxy.control.actor import ITSELF, Actor
from bgproxy.control.clock import rfc3339

#: Events that followers can resume from, and changes that the state file keeps.
LOG_LENGTH: Final = 1000
HISTORY_LENGTH: Final = 200

#: Ids that a life of the controller may use before it must write down that it goes further.
ID_BLOCK: Final = 1_000_000

Event = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An event before it has its id and its moment."""

    type: str
    message: str  # one sentence for people
    service: str | None = None
    pool: str | None = None
    upstream: str | None = None
    actor: Actor = ITSELF
    reason: str = ""
    data: dict[str, Any] = field(default_factory=dict)


class EventLog:
    """The log. `first_id` is the id that the first event gets; `history` are the durable events of former lives."""

    def __init__(self, *, length: int = LOG_LENGTH) -> None:
        self._log: deque[Event] = deque(maxlen=length)
        self._begun = 0  # how many events were ever added to the log
        self._history: tuple[Event, ...] = ()
        self._next_id = 1
        self._reserved = False
        self._kept_back: list[Event] = []
        self._more = asyncio.Event()
        self._ended = False

    # --- what has happened ------------------------------------------------------------------------------------------

    def history(self, service: str | None = None, limit: int = 50) -> list[Event]:
        """The latest durable events, oldest first; of one service, or all."""
        found = [event for event in self._history if service is None or event["service"] == service]
        return found[-limit:] if limit > 0 else []

    def since(self, last_id: int) -> list[Event] | None:
        """The events after `last_id`, oldest first; None when the log does not reach back so far."""
        if self._log and self._begun > len(self._log) and self._log[0]["id"] > last_id + 1:
            return None
        return [event for event in self._log if event["id"] > last_id]

    def subscribe(self, last_id: int | None = None) -> AsyncGenerator[Event, None]:
        """What happened after `last_id`, as far back as the log goes, or only what comes from this call on.

        Ends when the reader has fallen out of the log, and when the log ends.
        """
        position = self._begun
        if last_id is not None:
            position -= sum(event["id"] > last_id for event in self._log)
        return self._follow(position)

    async def _follow(self, position: int) -> AsyncGenerator[Event, None]:
        while True:
            while position < self._begun:
                oldest = self._begun - len(self._log)
                if position < oldest:
                    return
                event = self._log[position - oldest]
                position += 1
                yield event
            if self._ended:
                return
            await self._more.wait()

    # --- what happens -----------------------------------------------------------------------------------------------

    @property
    def last_id(self) -> int:
        """The id that was given last; 0 before the first."""
        return self._next_id - 1

    def restore(self, history: Iterable[Event], last_id: int) -> None:
        """Begin after `last_id`, with the durable events of former lives; for the start."""
        self._history = tuple(history)[-HISTORY_LENGTH:]
        self._next_id = last_id + 1
        for event in self._history:
            self._append(event)

    def emit(self, draft: Draft) -> Event:
        """It happened, and nobody needs to know of it after a restart."""
        event = self._number(draft)
        if self._reserved:
            self._kept_back.append(event)
        else:
            self._append(event)
        return event

    def reserve(self, drafts: Iterable[Draft]) -> tuple[Event, ...]:
        """Durable events that are about to happen. `settle` must follow, whatever comes of them."""
        if self._reserved:
            raise RuntimeError("events are reserved already")
        self._reserved = True
        return tuple(self._number(draft) for draft in drafts)

    def settle(self, events: tuple[Event, ...]) -> None:
        """The reserved `events` happened; an empty tuple: they did not."""
        self._reserved = False
        self._history = self.history_with(events)
        kept_back, self._kept_back = self._kept_back, []
        for event in (*events, *kept_back):
            self._append(event)

    def history_with(self, events: tuple[Event, ...]) -> tuple[Event, ...]:
        """The history as it will be once `events` have happened."""
        return (*self._history, *events)[-HISTORY_LENGTH:]

    def end(self) -> None:
        """Let every follower end once it has read what there is."""
        self._ended = True
        self._more.set()

    def _number(self, draft: Draft) -> Event:
        event = {
            "id": self._next_id,
            "at": rfc3339(),
            "type": draft.type,
            "service": draft.service,
            "pool": draft.pool,
            "upstream": draft.upstream,
            "actor": draft.actor.to_json(),
            "reason": draft.reason,
            "message": draft.message,
            "data": draft.data,
        }
        self._next_id += 1
        return event

    def _append(self, event: Event) -> None:
        self._log.append(event)
        self._begun += 1
        # A new event object a time: followers that wait are woken, and those that come next wait for the next.
        self._more.set()
        if not self._ended:
            self._more = asyncio.Event()
