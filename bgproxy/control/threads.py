"""Calls that may block for long (a name server, a disk), in threads that nobody has to wait for.

The threads are daemons: one that hangs for ever keeps neither the loop nor the end of the process waiting. An executor's
threads are joined when the interpreter ends, and cannot be used for this. A thread that is there already takes a call
sooner than one that has to be made first.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def in_thread(name: str, function: Callable[[], T]) -> asyncio.Future[T]:
    """Call `function` in a thread of its own; the future has its result. Cancelling the future does not stop the call.

    The future has an `OSError` (EAGAIN) where the system has no room for another thread.
    """
    future, run = _prepare(function)
    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError:
        future.set_exception(_no_room())
    return future


class OneThread:
    """Calls one after the other, in the order in which they were asked for, in one thread that the first of them starts."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[Callable[[], None] | None] | None = None

    def call(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """As `in_thread`."""
        future, run = _prepare(function)
        if self._calls is None:
            calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
            try:
                threading.Thread(target=_work, args=(calls,), name=self._name, daemon=True).start()
            except RuntimeError:
                future.set_exception(_no_room())
                return future
            self._calls = calls
        self._calls.put(run)
        return future

    def close(self) -> None:
        """Have the thread end after what was asked for so far; a later call starts another. Idempotent."""
        if self._calls is not None:
            self._calls.put(None)
            self._calls = None


def _work(calls: SimpleQueue[Callable[[], None] | None]) -> None:
    while (run := calls.get()) is not None:
        run()


def _prepare(function: Callable[[], T]) -> tuple[asyncio.Future[T], Callable[[], None]]:
    """A future of this loop, and what has to run in another thread to settle it."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type] # T may be None

    def run() -> None:
        result: T | None = None
        failure: BaseException | None = None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - it is raised again where the future is awaited
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile: nobody waits any more
            loop.call_soon_threadsafe(settle, result, failure)

    return future, run


def _no_room() -> OSError:
    return OSError(errno.EAGAIN, "no thread could be started")
