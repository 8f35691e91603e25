"""Live users: kept-alive connections that ask at a steady rate, and note of every answer when it was asked for and who gave it.

They run in a thread of their own, so that a test kills processes and waits for conditions meanwhile. A user that keeps its cookies is one
client to a canary, over however many connections.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Self

from support.waiting import eventually

#: Seconds that an answer may take.
PATIENCE = 15.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer; times are CLOCK_MONOTONIC. Status 0: there was none, and `pool` says why."""

    user: int
    host: str
    began: float
    ended: float
    status: int
    pool: str


@dataclass
class User:
    """One client. `cookies` is its jar: None if it keeps none."""

    number: int
    host: str
    path: str
    cookies: dict[str, str] | None = field(default_factory=dict)

    def head(self) -> bytes:
        """Of its next request."""
        jar = "; ".join(f"{name}={value}" for name, value in (self.cookies or {}).items())
        cookie = f"Cookie: {jar}\r\n" if jar else ""
        return f"GET {self.path} HTTP/1.1\r\nHost: {self.host}\r\n{cookie}\r\n".encode()

    def take(self, lines: list[str]) -> str:
        """Keep the cookies of an answer's head; its pool."""
        pool = ""
        for line in lines:
            name, _, value = line.partition(": ")
            if name.lower() == "x-pool":
                pool = value
            if name.lower() == "set-cookie" and self.cookies is not None:
                key, _, rest = value.partition("=")
                self.cookies[key] = rest.partition(";")[0]
        return pool


class Connection:
    """One connection at a time to `address()`; made anew after it was lost."""

    def __init__(self, address: Callable[[], tuple[str, int]]) -> None:
        self._address = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, user: User) -> Seen:
        """One request of a user; never raises."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                if self._streams is None:
                    self._streams = await asyncio.open_connection(*self._address())
                reader, writer = self._streams
                writer.write(user.head())
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *lines = head.split("\r\n")
                length = next(int(each[16:]) for each in lines if each.lower().startswith("content-length: "))
                await reader.readexactly(length)
        except (OSError, EOFError, TimeoutError, LookupError) as error:  # LookupError: it has no address as yet
            self.close()
            return Seen(user.number, user.host, began, time.monotonic(), 0, repr(error))
        if "connection: close" in head.lower():
            self.close()
        return Seen(user.number, user.host, began, time.monotonic(), int(line.split()[1]), user.take(lines))

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Users:
    """`each` users for every host, each of which asks every `every` seconds; `with Users(...) as users: ...`.

    `ways` connections a user, which it takes in turn.
    """

    def __init__(
        self,
        address: Callable[[], tuple[str, int]],
        hosts: Iterable[str] = ("test.example",),
        *,
        each: int = 1,
        every: float = 0.05,
        path: str = "/",
        ways: int = 1,
    ) -> None:
        self.users = [User(number, host, path) for number, host in enumerate(h for h in hosts for _ in range(each))]
        self.every = every
        self.seen: list[Seen] = []
        self._address = address
        self._ways = ways
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="users")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(2 * PATIENCE)

    def of(self, host: str) -> list[Seen]:
        """What the users of a host have seen."""
        return [seen for seen in self.seen if seen.host == host]

    def more(self, count: int = 100, *, within: float = 10.0) -> None:
        """Wait for so many further answers."""
        target = len(self.seen) + count
        eventually(lambda: len(self.seen) >= target, within=within, what=f"{count} more answers")

    async def _main(self) -> None:
        await asyncio.gather(*(self._live(user) for user in self.users))

    async def _live(self, user: User) -> None:
        ways = [Connection(self._address) for _ in range(self._ways)]
        due = time.monotonic() + self.every * user.number / len(self.users)
        try:
            for way in itertools.cycle(ways):
                await asyncio.sleep(max(due - time.monotonic(), 0.0))
                if self._stop.is_set():
                    return
                self.seen.append(await way.ask(user))
                due = max(due + self.every, time.monotonic())
        finally:
            for way in ways:
                way.close()
