"""What an operator sees: the status of the whole and of each service, and whether all of it is ready."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from bgproxy import __version__
from bgproxy.config.schema import Config, Deployment
from bgproxy.control.certificates import Certificates
from bgproxy.control.clock import rfc3339
from bgproxy.control.counters import Counters
from bgproxy.control.draining import Drains, by_class
from bgproxy.control.links import Links
from bgproxy.control.places import address_text
from bgproxy.control.registry import Pool, Registry, Service, Upstream
from bgproxy.model.build import build_kind
from bgproxy.model.deployment import DeploymentState
from bgproxy.model.pool import POOLS


class Census:
    """What the supervisor says of its children; see `bgproxy.switchboard.wiring`."""

    def __init__(self, children: dict[str, Any]) -> None:
        self.controller_restarts = 0
        self.pids: dict[int, int | None] = {}
        self.restarts: dict[int, int] = {}
        self.update(children)

    def update(self, children: dict[str, Any]) -> None:
        """There is news."""
        controller = children.get("controller")
        if isinstance(controller, dict):
            self.controller_restarts = int(controller.get("restarts", 0))
        for worker in children.get("workers", ()):
            self.pids[worker["index"]] = worker["pid"]
            self.restarts[worker["index"]] = worker["restarts"]


class Status:
    """Makes the JSON of the API out of what the parts of the controller know.

    `share(slot)` is the share of a service's clients, in per cent, that go to the pool that is not live; `deployment(service)` the
    deployment that is under way, as `Deployments.describe` has it, `last_deployment(service)` the latest that has ended.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        links: Links,
        drains: Drains,
        counters: Counters,
        census: Census,
        certificates: Certificates,
        started_at: float,
        share: Callable[[int], int],
        deployment: Callable[[str], dict[str, Any] | None],
        last_deployment: Callable[[str], dict[str, Any] | None] = lambda _: None,
    ) -> None:
        self._registry = registry
        self._links = links
        self._drains = drains
        self._counters = counters
        self._census = census
        self._certificates = certificates
        self._started_at = started_at
        self._share = share
        self._deployment = deployment
        self._last_deployment = last_deployment

    def program(self, config: Config) -> dict[str, Any]:
        """The whole."""
        return {
            "program": "bgproxy",
            "version": __version__,
            "build": build_kind(),
            "started_at": rfc3339(self._started_at),
            "generation": self._registry.generation,
            "workers": [self._worker(index) for index in range(self._links.workers)],
            "controller": {"pid": os.getpid(), "restarts": self._census.controller_restarts},
            "listeners": [str(listen) for listen in config.listen],
            "certificates": self._certificates.status(),
            "services": [self.service(service) for service in self._registry.services.values()],
        }

    def _worker(self, index: int) -> dict[str, Any]:
        state = self._links.state(index)
        return {
            "index": index,
            "pid": self._census.pids.get(index, self._links.pid(index)),
            "state": state,
            "connections": self._counters.connections(index),
            "restarts": self._census.restarts.get(index, 0),
        }

    def service(self, service: Service) -> dict[str, Any]:
        """One service."""
        settings = service.settings
        return {
            "service": service.name,
            "generation": service.generation,
            "live": POOLS[service.live],
            "previous": None if service.previous is None else POOLS[service.previous],
            "switched_at": None if service.switched_at is None else rfc3339(service.switched_at),
            "mode": "tcp" if service.tcp else "http",
            "match": {"hosts": list(settings.match.hosts), "path": settings.match.path},
            "sessions": {"mode": settings.sessions.mode, "on_switch": settings.sessions.on_switch},
            "pools": {pool.name: self._pool(service, index, pool) for index, pool in enumerate(service.pools)},
            "share": self._share(service.slot),
            "deploys": {"strategy": settings.deployment.strategy.type, "stages": planned(settings.deployment)},
            "deployment": _brief(self._deployment(service.name)),
            "last_deployment": _ended(self._last_deployment(service.name)),
        }

    def _pool(self, service: Service, index: int, pool: Pool) -> dict[str, Any]:
        drain = self._drains.of(service.name, index)
        return {
            "state": pool.state.value,
            "version": pool.version,
            "healthy": pool.healthy,
            "in_flight": by_class(self._counters.in_flight(service.slot, index)),
            "sessions": self._counters.sessions(service.slot, index),
            "requests": self._counters.pool(service.name, pool.name).requests,
            "upstreams": [self._upstream(pool, upstream) for upstream in pool.upstreams],
            "unresolved": [{"url": url, "reason": reason} for url, reason in pool.unresolved],
            "drain": drain.status() if drain is not None else None,
        }

    def _upstream(self, pool: Pool, upstream: Upstream) -> dict[str, Any]:
        reason = "" if upstream.is_up else upstream.reason
        seconds = upstream.check_seconds
        return {
            "id": upstream.id,
            "url": upstream.url,
            "address": address_text(upstream.address),
            "state": upstream.state.value,
            "ejected": upstream.ejected,
            "reason": reason or pool.name_troubles.get(upstream.url, ""),
            "since": rfc3339(upstream.since),
            "in_flight": self._counters.upstream_in_flight(upstream.slot),
            "connections": self._counters.upstream_connections(upstream.slot),
            "check_ms": None if seconds is None else round(seconds * 1000, 3),
        }

    def ready(self) -> tuple[bool, list[str]]:
        """Whether every worker serves and every live pool has an upstream up; if not, why."""
        reasons = [
            f"worker {index} is {state}"
            for index in range(self._links.workers)
            if (state := self._links.state(index)) != "serving"
        ]
        for service in self._registry.services.values():
            pool = service.pools[service.live]
            if not pool.has_one_up:
                troubles = "; ".join(pool.troubles()[:3]) or "it has none, or they were taken out by hand"
                reasons.append(f"{service.name}: no upstream of {pool.name}, which is live, is up: {troubles}")
        return not reasons, reasons


def planned(settings: Deployment) -> list[str]:
    """The stages that a deployment goes through by these settings: values of `DeploymentState`."""
    state = DeploymentState
    stages = (
        (state.PROVISIONING, settings.provision is not None),
        (state.VERIFYING, settings.verify is not None),
        (state.COMPARING, settings.compare is not None),
        (state.WARMING, settings.warm is not None),
        (state.AWAITING_APPROVAL, settings.approve.mode == "manual"),
        (state.SWITCHING, True),
        (state.BAKING, settings.bake is not None),
        (state.DRAINING, True),
        (state.RETIRING, settings.retire is not None),
    )
    return [stage.value for stage, configured in stages if configured]


def _ended(deployment: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the status says of one that has ended."""
    names = ("id", "state", "target", "version", "ended_at", "outcome")
    return None if deployment is None else {name: deployment[name] for name in names}


def _brief(deployment: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the status says of a deployment; all of it has a call of its own."""
    if deployment is None:
        return None
    progress = deployment["progress"] or {"text": "", "share": None}
    return {
        **{name: deployment[name] for name in ("id", "state", "target", "version", "waits")},
        "text": progress["text"],
        "share": progress["share"],
    }
