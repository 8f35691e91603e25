"""Changes that run to their end, whatever becomes of who asked for them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

#: Seconds that changes under way may take to end at a stop.
END_WITHIN: Final = 5.0


class Tasks:
    """Tasks that belong to the controller."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run `work`; await the task through `asyncio.shield`, so that a cancelled caller does not stop it half-way."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def whole(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Run `work`, and wait for it: who is cancelled meanwhile goes on only when it has ended, and knows then what it has done."""
        task = self.start(work, name)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})
            raise

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked was told of it, or has gone

    async def close(self) -> None:
        """Wait for what is under way, and cancel what does not end in time."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=END_WITHIN)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
