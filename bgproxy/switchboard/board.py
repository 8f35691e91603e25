"""The switchboard: who is live, in shared memory. `layout` says what stands where, and why a switch is atomic."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Mapping

from bgproxy.config.schema import MAX_SERVICES
from bgproxy.switchboard.layout import AREA, CELLS, INSTANCE, PREPARED, WORDS, size

_EPOCH_SHIFT = 24
_BEFORE_SHARE_SHIFT = 11
_SHARE_SHIFT = 4
_SHARE_MASK = 127


class Switchboard:
    """The shared mapping, seen from any process that inherited it.

    Only the controller calls `commit` and `settle`; a worker calls `live` and writes the cells of its own area.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.memory = mmap.mmap(-1, size(workers))
        self.cells = memoryview(self.memory).cast("Q")
        self.cells[INSTANCE] = int.from_bytes(os.urandom(4), "big")

    @property
    def epoch(self) -> int:
        """The number of the last committed switch."""
        return int(self.cells[0])

    @property
    def pseudonym(self) -> bytes:
        """What all workers of this bgproxy call themselves in `Via` (RFC 9110 section 7.6.3), and no other one does."""
        return b"bgproxy-%08x" % int(self.cells[INSTANCE])

    def live(self, slot: int) -> int:
        """Which pool of a service is live: 0 blue, 1 green. The epoch is loaded first: see `layout`."""
        epoch = self.cells[0]
        word = self.cells[WORDS + 2 * slot]
        return int(word & 1 if epoch >= word >> _EPOCH_SHIFT else word >> 1 & 1)

    def routing(self, slot: int) -> int:
        """Which pool is live, and what share of its clients the other one gets: `pool | per cent << 1`; see `live`."""
        epoch = self.cells[0]
        word = self.cells[WORDS + 2 * slot]
        # The shares stand so that one shift brings them behind the bit of the pool.
        return int(word & 1 | word >> 3 & 254 if epoch >= word >> _EPOCH_SHIFT else word >> 1 & 1 | word >> 10 & 254)

    def share(self, slot: int) -> int:
        """What share of the clients goes to the pool that is not live; per cent."""
        return self.routing(slot) >> 1

    def switched_at(self, slot: int) -> float:
        """When the service last switched: CLOCK_MONOTONIC, seconds; 0.0 if it never did."""
        return int(self.cells[WORDS + 2 * slot + 1]) / 1e6

    def settle(self, slot: int, pool: int, switched_at: float = 0.0) -> None:
        """Give a service its first word: `pool` is live, alone, and was before. Not a switch: no traffic knows the slot yet."""
        self.cells[WORDS + 2 * slot + 1] = int(switched_at * 1e6)
        self.cells[WORDS + 2 * slot] = self.epoch << _EPOCH_SHIFT | pool << 1 | pool

    def commit(self, changes: Mapping[int, int], now: float | None = None) -> int:
        """Make `{slot: pool}` live, alone, all of them in one instant; returns the new epoch.

        The times are stored first: a session policy that reads one must never find the time of an older switch.
        """
        moment = int((time.monotonic() if now is None else now) * 1e6)
        epoch = self._prepare()
        for slot, pool in changes.items():
            before = self.routing(slot)
            self.cells[WORDS + 2 * slot + 1] = moment
            self.cells[WORDS + 2 * slot] = _word(epoch, before, pool)
        self.cells[0] = epoch  # the one store that moves every worker
        return epoch

    def split(self, slot: int, share: int) -> int:
        """Have so many per cent of a service's clients go to the pool that is not live; returns the new epoch.

        Who is live stays, and when it became so.

        Raises:
            ValueError: the share is not 0 to 100.
        """
        if not 0 <= share <= 100:
            raise ValueError(f"{share} is no share: 0 to 100")
        epoch = self._prepare()
        before = self.routing(slot)
        self.cells[WORDS + 2 * slot] = _word(epoch, before, before & 1, share)
        self.cells[0] = epoch
        return epoch

    def _prepare(self) -> int:
        """The number of the commit that begins here."""
        if self.cells[PREPARED] > self.cells[0]:
            self._undo()
        epoch = self.epoch + 1
        self.cells[PREPARED] = epoch
        return epoch

    def _undo(self) -> None:
        """Take back the words of a commit whose controller died in its middle: the next epoch must not bring them."""
        epoch = self.epoch
        for at in range(WORDS, WORDS + 2 * MAX_SERVICES, 2):
            word = self.cells[at]
            if word >> _EPOCH_SHIFT > epoch:
                before = word >> 1 & 1
                share = word >> _BEFORE_SHARE_SHIFT & _SHARE_MASK
                self.cells[at] = _word(epoch, before | share << 1, before, share)

    def area(self, worker: int) -> memoryview:
        """The cells that worker `worker` alone writes."""
        start = CELLS + worker * AREA
        return self.cells[start : start + AREA]

    def close(self) -> None:
        """Unmap it in this process; for tests, since a process that ends does so anyway."""
        self.cells.release()
        self.memory.close()


def _word(epoch: int, before: int, pool: int, share: int = 0) -> int:
    """A service's word; `before` is a routing (`Switchboard.routing`), `pool` and `share` are what it is from `epoch` on."""
    former = before >> 1 << _BEFORE_SHARE_SHIFT | (before & 1) << 1
    return epoch << _EPOCH_SHIFT | share << _SHARE_SHIFT | former | pool
