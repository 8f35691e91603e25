"""Which upstream of a pool gets the next request.

The choice is made in one stretch with the count that it rests on: no await between them.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bgproxy.proxy.runtime import Pool, Upstream

ROUND_ROBIN: Final = 0
LEAST_REQUESTS: Final = 1
RANDOM_TWO: Final = 2
SOURCE_HASH: Final = 3

_CODES: Final = {
    "round_robin": ROUND_ROBIN,
    "least_requests": LEAST_REQUESTS,
    "random_two": RANDOM_TWO,
    "source_hash": SOURCE_HASH,
}

#: `least_requests` looks at so many upstreams, from a place that moves on: in a small pool at all of them, in a large
#: one at a sample, which is nearly as even (Mitzenmacher, "The Power of Two Choices", 2001) and costs the same for any size.
_SAMPLE: Final = 16

_POINTS: Final = 64  # of one upstream on the ring: shares within about an eighth of each other


def balance_code(name: str) -> int:
    """The number of a balance as the configuration names it."""
    return _CODES[name]


def hash_of(key: bytes) -> int:
    """64 bits of a key, the same in every process and at every time."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")


class Ring:
    """Consistent hashing: a key keeps its upstream while that is there, and few keys move when another comes or goes."""

    def __init__(self, ids: list[str]) -> None:
        self.ids = ids
        points: list[tuple[int, int]] = []
        for number, upstream in enumerate(ids):
            points.extend((hash_of(f"{upstream}#{point}".encode()), number) for point in range(_POINTS))
        points.sort()
        self._at = [at for at, _ in points]
        self.numbers = [number for _, number in points]  # of upstreams, one a point, around the ring

    def order(self, key: int) -> list[int]:
        """The numbers of the upstreams in the order in which the key prefers them."""
        start = self.start(key)
        seen: dict[int, None] = {}
        for number in self.numbers[start:] + self.numbers[:start]:
            if number not in seen:
                seen[number] = None
                if len(seen) == len(self.ids):
                    break
        return list(seen)

    def start(self, key: int) -> int:
        """Where in `numbers` the order of a key begins; it wraps around."""
        return bisect_right(self._at, key)


def by_hash(pool: Pool, key: int) -> Upstream | None:
    """The first usable upstream in the key's order."""
    if len(pool.ready) <= 1:
        return pool.ready[0] if pool.ready else None
    numbers = pool.ring.numbers
    at = pool.ring.start(key)
    for _ in range(len(numbers)):
        if at >= len(numbers):
            at = 0
        upstream = pool.upstreams[numbers[at]]
        if upstream.usable:
            return upstream
        at += 1
    return None


def pick(pool: Pool, code: int, key: int) -> Upstream | None:
    """The upstream for the next request; None when the pool has none that may be used. `key` is for `source_hash`."""
    ready = pool.ready
    count = len(ready)
    if count <= 1:
        return ready[0] if count else None
    if code == LEAST_REQUESTS:
        turn = pool.turn = (pool.turn + 1) % count
        best = ready[turn]
        fewest = best.in_flight
        if not fewest:
            return best
        at = turn
        for _ in range(min(count, _SAMPLE) - 1):
            at = at + 1 if at + 1 < count else 0
            upstream = ready[at]
            if upstream.in_flight < fewest:
                best = upstream
                fewest = upstream.in_flight
                if not fewest:
                    break
        return best
    if code == ROUND_ROBIN:
        turn = pool.turn = (pool.turn + 1) % count
        return ready[turn]
    if code == RANDOM_TWO:
        first = ready[int(random.random() * count)]  # noqa: S311 - spreads load, hides nothing
        second = ready[int(random.random() * count)]  # noqa: S311
        return second if second.in_flight < first.in_flight else first
    return by_hash(pool, key)
