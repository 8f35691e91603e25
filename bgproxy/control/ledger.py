"""The order of changes: one at a time is made, written to the disk, and put in force.

What is in force is therefore never newer than what a restart would find; and if the disk does not take a change, nothing
of it has happened anywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

from bgproxy.control.events import ID_BLOCK, Draft, EventLog
from bgproxy.control.state import State
from bgproxy.errors import Unavailable

T = TypeVar("T")

#: Seconds that a change waits for those before it to be written.
TURN_WITHIN: Final = 10.0


class Keeper(Protocol):
    """What a ledger needs of the store."""

    async def write(self, state: State) -> None:
        """Write it; raises `StateError`, and then nothing on the disk has changed."""


class Late(Protocol):
    """What has happened while the disk took nothing: it goes along with the next change that it takes."""

    def make(self, state: State) -> tuple[State, Sequence[Draft]]:
        """The state with it, and its events."""

    def put(self) -> None:
        """What `make` has made last is on the disk."""


@dataclass(frozen=True, slots=True)
class Hints:
    """What makes the next life of the controller smoother, and is written along with every change."""

    upstream_slots: Mapping[str, int]
    addresses: Mapping[str, tuple[str, ...]]


class Ledger:
    """The state in force, and the way to change it."""

    def __init__(self, state: State, store: Keeper, events: EventLog, hints: Callable[[], Hints]) -> None:
        self.state = state
        self.late: Late | None = None
        self._store = store
        self._events = events
        self._hints = hints
        self._turn = asyncio.Lock()

    async def change(
        self, make: Callable[[State], tuple[State, Sequence[Draft]]], put_in_force: Callable[[State], T]
    ) -> T:
        """Make a new state of the one in force, write it with its events, and put it in force, in that order.

        `put_in_force` must not fail: the disk already has the new state. To be called in a task that is not cancelled
        lightly: a write that is under way is completed by its thread.

        Raises:
            Unavailable: changes before this one have not been written within `TURN_WITHIN` seconds.
            StateError: the disk did not take it. Nothing was changed, as with whatever `make` raises.
        """
        try:
            async with asyncio.timeout(TURN_WITHIN):
                await self._turn.acquire()
        except TimeoutError:
            text = f"The state file of an earlier change is still being written after {TURN_WITHIN:g}s; nothing was changed."
            raise Unavailable(text) from None
        try:
            state, drafts = make(self.state)
            if self.late is not None:
                state, former = self.late.make(state)
                drafts = [*former, *drafts]
            events = self._events.reserve(drafts)
            happened = False
            try:
                hints = self._hints()
                state = replace(
                    state,
                    history=self._events.history_with(events),
                    last_event=self._events.last_id + ID_BLOCK,
                    upstream_slots=hints.upstream_slots,
                    addresses=hints.addresses,
                )
                await self._store.write(state)
                # No await beyond this point: the disk, the memory and the board change as one.
                self.state = state
                happened = True
                if self.late is not None:
                    self.late.put()
                return put_in_force(state)
            finally:
                self._events.settle(events if happened else ())
        finally:
            self._turn.release()
