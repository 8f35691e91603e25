"""Idempotency-Key: a change that is sent twice is made once, and answered twice with the same words.

The scope of a key is the method, the path and who asks. An answer is kept when it says that something was done, or that
it was refused as things stood; one that says "try again" (busy, not available, a request that cannot be read) is not, so
that trying again with the same key does try again.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final

from bgproxy.admin.problems import Problem

#: Answers kept at most, and for how many seconds.
KEPT: Final = 1000
KEPT_FOR: Final = 24 * 3600.0
#: Seconds that a duplicate waits for the first of its kind.
WAIT: Final = 600.0
LONGEST_KEY: Final = 255
_RETRYABLE: Final = frozenset({"busy"})
_KEPT_PROBLEMS: Final = frozenset({404, 409, 412})

Scope = tuple[str, str, str]  # method, path, who asks


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it was sent."""

    status: int
    body: bytes
    headers: dict[str, str]
    outcome: str  # "done", or the slug of a problem
    detail: str = ""  # of the problem, for the audit log
    replayed: bool = False

    @property
    def lasting(self) -> bool:
        """Whether the same request would rightly get the same answer again."""
        return self.status < 300 or (self.status in _KEPT_PROBLEMS and self.outcome not in _RETRYABLE)


@dataclass(slots=True)
class _Entry:
    """One key: the digest of its body, and its answer, once there is one."""

    digest: bytes
    since: float
    done: asyncio.Event = field(default_factory=asyncio.Event)
    answer: Answer | None = None


class Answers:
    """The first answers to keyed requests. Bounded: the oldest is forgotten first; one under way never is."""

    def __init__(self, *, kept: int = KEPT, now: Callable[[], float] = time.monotonic, wait: float = WAIT) -> None:
        self._kept = kept
        self._now = now
        self._wait = wait
        self._entries: OrderedDict[tuple[Scope, str], _Entry] = OrderedDict()

    async def once(self, scope: Scope, key: str, body: bytes, make: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer of `make`, called for the first request with `key` only.

        Raises:
            Problem: the key was used with another body (422), is no key (400), or its first request still runs (409).
        """
        if not key or len(key) > LONGEST_KEY or not key.isascii() or not key.isprintable():
            raise Problem("malformed", f"An Idempotency-Key has 1 to {LONGEST_KEY} visible ASCII characters.")
        digest = hashlib.sha256(body).digest()
        place = (scope, key)
        while (entry := self._fresh(place)) is not None:
            if entry.digest != digest:
                raise Problem(
                    "idempotency-mismatch",
                    "This key came with another body or condition before; a new change needs a new one.",
                )
            if entry.answer is not None:
                return replace(entry.answer, replayed=True)
            try:
                async with asyncio.timeout(self._wait):
                    await entry.done.wait()
            except TimeoutError:
                raise Problem("busy", "The first request with this key still runs.") from None
        # No await between the look above and the entry here: a duplicate must find it.
        entry = self._entries[place] = _Entry(digest, self._now())
        try:
            answer = await make()
            if answer.lasting:
                entry.answer = answer
            return answer
        finally:
            if entry.answer is None:
                del self._entries[place]
            entry.done.set()
            self._forget()

    def _fresh(self, place: tuple[Scope, str]) -> _Entry | None:
        entry = self._entries.get(place)
        if entry is not None and entry.answer is not None and self._now() - entry.since > KEPT_FOR:
            del self._entries[place]
            return None
        return entry

    def _forget(self) -> None:
        excess = len(self._entries) - self._kept
        if excess > 0:
            ended = [place for place, entry in self._entries.items() if entry.answer is not None]
            for place in ended[:excess]:
                del self._entries[place]
