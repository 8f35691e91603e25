"""Waiting for a condition, with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable

#: Seconds between two looks.
STEP = 0.01


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


def _text(predicate: Callable[[], object]) -> str:
    try:
        return " ".join(inspect.getsource(predicate).split())[:200]
    except (OSError, TypeError):
        return repr(predicate)
