"""Who has which cells of the switchboard: slots for services and for upstreams.

A slot that was freed is the last to be taken again: a worker may still be ending a request of its former holder, and
would count that in the cells of the new one.
"""

from __future__ import annotations

from collections import deque

from bgproxy.errors import Refused


class Slots:
    """Numbers from 0 to `capacity` - 1; `what` they are for stands in the refusal when there are no more."""

    def __init__(self, capacity: int, what: str) -> None:
        self.capacity = capacity
        self._what = what
        self._free = deque(range(capacity))

    @property
    def free(self) -> int:
        """How many are left."""
        return len(self._free)

    def take(self) -> int:
        """The next one; raises `Refused` when there is none."""
        if not self._free:
            raise Refused(f"There is no room for another of the {self._what}: {self.capacity} are the limit.")
        return self._free.popleft()

    def claim(self, slot: int) -> bool:
        """Take this very one, which a former controller had given to the same holder; False if it is not free."""
        try:
            self._free.remove(slot)
        except ValueError:
            return False
        return True

    def give_back(self, slot: int) -> None:
        """Its holder is gone."""
        self._free.append(slot)
