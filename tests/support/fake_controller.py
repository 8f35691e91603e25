"""A controller in memory: the facade that the admin API speaks to, without workers, checks or a disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from bgproxy.config.schema import Config, Pool, Pools, Service
from bgproxy.control.actor import Actor
from bgproxy.control.switching import SwitchResult
from bgproxy.control.tallies import Tallies
from bgproxy.errors import Busy, NotFound, NotHealthy, Refused, Stale
from bgproxy.switchboard.layout import BUCKET_COUNT, LIMIT_COUNT

NOW = "2030-01-02T03:04:05.678Z"


def config(**admin: Any) -> Config:
    """Two services, and the admin settings that a test is about."""
    from bgproxy.config.schema import Admin

    pools = Pools(blue=Pool(upstreams=("http://127.0.0.1:9001",)), green=Pool(upstreams=("http://127.0.0.1:9002",)))
    return Config(services={"shop": Service(pools=pools), "api": Service(pools=pools)}, admin=Admin(**admin))


class FakeEvents:
    """Events of a list; followers wait for more."""

    def __init__(self) -> None:
        self.list: list[dict[str, Any]] = []
        self.more = asyncio.Event()
        self.followers = 0
        self.forgotten = 0  # the log does not reach back before this id

    def add(self, kind: str, service: str | None, message: str = "", reason: str = "") -> None:
        self.list.append(
            {
                "id": len(self.list) + 1,
                "at": NOW,
                "type": kind,
                "service": service,
                "pool": None,
                "upstream": None,
                "actor": {"name": "anonymous", "address": "127.0.0.1"},
                "reason": reason,
                "message": message,
                "data": {},
            }
        )
        self.more.set()
        self.more = asyncio.Event()

    def history(self, service: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        return [event for event in self.list if service is None or event["service"] == service][-limit:]

    def since(self, last: int) -> list[dict[str, Any]] | None:
        if last < self.forgotten:
            return None
        return [event for event in self.list if event["id"] > last]

    async def subscribe(self, last: int | None = None) -> AsyncIterator[dict[str, Any]]:
        at = len(self.list) if last is None else last
        self.followers += 1
        try:
            while True:
                while at < len(self.list):
                    at += 1
                    yield self.list[at - 1]
                await self.more.wait()
        finally:
            self.followers -= 1


class FakeCounters:
    """Cells that a test fills."""

    def __init__(self) -> None:
        self.pools: dict[tuple[str, str], SimpleNamespace] = {}
        self.whole = SimpleNamespace(
            accepted=0,
            refused=0,
            unmatched=0,
            bad_requests=0,
            log_dropped=0,
            tls_failed=0,
            tls_timeouts=0,
            unintroduced=0,
        )
        self.whole.limits = [0] * LIMIT_COUNT

    def pool(self, service: str, pool: str) -> SimpleNamespace:
        empty = SimpleNamespace(
            codes={},
            buckets=[0] * BUCKET_COUNT,
            duration_seconds=0.0,
            bytes_in=0,
            bytes_out=0,
            retries=0,
            mirrored=0,
            mirror_dropped=0,
            cut=[0, 0, 0],
        )
        return self.pools.setdefault((service, pool), empty)

    def program(self) -> SimpleNamespace:
        return self.whole


@dataclass
class FakeService:
    live: str = "blue"
    previous: str | None = None
    generation: int = 1
    versions: dict[str, str] = field(default_factory=lambda: {"blue": "1.0", "green": "2.0"})
    upstreams: dict[str, list[str]] = field(
        default_factory=lambda: {"blue": ["http://127.0.0.1:9001"], "green": ["http://127.0.0.1:9002"]}
    )
    states: dict[str, str] = field(default_factory=dict)


class FakeDeployments:
    """Deployments that stay where they are until a test, or `approve` and `abort`, move them."""

    def __init__(self) -> None:
        self.known: dict[int, dict[str, Any]] = {}
        self.calls: list[tuple[str, int, Actor, str]] = []
        self.keys: dict[tuple[str, str, str], int] = {}  # service, who, key

    def begun_under(self, service: str, actor: Actor, key: str) -> dict[str, Any] | None:
        return self.known.get(self.keys.get((service, actor.name, key), 0)) if key else None

    def add(self, service: str, **more: Any) -> dict[str, Any]:
        number = len(self.known) + 1
        self.known[number] = {
            "id": number,
            "service": service,
            "state": "verifying",
            "running": True,
            "waits": False,
            "target": "green",
            "version": "2.0",
            "upstreams": None,
            "strategy": "all-at-once",
            "reason": "",
            "actor": {"name": "anonymous", "address": "127.0.0.1"},
            "created_at": NOW,
            "ended_at": None,
            "outcome": "",
            "steps": [{"state": state, "at": NOW, "by": "anonymous", "why": ""} for state in ("queued", "verifying")],
            "results": [
                {
                    "stage": "verifying",
                    "name": "cart",
                    "ok": False,
                    "expected": "status 200",
                    "found": "status 500",
                    "seconds": 0.01,
                    "details": ["the end of the body"],
                }
            ],
            "progress": {"share": 0.5, "text": "cart", "figures": {"requests": 3}},
            **more,
        }
        return self.known[number]

    def get(self, number: int) -> dict[str, Any]:
        if number not in self.known:
            raise NotFound(f"There is no deployment {number}.")
        return self.known[number]

    def listing(self, service: str, most: int = 1000) -> list[dict[str, Any]]:
        return [known for known in self.known.values() if known["service"] == service][-most:]

    def running(self, service: str) -> dict[str, Any] | None:
        return next((known for known in self.listing(service) if known["running"]), None)

    async def approve(self, number: int, *, actor: Actor, reason: str = "") -> dict[str, Any]:
        found = self.get(number)
        if not found["waits"]:
            raise Refused(f"Deployment {number} does not wait for an approval.")
        self.calls.append(("approve", number, actor, reason))
        found["waits"] = False
        return found

    async def abort(self, number: int, *, actor: Actor, reason: str = "") -> dict[str, Any]:
        found = self.get(number)
        if not found["running"]:
            raise Refused(f"Deployment {number} has ended.")
        self.calls.append(("abort", number, actor, reason))
        found |= {"state": "aborted", "running": False, "ended_at": NOW, "outcome": "aborted", "progress": None}
        return found


class FakeController:
    """Behaves as the notes on the facade say; `gate`, when set, holds a switch until it is released."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.services = {name: FakeService() for name in config.services}
        self.last = 1
        self.events = FakeEvents()
        self.counters = FakeCounters()
        self.tallies = Tallies()
        self.deployments = FakeDeployments()
        self.shares: dict[str, int] = {}  # per cent, of services in a canary
        self.unhealthy: set[tuple[str, str]] = set()
        self.not_ready: list[str] = []
        self.calls: list[tuple[str, Any]] = []
        self.raises: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.held = asyncio.Event()

    def _service(self, name: str) -> FakeService:
        if name not in self.services:
            raise NotFound(f"There is no service {name!r}; known: {', '.join(self.services)}.")
        return self.services[name]

    def _bump(self, service: str) -> int:
        self.last += 1
        self.services[service].generation = self.last
        return self.last

    def generation(self, service: str) -> int:
        return self._service(service).generation

    def ready(self) -> tuple[bool, list[str]]:
        return not self.not_ready, self.not_ready

    def status(self) -> dict[str, Any]:
        if self.raises is not None:
            raise self.raises
        return {
            "program": "bgproxy",
            "version": "0.1.0",
            "build": "interpreted",
            "started_at": NOW,
            "generation": self.last,
            "workers": [{"index": 0, "pid": 10, "state": "serving", "connections": 5, "restarts": 2}],
            "controller": {"pid": 1, "restarts": 0},
            "listeners": ["127.0.0.1:8080"],
            "certificates": [],
            "services": [self.service_status(name) for name in self.services],
        }

    def service_status(self, name: str) -> dict[str, Any]:
        service = self._service(name)
        return {
            "service": name,
            "generation": service.generation,
            "live": service.live,
            "previous": service.previous,
            "switched_at": None,
            "match": {"hosts": [], "path": "/"},
            "sessions": {"mode": "none", "on_switch": "follow"},
            "pools": {pool: self._pool_status(name, pool) for pool in ("blue", "green")},
            "share": self.shares.get(name, 0),
            "deploys": {"strategy": "all-at-once", "stages": ["switching", "draining"]},
            "deployment": self._deployment(name),
            "last_deployment": None,
        }

    def _deployment(self, name: str) -> dict[str, Any] | None:
        running = self.deployments.running(name)
        if running is None:
            return None
        brief = {key: running[key] for key in ("id", "state", "target", "version", "waits")}
        return brief | {key: running["progress"][key] for key in ("text", "share")}

    def _pool_status(self, name: str, pool: str) -> dict[str, Any]:
        service = self.services[name]
        return {
            "state": "live" if service.live == pool else "standby",
            "version": service.versions[pool],
            "healthy": (name, pool) not in self.unhealthy,
            "in_flight": {"requests": 3, "streams": 0, "websockets": 1},
            "sessions": 4,
            "requests": 11,
            "upstreams": [
                {
                    "id": url.removeprefix("http://"),
                    "url": url,
                    "address": url.removeprefix("http://"),
                    "state": service.states.get(url, "up"),
                    "ejected": False,
                    "reason": "",
                    "since": NOW,
                    "in_flight": 2,
                    "connections": 3,
                    "check_ms": 1.2,
                }
                for url in service.upstreams[pool]
            ],
            "unresolved": [],
            "drain": None,
        }

    async def switch(
        self,
        targets: Mapping[str, str | None],
        *,
        actor: Actor,
        force: bool = False,
        wait: str = "switched",
        reason: str = "",
        if_match: int | None = None,
    ) -> list[SwitchResult]:
        self.calls.append(
            ("switch", {"targets": dict(targets), "actor": actor, "force": force, "wait": wait, "reason": reason})
        )
        if self.raises is not None:
            raise self.raises
        chosen = {name: to or self._other(self._service(name).live) for name, to in targets.items()}
        for name, to in chosen.items():
            if if_match is not None and self.services[name].generation != if_match:
                raise Stale("stale")
            if (name, to) in self.unhealthy and not force:
                raise NotHealthy(f"{name}: {to} is not healthy.", ["127.0.0.1:9002: connection refused"])
        if self.gate is not None:
            self.held.set()
            await self.gate.wait()
        return [self._moved(name, to, wait) for name, to in chosen.items()]

    async def rollback(
        self,
        service: str,
        *,
        actor: Actor,
        force: bool = False,
        wait: str = "switched",
        reason: str = "",
        if_match: int | None = None,
    ) -> SwitchResult:
        previous = self._service(service).previous
        if previous is None:
            raise Refused(f"{service}: no pool was live before.")
        self.calls.append(
            ("rollback", {"service": service, "actor": actor, "force": force, "wait": wait, "reason": reason})
        )
        return self._moved(service, previous, wait)

    @staticmethod
    def _other(pool: str) -> str:
        return "green" if pool == "blue" else "blue"

    def _moved(self, name: str, to: str, wait: str) -> SwitchResult:
        service = self.services[name]
        drained = None
        if service.live != to:
            service.live, service.previous = to, service.live
            self._bump(name)
            self.events.add("switched", name, f"{name}: {to} is live")
        if wait == "drained":
            zero = {"requests": 0, "streams": 0, "websockets": 0}
            drained = {**zero, "requests": 3, "cut": zero, "seconds": 0.5, "complete": True}
        return SwitchResult(name, to, service.previous, service.generation, 0.7, drained)

    async def set_pool(
        self,
        service: str,
        pool: str,
        *,
        version: str | None,
        upstreams: list[str] | None,
        actor: Actor,
        if_match: int | None = None,
    ) -> dict[str, Any]:
        self.calls.append(("set_pool", {"pool": pool, "version": version, "upstreams": upstreams, "actor": actor}))
        found = self._service(service)
        if version is not None:
            found.versions[pool] = version
        if upstreams is not None:
            found.upstreams[pool] = upstreams
        self._bump(service)
        return self.service_status(service)

    async def set_upstream_state(
        self, service: str, pool: str, upstream: str, state: str, *, actor: Actor
    ) -> dict[str, Any]:
        self.calls.append(("set_upstream_state", {"pool": pool, "upstream": upstream, "state": state, "actor": actor}))
        found = self._service(service)
        self._bump(service)
        word = {"ready": "checking", "drain": "draining", "maint": "maint"}[state]
        for url in found.upstreams[pool]:
            if upstream in (url, url.removeprefix("http://")):
                found.states[url] = word
                return self.service_status(service)
        raise NotFound(f"{service}: {pool} has no upstream {upstream!r}.")

    async def deploy(
        self,
        service: str,
        *,
        actor: Actor,
        version: str | None = None,
        upstreams: Sequence[str] | None = None,
        strategy: str | None = None,
        reason: str = "",
        key: str = "",
    ) -> dict[str, Any]:
        said = {"version": version, "upstreams": upstreams, "strategy": strategy, "reason": reason}
        self.calls.append(("deploy", {"service": service, "actor": actor, **said}))
        self._service(service)
        if self.raises is not None:
            raise self.raises
        running = self.deployments.running(service)
        if running is not None:
            raise Busy(f"{service}: deployment {running['id']} is {running['state']}; one at a time.")
        urls = None if upstreams is None else list(upstreams)
        begun = self.deployments.add(
            service, version=version or "", upstreams=urls, strategy=strategy or "all-at-once", reason=reason
        )
        self.deployments.keys[service, actor.name, key] = begun["id"]
        return begun

    async def reload(self, *, actor: Actor) -> dict[str, Any]:
        self.calls.append(("reload", {"actor": actor}))
        if self.raises is not None:
            raise self.raises
        return {"generation": self.last, "added": [], "removed": [], "changed": ["shop"]}

    def busy(self) -> None:
        """Refuse the next change as busy."""
        self.raises = Busy("shop: another change is running.")
