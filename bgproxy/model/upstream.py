"""One server of a pool: its states, and which of them may be sent requests."""

from __future__ import annotations

from enum import Enum
from typing import Final

from bgproxy.model.machine import Table


class UpstreamState(Enum):
    """An operator's words for what an upstream is good for."""

    CHECKING = "checking"  # new: not checked `rise` times yet
    UP = "up"
    DOWN = "down"
    DRAINING = "draining"  # by hand: ends what it has, gets nothing new; still checked
    MAINT = "maint"  # by hand: as draining, and not checked


class UpstreamEvent(Enum):
    """What moves an upstream from state to state."""

    ROSE = "rose"  # `rise` good checks in a row
    FELL = "fell"  # `fall` bad checks in a row
    DRAIN = "drain"
    MAINT = "maint"
    READY = "ready"  # back from drain or maint: checked anew


_S, _E = UpstreamState, UpstreamEvent

UPSTREAM_TABLE: Final = Table(
    "upstream",
    _S.CHECKING,
    {
        (_S.CHECKING, _E.ROSE): _S.UP,
        (_S.CHECKING, _E.FELL): _S.DOWN,
        (_S.UP, _E.FELL): _S.DOWN,
        (_S.DOWN, _E.ROSE): _S.UP,
        **{(state, _E.DRAIN): _S.DRAINING for state in _S},
        **{(state, _E.MAINT): _S.MAINT for state in _S},
        (_S.DRAINING, _E.READY): _S.CHECKING,
        (_S.MAINT, _E.READY): _S.CHECKING,
    },
)
