"""Ends of deployments that the disk has not taken: they are told as they are, and written as soon as it takes them.

On a full disk a deployment comes to an end all the same, but the state file goes on saying that it runs. A start would take its word for
it, and go on with what everybody has been told is over, weeks later perhaps, and to the switch.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from bgproxy.control.deployments.keeping import kept
from bgproxy.control.deployments.stage import Clock
from bgproxy.control.events import Draft
from bgproxy.control.ledger import Ledger
from bgproxy.control.state import State
from bgproxy.errors import BgproxyError
from bgproxy.model.deployment import DeploymentRecord

log = logging.getLogger("bgproxy.controller")

#: Seconds between two tries.
AGAIN: Final = 2.0


class Unwritten:
    """Those of one controller."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        ledger.late = self
        self._clock = clock
        self._ends: dict[int, tuple[DeploymentRecord, Draft]] = {}
        self._going: tuple[int, ...] = ()  # into the write that is under way
        self._task: asyncio.Task[None] | None = None

    @property
    def records(self) -> dict[int, DeploymentRecord]:
        """By id; they stand for what the disk says of these."""
        return {number: record for number, (record, _) in self._ends.items()}

    def add(self, record: DeploymentRecord, draft: Draft) -> None:
        """One has ended, and the disk does not know: write it later, with its event."""
        self._ends[record.id] = (record, draft)
        if self._task is None or self._task.done():
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._write_late(), name="ends of deployments that are not written yet")

    def make(self, state: State) -> tuple[State, list[Draft]]:
        """A state with all of them, and their events; see `Late`."""
        self._going = tuple(self._ends)
        for record, _ in self._ends.values():
            state = kept(state, record)
        return state, [draft for _, draft in self._ends.values()]

    def put(self) -> None:
        """What `make` has made is on the disk."""
        for number in self._going:
            self._ends.pop(number, None)
            log.info("the end of deployment %d is on the disk now", number)
        self._going = ()

    async def stop(self) -> None:
        """Try once more, and give up: the next start goes on by what the disk says."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._ends and not await self._write():
            numbers = ", ".join(map(str, sorted(self._ends)))
            log.error("the end of deployment %s is not on the disk; the next start goes on with it", numbers)

    async def _write_late(self) -> None:
        while self._ends:
            await self._clock.sleep(AGAIN)
            if self._ends:  # no other change has brought them along
                await self._write()

    async def _write(self) -> bool:
        """Whether they could be written."""
        try:
            await self._ledger.change(lambda state: (state, ()), lambda _: None)
        except BgproxyError:
            return False
        return True
