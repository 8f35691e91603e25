"""What a stage of a deployment sees: the deployment, and the parts of the controller that it may use.

A stage is a coroutine function that takes a `Run`, ends when the stage has passed, and raises `Halted` when the deployment
cannot go on. It is cancelled when its time is up, at an abort, and when the controller stops; it then leaves no process, task or
connection behind. It never touches live users before the flip: whatever it asks, it asks the idle pool.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from bgproxy.config.schema import Deployment as Settings
from bgproxy.control.actor import Actor, deployer
from bgproxy.control.counters import Counters
from bgproxy.control.deployments.figures import Figures
from bgproxy.control.deployments.guard import Guard
from bgproxy.control.deployments.watcher import Watcher
from bgproxy.control.draining import Drains
from bgproxy.control.editing import Editor
from bgproxy.control.links import Links
from bgproxy.control.publishing import Publisher
from bgproxy.control.registry import Pool, Service
from bgproxy.control.switching import Switcher
from bgproxy.model.deployment import DeploymentRecord, Result
from bgproxy.model.pool import POOLS, index_of


class Halted(Exception):  # noqa: N818 - says what it was
    """The deployment cannot go on; the text is one sentence that names the cause, `details` are further lines."""

    def __init__(self, cause: str, details: tuple[str, ...] = ()) -> None:
        super().__init__(cause)
        self.details = details


class NotApproved(Halted):
    """Nobody said yes in time: it ends as aborted, not as failed."""


class Clock(Protocol):
    """Time as a deployment knows it; injected in tests."""

    def now(self) -> float:
        """CLOCK_MONOTONIC, seconds."""
        ...

    def time(self) -> float:
        """Seconds since 1970."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        ...


class WallClock:
    """The real one."""

    def now(self) -> float:
        """CLOCK_MONOTONIC, seconds."""
        return time.monotonic()

    def time(self) -> float:
        """Seconds since 1970."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """The parts of the controller that stages use."""

    switcher: Switcher
    editor: Editor
    counters: Counters
    drains: Drains
    links: Links
    publisher: Publisher
    environment: Callable[[], dict[str, str]] = lambda: dict(os.environ)  # of commands; without our secrets
    mismatched: Callable[[str, str], None] = lambda _service, _pool: None  # told of an answer that differs
    guard: Guard = field(default_factory=Guard)  # of the commands that run
    watcher: Watcher | None = None  # None: nobody knows how the live pool did before


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far the present stage is, for who watches: a share of it, a line, and figures (JSON)."""

    share: float | None = None  # 0.0 to 1.0; None where nobody can know
    text: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


class Run:
    """A deployment under way. `tell` is called when something of it has changed that a watcher would like to know."""

    def __init__(
        self,
        record: DeploymentRecord,
        service: Service,
        settings: Settings,
        hands: Hands,
        *,
        clock: Clock,
        preview_urls: Callable[[], list[str]] = list,
        tell: Callable[[Run], None] = lambda _: None,
        remember: Callable[[Run], Awaitable[None]] | None = None,
    ) -> None:
        self.record = record
        self.service = service
        self.settings = settings
        self.hands = hands
        self.clock = clock
        self.progress = Progress()
        self.approved = asyncio.Event()  # somebody has said yes; the stage that asks clears it first
        self.approval: tuple[Actor, str] | None = None  # who said so, and in which words; for the next transition
        self.waits = False  # for an operator to approve or to abort
        self.figures: Figures | None = None  # of both pools, since their traffic began to move
        self.preview_urls = preview_urls  # of the listeners that lead to the service: "http://127.0.0.1:8080"
        self._tell = tell
        self._remember = remember

    def __repr__(self) -> str:
        return f"<Run {self.record.id} of {self.service.name}: {self.record.state.value}>"

    @property
    def target(self) -> int:
        """Index of the pool that is to be live."""
        return index_of(self.record.target)

    @property
    def idle(self) -> Pool:
        """The pool that is deployed to."""
        return self.service.pools[self.target]

    @property
    def old(self) -> Pool:
        """The pool that was live when the deployment began."""
        return self.service.pools[1 - self.target]

    @property
    def actor(self) -> Actor:
        """Who asked for it, in the words of events."""
        return deployer(self.record.id)

    def keep(self, result: Result) -> None:
        """Add what was found out; it goes to the disk with the next transition."""
        self.record = replace(self.record, results=(*self.record.results, result))
        self._tell(self)

    def show(self, text: str, share: float | None = None, **figures: Any) -> None:
        """Say how far the stage is."""
        self.progress = Progress(share=share, text=text, figures=figures)
        self._tell(self)

    def left_of(self, seconds: float) -> float:
        """How much is left of so many seconds from the first step into the present state, in a former life perhaps: 0.0 to `seconds`.

        To be asked once, when a stage begins, and counted from there by `clock.now`: it takes the wall clock, which may jump.
        """
        now = self.clock.time()
        began = next((step.at for step in self.record.steps if step.state == self.record.state.value), now)
        return min(max(began + seconds - now, 0.0), seconds)

    async def remember(self, **memory: Any) -> None:
        """Have this on the disk before going on: what the stage must know after a restart. Raises `StateError`, `Unavailable`."""
        self.record = replace(self.record, memory={**self.record.memory, **memory})
        if self._remember is not None:
            await self._remember(self)

    def described(self) -> dict[str, Any]:
        """The deployment as hooks get it (JSON)."""
        record, header = self.record, self.service.settings.preview.header
        return {
            "id": record.id,
            "service": record.service,
            "state": record.state.value,
            "target": record.target,
            "old": POOLS[1 - self.target],
            "live": POOLS[self.service.live],
            "version": record.version,
            "upstreams": list(self.idle.urls),
            "strategy": record.strategy,
            "reason": record.reason,
            "actor": dict(record.actor),
            "preview_host": next((host for host in self.service.settings.match.hosts if not host.startswith("*")), ""),
            "preview_url": next(iter(self.preview_urls()), ""),
            "preview_header": f"{header}: {record.target}" if header and not self.service.tcp else "",
        }


#: A stage.
Stage = Callable[[Run], Awaitable[None]]
