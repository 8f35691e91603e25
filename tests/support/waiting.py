"""Waiting for a condition, with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable

#: Seconds between two looks.
STEP = 0.01
#: Turns of the loop from a connection in the listener's queue to one that its server knows.
TURNS = 5


def eventually(predicate: Callable[[], object], *, within: float = 5.0, what: str = "") -> object:
    """The first truthy value of `predicate()`; AssertionError after `within` seconds.

    A predicate that raises OSError or AssertionError has not come true yet; the last such error is shown in the end.
    """
    deadline = time.monotonic() + within
    last: object = None
    while True:
        try:
            last = predicate()
            if last:
                return last
        except (OSError, AssertionError) as error:
            last = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what or _text(predicate)} did not come true within {within:g} s; last: {last!r}")
        time.sleep(STEP)


async def eventually_async(predicate: Callable[[], object], *, within: float = 5.0, what: str = "") -> object:
    """The same in a coroutine; `predicate` may be a coroutine function."""
    deadline = time.monotonic() + within
    last: object = None
    while True:
        try:
            last = predicate()
            if inspect.isawaitable(last):
                last = await last
            if last:
                return last
        except (OSError, AssertionError) as error:
            last = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what or _text(predicate)} did not come true within {within:g} s; last: {last!r}")
        await asyncio.sleep(STEP)


async def handed_over() -> None:
    """Let servers of this loop have the connections that were made to them, before they are closed.

    asyncio leaves the socket of one that it has accepted, and not handed over yet, to the garbage collector (CPython 3.11).
    """
    for _ in range(TURNS):
        await asyncio.sleep(0)


def _text(predicate: Callable[[], object]) -> str:
    try:
        return " ".join(inspect.getsource(predicate).split())[:200]
    except (OSError, TypeError):
        return repr(predicate)
