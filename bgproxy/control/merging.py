"""The file and the state together: what a configuration means for services that may have been changed at run time.

The state knows better who is live, and what a pool consists of, until the file itself changes that pool; then the file wins.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace

from bgproxy.config.schema import Config
from bgproxy.config.schema import Pool as PoolSettings
from bgproxy.config.schema import Service as Settings
from bgproxy.control.events import Draft
from bgproxy.control.places import base_id, base_id_of
from bgproxy.control.registry import Service
from bgproxy.control.state import PoolRecord, ServiceRecord, State, digest_of, from_file
from bgproxy.errors import Refused
from bgproxy.model.pool import POOLS, index_of

log = logging.getLogger("bgproxy.controller")


def pools_of(settings: Settings) -> tuple[PoolSettings, PoolSettings]:
    """Both pools of the file, blue first."""
    return settings.pools.blue, settings.pools.green


def merge(config: Config, state: State, touched: Iterable[str] = ()) -> tuple[State, list[Draft]]:
    """The state under this configuration, and events that say where the file won over what was changed at run time.

    `touched` are services that have changed in what the state does not hold: they get the new generation too. Services
    that are not in the file stay in the state, for when they come back.
    """
    generation = state.generation + 1
    services = dict(state.services)
    drafts: list[Draft] = []
    for name, settings in config.services.items():
        record = services.get(name)
        if record is None:
            blue, green = pools_of(settings)
            live = index_of(settings.live)
            services[name] = ServiceRecord(None, live, None, generation, None, (from_file(blue), from_file(green)))
            continue
        merged = [_pool(name, *both, drafts) for both in zip(pools_of(settings), record.pools, POOLS, strict=True)]
        pools = (merged[0], merged[1])
        if pools != record.pools or name in touched:
            services[name] = replace(record, pools=pools, generation=generation)
    for name, record in services.items():
        if name not in config.services and record.slot is not None:
            services[name] = replace(record, slot=None, generation=generation)
    changed = services != dict(state.services)
    return replace(state, generation=generation if changed else state.generation, services=services), drafts


def _pool(service: str, settings: PoolSettings, record: PoolRecord, pool: str, drafts: list[Draft]) -> PoolRecord:
    if digest_of(settings) == record.digest:
        return record
    known = pruned(record.by_hand, settings.upstreams)
    if (settings.version, settings.upstreams) != (record.version, record.upstreams):
        drafts.append(
            Draft(
                type="file_wins",
                message=f"{service}: {pool} is as the configuration file has it now, no longer as it was before.",
                service=service,
                pool=pool,
                data={
                    "before": {"version": record.version, "upstreams": list(record.upstreams)},
                    "now": {"version": settings.version, "upstreams": list(settings.upstreams)},
                },
            )
        )
    return from_file(settings, known)


def log_file_wins(drafts: Iterable[Draft]) -> None:
    """Say in the log where the file won."""
    for draft in drafts:
        if draft.type == "file_wins":
            fields = {"service": draft.service, "pool": draft.pool, **draft.data}
            log.warning("%s", draft.message, extra={"fields": fields})


def check_live_pools(config: Config, before: State, after: State) -> None:
    """Raise `Refused` where the file takes all upstreams away from a pool that is live, whatever the file thinks is live."""
    details = []
    for name in config.services:
        record = after.services[name]
        former = before.services.get(name)
        if former is not None and former.pools[record.live].upstreams and not record.pools[record.live].upstreams:
            details.append(f"{name}: {POOLS[record.live]} is live and would be left without upstreams")
    if details:
        raise Refused("The configuration takes the upstreams of a live pool away; switch first.", details)


def shared(state: State, services: Iterable[str]) -> list[str]:
    """A line for each of these services that has an upstream in both pools: the file is that of one, the other had it at run time."""
    lines = []
    for name in services:
        blue, green = (pool.upstreams for pool in state.services[name].pools)
        others = {base_id_of(url) for url in green}
        lines += [f"{name}: {url} is in blue and in green" for url in blue if base_id_of(url) in others]
    return lines


def check_apart(config: Config, before: State, after: State) -> None:
    """Raise `Refused` where the file gives a pool an upstream that the other one has got at run time: a switch would move nothing."""
    known = set(shared(before, (name for name in config.services if name in before.services)))
    details = [line for line in shared(after, config.services) if line not in known]
    if details:
        raise Refused(
            "The configuration gives a pool what the other one has at run time (by a deployment, or `pool set`); "
            "blue and green need servers of their own.",
            details,
        )


def with_slots(state: State, slots: Mapping[str, int]) -> State:
    """The state with these slots for services that had none."""
    services = {name: replace(record, slot=slots.get(name, record.slot)) for name, record in state.services.items()}
    return replace(state, services=services)


def pruned(by_hand: Mapping[str, str], urls: Iterable[str]) -> dict[str, str]:
    """What was said of upstreams by hand, without those that are no longer among `urls`."""
    urls = set(urls)
    bases = {base_id_of(url) for url in urls}
    return {key: word for key, word in by_hand.items() if key in urls or base_id(key) in bases}


def take_over(service: Service, record: ServiceRecord) -> bool:
    """Have a service as its record says; whether its upstreams have to be looked at again. Who is live is not touched."""
    service.generation = record.generation
    again = False
    for pool, pool_record in zip(service.pools, record.pools, strict=True):
        again |= pool.urls != pool_record.upstreams
        pool.version = pool_record.version
        pool.urls = pool_record.upstreams
        pool.by_hand = pool_record.by_hand
    return again
