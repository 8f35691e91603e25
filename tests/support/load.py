"""Load over kept-alive connections that notes when every request began and ended and who answered it, and the judge.

`judge` decides whether what was seen could have come from one register that changes at the switches: the definition
of atomic in product.md section 5 (Herlihy and Wing's linearizability, for a register that is written by one writer).
"""

from __future__ import annotations

import asyncio
import heapq
import time
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field


@dataclass
class Record:
    start: float
    end: float
    pool: str


@dataclass
class Switch:
    """A switch to `pool`: called, and answered."""

    called: float
    answered: float
    pool: str


@dataclass
class Load:
    address: tuple[str, int]
    connections: int = 50
    hosts: tuple[str, ...] = ("shop.test",)
    records: list[Record] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    closed: int = 0
    _stop: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> None:
        self._tasks = [asyncio.create_task(self._connection(number)) for number in range(self.connections)]

    async def stop(self) -> None:
        self._stop = True
        async with asyncio.timeout(30):
            await asyncio.gather(*self._tasks)

    async def _connection(self, number: int) -> None:
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            await self._ask(number, reader, writer)
        finally:
            writer.close()

    async def _ask(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not self._stop:
            host = self.hosts[number % len(self.hosts)]
            number += 1
            start = time.monotonic()
            writer.write(f"GET /{number} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: load\r\n\r\n".encode())
            try:
                async with asyncio.timeout(20):
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                    body = await reader.readexactly(length)
            except (OSError, EOFError, TimeoutError) as error:
                self.closed += 1
                self.errors.append(repr(error))
                return
            if not head.startswith(b"HTTP/1.1 200 "):
                self.errors.append(f"{head!r} {body!r}")
                continue
            self.records.append(Record(start, time.monotonic(), body.decode()))


def judge(records: list[Record], switches: list[Switch], first: str) -> list[str]:
    """What no single moment of switching could explain; empty if all is well.

    Generation 0 is `first`; switch n makes generation n. A request may have read generation g if switch g was called
    before it ended, and no request that ended before it began, nor any switch answered before it began, shows that
    generation g was over by then. Each request gets the least generation that its answer allows.
    """
    pools = [first, *(switch.pool for switch in switches)]
    called = [switch.called for switch in switches]
    answered = [switch.answered for switch in switches]
    wrong: list[str] = []
    ends: list[float] = []  # of judged requests, rising
    floors: list[int] = []  # the highest generation shown by then
    pending: list[tuple[float, int]] = []
    for record in sorted(records, key=lambda record: record.start):
        # Requests that ended before this one began have been judged: they began before it, too.
        while pending and pending[0][0] < record.start:
            end, generation = heapq.heappop(pending)
            ends.append(end)
            floors.append(max(generation, floors[-1] if floors else 0))
        at = bisect_left(ends, record.start)
        least = max(floors[at - 1] if at else 0, bisect_left(answered, record.start))
        most = bisect_right(called, record.end)
        generation = next((g for g in range(least, most + 1) if pools[g] == record.pool), -1)
        if generation < 0:
            wrong.append(f"{record}: the live pool was of generation {least} to {most}: {pools[least : most + 1]}")
        else:
            heapq.heappush(pending, (record.end, generation))
    return wrong
