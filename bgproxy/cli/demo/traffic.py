"""A trickle of traffic through the proxy, counted by the version that answered."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from itertools import cycle
from typing import Final

import aiohttp

from bgproxy.cli.terminal import Paint
from bgproxy.cli.words import plural

_CLIENTS: Final = 4
_PAUSE: Final = 0.1  # seconds between two requests of a client: some 40 requests a second in all
_WINDOW: Final = 0.5  # seconds of traffic that a share is counted over
_REQUESTS: Final = (
    ("GET", "/api/version"),
    ("GET", "/api/products"),
    ("GET", "/api/products/2"),
    ("POST", "/api/orders"),
)


class Traffic:
    """Clients with kept-alive connections; `say` gets a line whenever the share of the versions changes."""

    def __init__(self, url: str, say: Callable[[str], None], paint: Paint) -> None:
        self._url = url
        self._say = say
        self._paint = paint
        self._window: Counter[str] = Counter()
        self._shown: list[str] = []
        self.answers: Counter[str] = Counter()  # by colour
        self.errors = 0

    async def run(self) -> None:
        """Send requests and report until cancelled."""
        timeout = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(self._url, timeout=timeout) as session, asyncio.TaskGroup() as tasks:
            for number in range(_CLIENTS):
                tasks.create_task(self._client(session), name=f"demo client {number}")
            tasks.create_task(self._report(), name="demo report")

    async def _client(self, session: aiohttp.ClientSession) -> None:
        for method, path in cycle(_REQUESTS):
            try:
                async with session.request(method, path) as answer:
                    await answer.read()
                    self._count(answer.headers.get("X-Shop-Colour"), answer.status)
            except (aiohttp.ClientError, TimeoutError) as error:
                self._failed(f"{method} {path}: {error!r}")
            await asyncio.sleep(_PAUSE)

    def _count(self, colour: str | None, status: int) -> None:
        if colour is None or status != 200:
            self._failed(f"status {status}")
            return
        self.answers[colour] += 1
        self._window[colour] += 1

    def _failed(self, what: str) -> None:
        self.errors += 1
        if self.errors <= 10:  # the rest is in the count
            self._say(self._paint(f"error: {what}", "red"))

    async def _report(self) -> None:
        split = False
        while True:
            await asyncio.sleep(_WINDOW)
            window, self._window = self._window, Counter()
            colours = sorted(window)
            # One window with both is a switch in its middle; only a second one shows a share.
            was_split, split = split, len(colours) > 1
            if split and not was_split:
                continue
            if colours and colours != self._shown:
                self._shown = colours
                shares = (
                    self._paint(f"{name} {100 * window[name] / window.total():.0f} %", "bold", name) for name in colours
                )
                moment = datetime.now().astimezone().strftime("%H:%M:%S")
                self._say(f"{moment}  the traffic goes to {', '.join(shares)}   ({self.summary()})")

    def summary(self) -> str:
        """`312 answers so far: blue 300, green 12; 0 errors`."""
        shares = ", ".join(f"{name} {count}" for name, count in sorted(self.answers.items()))
        counted = plural(self.answers.total(), "answer")
        return f"{counted} so far{f': {shares}' if shares else ''}; {plural(self.errors, 'error')}"
