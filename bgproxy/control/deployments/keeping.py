"""Which deployments the state file keeps: those under way, and the latest that have ended. The archive keeps more, and longer."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from bgproxy.control.state import State
from bgproxy.model.deployment import DeploymentRecord

#: Ended deployments that are kept: of a service, and in all. Each can take tens of KiB, of a file that every change writes.
KEPT_OF_A_SERVICE: Final = 10
KEPT: Final = 30


def kept(state: State, record: DeploymentRecord) -> State:
    """The state with this deployment as it is now, and without the oldest ended ones."""
    records = {**state.deployments, record.id: record}
    ended = sorted((known for known in records.values() if not known.running), key=lambda known: known.id)
    same = [known for known in ended if known.service == record.service]
    for known in (*same[: max(len(same) - KEPT_OF_A_SERVICE, 0)], *ended[: max(len(ended) - KEPT, 0)]):
        records.pop(known.id, None)
    return replace(state, deployments=records)
