"""Changes of what a pool is made of, and of what its upstreams are good for by hand."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from bgproxy.config.addresses import scheme_mistake
from bgproxy.control.actor import Actor, deployer
from bgproxy.control.events import Draft
from bgproxy.control.ledger import Ledger
from bgproxy.control.links import Links
from bgproxy.control.merging import pruned, take_over
from bgproxy.control.places import base_id_of, checked
from bgproxy.control.publishing import Publisher
from bgproxy.control.registry import Pool, Registry, Service
from bgproxy.control.state import PoolRecord, State
from bgproxy.control.tasks import Tasks
from bgproxy.control.watching import Watch
from bgproxy.errors import Busy, Invalid, NotFound, Refused, Stale, Unavailable
from bgproxy.model.pool import POOLS, index_of

log = logging.getLogger("bgproxy.controller")

#: What an operator may ask for, and the word that it is kept as.
WORDS: Final = {"ready": "", "drain": "draining", "maint": "maint"}

LONGEST_VERSION: Final = 128  # characters, as in the file


class Editor:
    """Edits pools."""

    def __init__(
        self, *, registry: Registry, links: Links, publisher: Publisher, ledger: Ledger, watch: Watch, tasks: Tasks
    ) -> None:
        self._registry = registry
        self._links = links
        self._publisher = publisher
        self._ledger = ledger
        self._watch = watch
        self._tasks = tasks

    async def set_pool(
        self,
        service_name: str,
        pool_name: str,
        *,
        version: str | None,
        upstreams: Sequence[str] | None,
        actor: Actor,
        if_match: int | None = None,
    ) -> None:
        """Set the version, the upstreams or both; None leaves as it is. Upstreams that stay keep their state.

        Raises:
            NotFound, Invalid: there is no such pool, or what it should be is not allowed.
            Busy, Stale, Refused: it cannot be done as things stand.
            Unavailable, StateError: a worker or the disk did not do its part.
        """
        service, index = self._find(service_name, pool_name)
        pool = service.pools[index]
        urls = self.check_pool(service, index, version, upstreams)
        label = pool.version if version is None else version
        if index == service.unproven and actor != deployer(service.deployment or 0):
            raise Busy(
                f"{service.name}: {pool.name} is being deployed to; abort deployment {service.deployment} first "
                f"(bgproxy abort {service.deployment})."
            )
        if if_match is not None and service.generation != if_match:
            raise Stale(f"{service.name}: the generation is {service.generation}, not {if_match}; look again.")
        if not urls and index == service.live and pool.urls:
            raise Refused(f"{service.name}: {pool.name} is live and cannot be left without upstreams; switch first.")
        room = self._registry.upstream_slots.free
        if len(set(urls) - set(pool.urls)) > room:
            raise Refused(f"{service.name}: there is room for {room} more upstreams only.")
        if (label, urls) == (pool.version, pool.urls):
            return
        draft = Draft(
            type="pool_changed",
            message=f"{service.name}: {pool.name} is now version {label or '(none)'} with {len(urls)} upstream{'' if len(urls) == 1 else 's'}.",
            service=service.name,
            pool=pool.name,
            actor=actor,
            data={"version": label, "upstreams": list(urls)},
        )

        def change(record: PoolRecord) -> PoolRecord:
            return replace(record, version=label, upstreams=urls, runtime=True, by_hand=pruned(record.by_hand, urls))

        await self._edit(service, index, draft, change)

    @staticmethod
    def check_pool(
        service: Service, index: int, version: str | None, upstreams: Sequence[str] | None
    ) -> tuple[str, ...]:
        """The upstreams that the pool would have; raises `Invalid` where it is not allowed to be so."""
        urls = service.pools[index].urls if upstreams is None else checked(upstreams)
        for url in urls if upstreams is not None else ():
            wrong = scheme_mistake(url, tcp=service.tcp)
            if wrong is not None:
                raise Invalid(f"upstreams: {wrong}")
        if version is not None and (len(version) > LONGEST_VERSION or not version.isprintable()):
            raise Invalid(f"version: it must be one line of at most {LONGEST_VERSION} characters.")
        _check_apart(service, index, urls)
        return urls

    async def set_upstream_state(
        self, service_name: str, pool_name: str, upstream: str, state: str, *, actor: Actor
    ) -> None:
        """Take an upstream out (`drain`, `maint`) or back (`ready`): one by its id, or all of a URL. Raises as `set_pool`."""
        service, index = self._find(service_name, pool_name)
        pool = service.pools[index]
        if state not in WORDS:
            raise Invalid(f"state: {state!r} is not allowed; it is {', '.join(WORDS)}.")
        by_hand = _said(pool, service.name, upstream, WORDS[state])
        if by_hand == dict(pool.by_hand):
            return
        draft = Draft(
            type="upstream_state",
            message=f"{service.name}: {upstream} of {pool.name} is set to {state}.",
            service=service.name,
            pool=pool.name,
            upstream=upstream,
            actor=actor,
            data={"state": state},
        )
        await self._edit(service, index, draft, lambda record: replace(record, by_hand=by_hand))

    def _find(self, service_name: str, pool_name: str) -> tuple[Service, int]:
        service = self._registry.find(service_name)
        if pool_name not in POOLS:
            raise NotFound(f"{service_name}: there is no pool {pool_name!r}; a service has {' and '.join(POOLS)}.")
        return service, index_of(pool_name)

    async def _edit(
        self, service: Service, index: int, draft: Draft, change: Callable[[PoolRecord], PoolRecord]
    ) -> None:
        self._registry.claim([service], f"a change of {POOLS[index]}")
        await self._tasks.whole(self._do(service, index, draft, change), name=f"edit {service.name}")

    async def _do(self, service: Service, index: int, draft: Draft, change: Callable[[PoolRecord], PoolRecord]) -> None:
        try:
            self._publisher.publish()
            await self._links.acknowledged()
            await self._ledger.change(
                lambda state: self._next(state, service, index, draft, change), lambda state: self._put(service, state)
            )
        finally:
            self._registry.release([service])
        self._publisher.publish()
        try:
            await self._links.acknowledged()
        except Unavailable as error:
            log.warning("%s: changed, but not every worker has it yet: %s", service.name, error)

    @staticmethod
    def _next(
        state: State, service: Service, index: int, draft: Draft, change: Callable[[PoolRecord], PoolRecord]
    ) -> tuple[State, Sequence[Draft]]:
        generation = state.generation + 1
        record = state.services[service.name]
        blue, green = (change(pool) if at == index else pool for at, pool in enumerate(record.pools))
        record = replace(record, pools=(blue, green), generation=generation)
        draft = replace(draft, data={**draft.data, "generation": generation})
        return replace(state, generation=generation, services={**state.services, service.name: record}), [draft]

    def _put(self, service: Service, state: State) -> None:
        self._registry.generation = state.generation
        if take_over(service, state.services[service.name]):
            self._watch.follow(service)
        for pool in service.pools:
            self._watch.obey(service, pool)


def _check_apart(service: Service, index: int, urls: Sequence[str]) -> None:
    """Raise `Invalid` for an upstream that the other pool has too: a switch would then move nothing."""
    other = service.pools[1 - index]
    taken = {base_id_of(url) for url in other.urls}
    for url in urls:
        if base_id_of(url) in taken:
            raise Invalid(f"upstreams: {url} is in {other.name} too; blue and green need servers of their own.")


def _said(pool: Pool, service: str, named: str, word: str) -> dict[str, str]:
    """What is said of the pool's upstreams once `named` (an id or a URL) is in the state `word`, "" for ready."""
    found = pool.find(named)
    if not found and named not in pool.urls:
        known = ", ".join(upstream.id for upstream in pool.upstreams[:20]) or "none"
        raise NotFound(f"{service}: {pool.name} has no upstream {named!r}; it has: {known}.")
    by_hand = dict(pool.by_hand)
    whole = {upstream.url for upstream in found if upstream.id != named} or ({named} & set(pool.urls))
    for url in whole:
        for upstream in found:
            by_hand.pop(upstream.id, None)
        by_hand[url] = word
    for upstream in found:
        if upstream.id == named and upstream.url not in whole:
            # What was said of its URL goes on to hold for the other addresses of that, each by itself.
            former = by_hand.pop(upstream.url, "")
            by_hand |= {other.id: former for other in pool.upstreams if former and other.url == upstream.url}
            by_hand[named] = word
    return {name: kept for name, kept in by_hand.items() if kept}
