"""POST /v1/reload: a new configuration, whole or not at all."""

from __future__ import annotations

from bgproxy.admin.endpoint import Call, Operation, Reply, endpoint
from bgproxy.admin.schemas import COUNT, STRING, listing, record
from bgproxy.admin.switches import REASON


@endpoint(
    Operation(
        method="POST",
        path="/v1/reload",
        name="reload",
        summary="Read the configuration file again",
        about="Whole or not at all: with one mistake in it, nothing changes, and all mistakes are listed.",
        role="admin",
        answer=record(
            generation=COUNT,
            **dict.fromkeys(("added", "removed", "changed"), listing(STRING | {"description": "service"})),
        ),
        body=(REASON,),
        tagged=True,
        slugs=("config", "busy", "refused", "stale", "unavailable", "state-not-written"),
    )
)
async def reload(call: Call) -> Reply:
    """Reload; the answer names the services that were added, removed and changed."""
    call.if_match(call.controller.status()["generation"])
    outcome = await call.controller.reload(actor=call.actor)
    return Reply(outcome, outcome["generation"])


ENDPOINTS = (reload,)
