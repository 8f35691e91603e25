"""Deployments for the tests of single stages: a `Run` with a clock of its own, before real or fake upstreams."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from bgproxy.config.schema import Deployment, Health, Pool, Pools
from bgproxy.config.schema import Service as Settings
from bgproxy.control.deployments.stage import Hands, Run
from bgproxy.control.places import Place, places_of
from bgproxy.control.registry import Service, Upstream
from bgproxy.model.deployment import DeploymentRecord, DeploymentState, Step
from bgproxy.model.pool import POOLS
from bgproxy.model.snapshot import TlsSpec
from bgproxy.model.upstream import UpstreamState


class FakeClock:
    """Time that passes only where somebody sleeps; `slept` is how long in all."""

    def __init__(self, at: float = 1_000.0) -> None:
        self.at = at
        self.slept = 0.0

    def now(self) -> float:
        return self.at

    def time(self) -> float:
        return 1_700_000_000.0 + self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds
        self.slept += seconds
        await asyncio.sleep(0)


class JumpyClock(FakeClock):
    """One whose wall clock somebody sets: `ahead` is by how many seconds it is before the monotonic one."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


class Shown:
    """The lines that a run has shown, one for each `show`, and what they came with."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.figures: list[dict[str, Any]] = []

    def __call__(self, run: Run) -> None:
        text = run.progress.text
        if text and (not self.lines or (self.lines[-1], self.figures[-1]) != (text, run.progress.figures)):
            self.lines.append(text)
            self.figures.append(dict(run.progress.figures))


class FakeLinks:
    """Workers that do what they are told: `warmed` is the pools (service, index) that connections were opened to."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, int]] = []

    async def acknowledged(self, within: float = 5.0, *, then_warm: tuple[tuple[str, int], ...] = ()) -> object:
        self.opened += then_warm
        return object()

    async def recent(self, service: str, limit: int) -> list[tuple[str, int]]:
        return []

    async def warmed(self, warm: object, within: float) -> bool:
        return True


def make_hands(**hands: Any) -> Hands:
    """Parts of a controller: those given, and for the others something that a stage has no business with."""
    names = ("switcher", "editor", "counters", "drains", "links", "publisher")
    fakes = {"links": FakeLinks, "drains": lambda: SimpleNamespace(ending=lambda _service, _pool: None)}
    parts = {name: hands.pop(name, None) or fakes.get(name, SimpleNamespace)() for name in names}
    return Hands(**parts, **hands)


def upstreams_of(*urls: str, state: UpstreamState = UpstreamState.UP) -> list[Upstream]:
    """Upstreams as a registry has them; names stand for the loopback."""
    places: list[Place] = [place for url in urls for place in places_of(url, lambda _: ["127.0.0.1"])]
    made = [Upstream(place, slot) for slot, place in enumerate(places)]
    for upstream in made:
        upstream.state = state
    return made


def make_service(
    *idle: str,
    old: tuple[str, ...] = (),
    tls: TlsSpec | None = None,
    send_proxy: str = "off",
    tcp: bool = False,
    **settings: Any,
) -> Service:
    """A service `shop` with blue live, and green as `idle` (URLs), all of it up; `settings` are fields of the schema's Service."""
    pools = Pools(blue=Pool(version="1.0", upstreams=old), green=Pool(version="2.0", upstreams=idle))
    settings.setdefault("health", Health(path="/health", interval=0.05, timeout=1.0, rise=1, fall=1))
    service = Service("shop", 0, Settings(pools=pools, **settings), tcp=tcp)
    for pool, urls in zip(service.pools, (old, idle), strict=True):
        pool.urls = urls
        pool.version = "1.0" if pool is service.pools[0] else "2.0"
        pool.upstreams = upstreams_of(*urls)
        pool.tls = tls or TlsSpec()
        pool.send_proxy = send_proxy  # type: ignore[assignment]
    return service


def make_run(
    *idle: str,
    deployment: Deployment | None = None,
    state: DeploymentState = DeploymentState.VERIFYING,
    service: Service | None = None,
    clock: Any = None,
    hands: Hands | None = None,
    tell: Any = None,
    memory: dict[str, Any] | None = None,
    **of_service: Any,
) -> Run:
    """Deployment 7 of `shop` to green, in `state`; what is not named goes to `make_service`. `run.tell` has what was shown."""
    deployment = deployment or Deployment()
    service = service or make_service(*idle, deployment=deployment, **of_service)
    clock = clock or FakeClock()
    target = POOLS[1 - service.live]
    record = DeploymentRecord(
        id=7,
        service=service.name,
        target=target,
        version="2.0",
        upstreams=None,
        strategy=deployment.strategy.type,
        reason="a test",
        actor={"name": "alice", "address": "10.0.0.1"},
        state=state,
        steps=(Step(state=state.value, at=clock.time(), by="alice", why="a test"),),
        memory=memory or {},
    )
    tell = tell or Shown()
    run = Run(record, service, deployment, hands or make_hands(), clock=clock, tell=tell)
    run.tell = tell  # type: ignore[attr-defined]
    return run
