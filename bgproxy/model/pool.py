"""The two pools of a service: their names, and the states that an operator sees."""

from __future__ import annotations

from enum import Enum
from typing import Final

from bgproxy.model.machine import Table

#: Index 0 is blue and 1 is green, in snapshots, cells and words alike.
POOLS: Final = ("blue", "green")


def index_of(name: str) -> int:
    """0 for blue, 1 for green; raises `ValueError` for anything else."""
    return POOLS.index(name)


class PoolState(Enum):
    """What a pool is for at this moment."""

    LIVE = "live"  # new requests go to it
    STANDBY = "standby"  # not live, nothing left from when it was, fit to be live
    DRAINING = "draining"  # was live; what began on it is still ending
    IDLE = "idle"  # not live and not fit: no upstreams, or too few of them up


class PoolEvent(Enum):
    """What moves a pool from state to state."""

    SWITCHED_TO = "switched to"
    SWITCHED_AWAY = "switched away"
    DRAINED_FIT = "drained, healthy"
    DRAINED_UNFIT = "drained, not healthy"
    BECAME_FIT = "became healthy"
    BECAME_UNFIT = "became unhealthy"


POOL_TABLE: Final = Table(
    "pool",
    PoolState.IDLE,
    {
        (PoolState.IDLE, PoolEvent.BECAME_FIT): PoolState.STANDBY,
        (PoolState.IDLE, PoolEvent.SWITCHED_TO): PoolState.LIVE,  # forced
        (PoolState.STANDBY, PoolEvent.BECAME_UNFIT): PoolState.IDLE,
        (PoolState.STANDBY, PoolEvent.SWITCHED_TO): PoolState.LIVE,
        (PoolState.LIVE, PoolEvent.SWITCHED_AWAY): PoolState.DRAINING,
        (PoolState.DRAINING, PoolEvent.SWITCHED_TO): PoolState.LIVE,  # rolled back in the middle of the drain
        (PoolState.DRAINING, PoolEvent.DRAINED_FIT): PoolState.STANDBY,
        (PoolState.DRAINING, PoolEvent.DRAINED_UNFIT): PoolState.IDLE,
    },
)
