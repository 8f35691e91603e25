"""The switch: all new requests of one or more services to another pool, in one instant, or not at all.

    prepare   the workers know the target as it will be, and have acknowledged it; connections to it are opened ahead
    record    the new state is on the disk
    commit    one store to the switchboard, which moves every worker
    drain     what began on the old pool ends by itself, or at its deadline

Until the commit nothing has happened that anybody outside could notice, and whatever fails leaves everything as it was.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from bgproxy.control.actor import Actor, deployer
from bgproxy.control.deployments.spoilt import as_left_by, spoilt_by
from bgproxy.control.draining import Drain, Drained, Drains
from bgproxy.control.events import Draft, EventLog
from bgproxy.control.ledger import Ledger
from bgproxy.control.links import Links
from bgproxy.control.publishing import Publisher
from bgproxy.control.registry import Registry, Service
from bgproxy.control.state import State
from bgproxy.control.tallies import Tallies
from bgproxy.control.tasks import Tasks
from bgproxy.errors import BgproxyError, Busy, Invalid, NotHealthy, Refused, Stale
from bgproxy.model.pool import POOLS, PoolEvent, index_of
from bgproxy.switchboard.board import Switchboard

WAITS: Final = ("switched", "drained")

#: Seconds that a switch waits for connections that are opened ahead.
WARM_WITHIN: Final = 0.025

Kind = Literal["switched", "rolled_back"]
_WORDS: Final[Mapping[Kind, str]] = {"switched": "switched", "rolled_back": "rolled back"}

log = logging.getLogger("bgproxy.controller")


@dataclass(frozen=True, slots=True)
class SwitchResult:
    """What a switch or a rollback did to one service."""

    service: str
    live: str
    previous: str | None
    generation: int
    switched_in_ms: float  # from the request to the commit; 0 when it was live already
    drained: dict[str, Any] | None  # only when the drain was waited for

    def to_json(self) -> dict[str, Any]:
        """As the API answers it."""
        return {
            "service": self.service,
            "live": self.live,
            "previous": self.previous,
            "generation": self.generation,
            "switched_in_ms": self.switched_in_ms,
            "drained": self.drained,
        }


@dataclass(frozen=True, slots=True)
class _Order:
    """What was asked for."""

    kind: Kind
    actor: Actor
    force: bool
    reason: str
    began: float
    enough: float = 100.0  # per cent of the upstreams that must be up for a switch


#: The answer, and the end of the drain of the old pool, if it drains.
_Done = tuple[SwitchResult, asyncio.Future[Drained] | None]


class Switcher:
    """Switches and rolls back."""

    def __init__(
        self,
        *,
        registry: Registry,
        board: Switchboard,
        links: Links,
        publisher: Publisher,
        drains: Drains,
        ledger: Ledger,
        events: EventLog,
        tallies: Tallies,
        tasks: Tasks,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._board = board
        self._links = links
        self._publisher = publisher
        self._drains = drains
        self._ledger = ledger
        self._events = events
        self._tallies = tallies
        self._tasks = tasks
        self._now = now
        #: Told of each service whose traffic was moved, by whom, and why.
        self.moved: Callable[[Service, Actor, str], None] = lambda _service, _actor, _reason: None

    # --- what is asked for ------------------------------------------------------------------------------------------

    async def switch(
        self,
        targets: Mapping[str, str | None],
        *,
        actor: Actor,
        force: bool = False,
        wait: str = "switched",
        reason: str = "",
        if_match: int | None = None,
        enough: float = 100.0,
    ) -> list[SwitchResult]:
        """Make these pools live, None being the idle one; all of them or none. What is live already stays, and that is fine.

        `enough` is the share of a pool's upstreams that must be up, in per cent.

        Raises:
            NotFound, Invalid: there is no such service or pool.
            Busy, Stale, NotHealthy, Refused: it cannot be done as things stand.
            Unavailable, StateError: a worker or the disk did not do its part.
        """
        if not targets:
            raise Invalid("services: name at least one.")
        chosen = [(self._registry.find(name), to) for name, to in targets.items()]
        moves = {service: _target(service, to) for service, to in chosen}
        order = _Order("switched", actor, force, reason, self._now(), enough)
        return await self._move(moves, order, wait, if_match)

    async def rollback(
        self,
        name: str,
        *,
        actor: Actor,
        force: bool = False,
        wait: str = "switched",
        reason: str = "",
        if_match: int | None = None,
    ) -> SwitchResult:
        """Make the pool live that was so before; raises as `switch` does. Refused, unless by `force`, where a deployment has failed there since.

        While a deployment has not made its pool live, that would be the way forward: then the share of the clients that it
        has moved comes back, and where it has moved none, it is refused.
        """
        service = self._registry.find(name)
        order = _Order("rolled_back", actor, force, reason, self._now())
        if service.unproven is not None:
            return await self._take_back(service, order, wait, if_match)
        if service.previous is None:
            self._tallies.changed(name, "refused")
            raise Refused(
                f"{name}: there is nothing to roll back to, {POOLS[service.live]} has been live from the start."
            )
        if not force and actor != deployer(service.deployment or 0):
            self._check_spoilt(service, service.previous)
        (result,) = await self._move({service: service.previous}, order, wait, if_match)
        return result

    async def split(self, service: Service, share: int, *, actor: Actor, enough: float = 100.0) -> None:
        """Have so many per cent (0 to 100) of the clients go to the pool that is not live, once all workers know that as it is.

        Not on the disk: a start makes traffic whole again.

        Raises:
            Busy, NotHealthy: it cannot be done as things stand.
            Unavailable: a worker did not answer.
        """
        self._registry.claim([service], f"a share of {share}%")
        to = 1 - service.live
        before = self.share(service)
        try:
            if share:
                self._check({service: to}, _Order("switched", actor, False, "", self._now(), enough))
                service.coming = to
                self._publisher.touch(service.name)
                self._publisher.publish()
                await self._links.warmed(await self._links.acknowledged(then_warm=((service.name, to),)), WARM_WITHIN)
            if share and not before:
                self._drain_no_more(service, to)
            self._board.split(service.slot, share)
            if before and not share:
                # To those clients it is a switch: what they have begun there has as long as it has after one.
                service.pools[to].step(PoolEvent.SWITCHED_TO)
                service.pools[to].step(PoolEvent.SWITCHED_AWAY)
                self._drains.begin(service, to, self._now())
        finally:
            service.coming = None
            self._publisher.touch(service.name)
            self._registry.release([service])
        fields = {"service": service.name, "pool": POOLS[to], "share": share, "by": actor.name}
        log.info("split", extra={"fields": fields})

    def share(self, service: Service) -> int:
        """What share of the clients the pool that is not live gets; per cent."""
        return self._board.share(service.slot)

    def _drain_no_more(self, service: Service, pool: int) -> None:
        """A pool that drains gets clients again: nothing of it is to be ended."""
        if self._drains.of(service.name, pool) is not None:
            self._drains.cancel(service.name, pool)
            fit = service.pools[pool].healthy
            service.pools[pool].step(PoolEvent.DRAINED_FIT if fit else PoolEvent.DRAINED_UNFIT)

    async def _take_back(self, service: Service, order: _Order, wait: str, if_match: int | None) -> SwitchResult:
        """All the traffic to the pool that is live, by hand; the deployment that has moved a share of it is over."""
        try:
            _check_wait(wait)
            _check_match(service, if_match)
            if not self.share(service):
                raise Busy(
                    f"{service.name}: deployment {service.deployment} is under way, and {POOLS[1 - service.live]} is not live yet; "
                    f"{POOLS[service.live]} is, and has all the traffic. bgproxy abort {service.deployment} ends the deployment."
                )
            await self.split(service, 0, actor=order.actor)
        except BgproxyError as error:
            self._tallies.changed(service.name, "refused" if isinstance(error, Refused) else "failed")
            raise
        took = self._now() - order.began
        self._tallies.changed(service.name, order.kind, took)
        self.moved(service, order.actor, order.reason)
        return await _waited(self._done(service, took), wait)

    async def _move(
        self, moves: dict[Service, int], order: _Order, wait: str, if_match: int | None
    ) -> list[SwitchResult]:
        _check_wait(wait)
        try:
            # From here to the claim without an await: what is checked is what will be changed.
            for service in moves:
                _check_match(service, if_match)
            changes = {service: to for service, to in moves.items() if to != service.live}
            self._check_deployments(changes, order)
            self._check(changes, order)
            done = {service: self._done(service, None) for service in moves if service not in changes}
            if changes:
                self._registry.claim(changes, f"a change to {POOLS[next(iter(changes.values()))]}")
                name = f"{order.kind}: {', '.join(service.name for service in changes)}"
                done |= await self._tasks.whole(self._change(changes, order), name)
        except BgproxyError as error:
            for service in moves:
                self._tallies.changed(service.name, "refused" if isinstance(error, Refused) else "failed")
            raise
        return [await _waited(done[service], wait) for service in moves]

    def _done(self, service: Service, took: float | None) -> _Done:
        """How things stand now that it is done; `took` is None where nothing was to be done."""
        milliseconds = 0.0 if took is None else max(round(took * 1000, 3), 0.001)
        previous = None if service.previous is None else POOLS[service.previous]
        live = POOLS[service.live]
        result = SwitchResult(service.name, live, previous, service.generation, milliseconds, None)
        return result, self._drains.ending(service.name, 1 - service.live)

    def _check_spoilt(self, service: Service, to: int) -> None:
        """Raise `Refused` where the pool is not any more what was live before."""
        record = spoilt_by(self._ledger.state, service.name, POOLS[to])
        if record is not None:
            self._tallies.changed(service.name, "refused")
            raise Refused(
                f"{service.name}: {POOLS[to]} is {as_left_by(record)}. To go there all the same: bgproxy switch, or rollback --force."
            )

    # --- whether it may be ------------------------------------------------------------------------------------------

    @staticmethod
    def _check_deployments(changes: Mapping[Service, int], order: _Order) -> None:
        """A deployment that is under way is not switched past: it is aborted, or rolled back (see `rollback`)."""
        for service in changes:
            number = service.deployment
            if number is None or order.force or order.kind == "rolled_back" or order.actor == deployer(number):
                continue
            raise Busy(
                f"{service.name}: deployment {number} is under way; abort it first (bgproxy abort {number}), "
                "or let it do the switch."
            )

    @staticmethod
    def _check(changes: Mapping[Service, int], order: _Order) -> None:
        """Raise what speaks against it, of all services at once."""
        unfit: list[str] = []
        details: list[str] = []
        for service, to in changes.items():
            pool = service.pools[to]
            if not pool.upstreams:
                raise Refused(f"{service.name}: {pool.name} has no upstreams, so it cannot be live.", pool.troubles())
            fit = pool.has_one_up if order.kind == "rolled_back" else pool.is_fit(order.enough)
            if not fit and not order.force:
                unfit.append(f"{service.name}: {pool.name} is not healthy")
                troubles = pool.troubles() or ["every upstream was taken out by hand"]
                details += [f"{service.name}: {line}" for line in troubles] if len(changes) > 1 else troubles
        if unfit:
            raise NotHealthy(f"{'; '.join(unfit)}.", details)

    # --- doing it ---------------------------------------------------------------------------------------------------

    async def _change(self, changes: dict[Service, int], order: _Order) -> dict[Service, _Done]:
        """Prepare, record, commit. The services were claimed before, and are released here."""
        try:
            for service, to in changes.items():
                service.coming = to
            self._publisher.touch(*(service.name for service in changes))
            self._publisher.publish()
            pools = tuple((service.name, to) for service, to in changes.items())
            await self._links.warmed(await self._links.acknowledged(then_warm=pools), WARM_WITHIN)
            self._check(changes, order)  # once more: that may have taken a while
            return await self._ledger.change(
                lambda state: self._next(state, changes, order), lambda state: self._commit(state, changes, order)
            )
        finally:
            for service in changes:
                service.coming = None
            self._publisher.touch(*(service.name for service in changes))
            self._registry.release(changes)

    @staticmethod
    def _next(state: State, changes: Mapping[Service, int], order: _Order) -> tuple[State, Sequence[Draft]]:
        generation = state.generation + 1
        services = dict(state.services)
        drafts = []
        at = time.time()
        for service, to in changes.items():
            record = services[service.name]
            services[service.name] = replace(
                record, live=to, previous=record.live, generation=generation, switched_at=at
            )
            drafts.append(_draft(service, record.live, to, generation, order))
        return replace(state, generation=generation, services=services), drafts

    def _commit(self, state: State, changes: Mapping[Service, int], order: _Order) -> dict[Service, _Done]:
        """The disk has it: move the workers. Nothing here waits."""
        moment = self._now()
        self._board.commit({service.slot: to for service, to in changes.items()}, moment)
        took = moment - order.began
        self._registry.generation = state.generation
        for service, to in changes.items():
            old = service.live
            service.live, service.previous, service.coming = to, old, None
            service.generation = state.generation
            service.switched_at = state.services[service.name].switched_at
            service.pools[to].step(PoolEvent.SWITCHED_TO)
            service.pools[old].step(PoolEvent.SWITCHED_AWAY)
            self._drains.cancel(service.name, to)
            self._drains.begin(service, old, moment)
            self._tallies.changed(service.name, order.kind, took)
            fields = {"service": service.name, "live": POOLS[to], "by": order.actor.name, "ms": round(took * 1000, 1)}
            log.info("%s", _WORDS[order.kind], extra={"fields": fields})
            self.moved(service, order.actor, order.reason)
        return {service: self._done(service, took) for service in changes}

    # --- the end of a drain -----------------------------------------------------------------------------------------

    def drain_ended(self, drain: Drain, drained: Drained) -> None:
        """The old pool is empty, or every deadline has passed."""
        service, pool = drain.service, drain.service.pools[drain.pool]
        pool.step(PoolEvent.DRAINED_FIT if pool.healthy else PoolEvent.DRAINED_UNFIT)
        self._tallies.drained(service.name, drained.seconds)
        cut = sum(drained.cut)
        message = (
            f"{service.name}: {pool.name} is drained after {drained.seconds:.1f}s{f', {cut} were cut' if cut else ''}."
        )
        if not drained.complete:
            message = f"{service.name}: the drain of {pool.name} was given up after {drained.seconds:.1f}s: not all of it ended."
        log.info("drained", extra={"fields": {"service": service.name, "pool": pool.name, **drained.to_json()}})
        self._events.emit(
            Draft(type="drained", message=message, service=service.name, pool=pool.name, data=drained.to_json())
        )


def _check_wait(wait: str) -> None:
    if wait not in WAITS:
        raise Invalid(f"wait: {wait!r} is not allowed; it is {' or '.join(WAITS)}.")


def _check_match(service: Service, if_match: int | None) -> None:
    if if_match is not None and service.generation != if_match:
        raise Stale(
            f"{service.name}: the generation is {service.generation}, not {if_match}: "
            "someone changed something since; look again."
        )


async def _waited(done: _Done, wait: str) -> SwitchResult:
    """The answer, behind the drain if that is waited for."""
    result, ending = done
    if wait == "drained" and ending is not None:
        return replace(result, drained=(await asyncio.shield(ending)).to_json())
    return result


def _target(service: Service, to: str | None) -> int:
    if to is None:
        return 1 - service.live
    if to not in POOLS:
        raise Invalid(f"{service.name}: there is no pool {to!r}; it is {' or '.join(POOLS)}.")
    return index_of(to)


def _draft(service: Service, old: int, to: int, generation: int, order: _Order) -> Draft:
    return Draft(
        type=order.kind,
        message=f"{service.name}: {_WORDS[order.kind]} from {POOLS[old]} to {POOLS[to]}{' by force' if order.force else ''}.",
        service=service.name,
        pool=POOLS[to],
        actor=order.actor,
        reason=order.reason,
        data={"from": POOLS[old], "to": POOLS[to], "generation": generation, "force": order.force},
    )
