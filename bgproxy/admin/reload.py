"""POST /v1/reload: a new configuration, whole or not at all."""

from __future__ import annotations

from bgproxy.admin.endpoint import Call, Operation, Reply, endpoint
from bgproxy.admin.switches import REASON


@endpoint(
    Operation(
        method="POST",
        path="/v1/reload",
        name="reload",
        summary="Read the configuration file again",
        about="Whole or not at all: with one mistake in it, nothing changes, and all mistakes are listed.",
        role="admin",
        answer={"type": "object"},
        body=(REASON,),
        slugs=("config", "busy", "refused", "stale", "unavailable", "state-not-written"),
    )
)
async def reload(call: Call) -> Reply:
    """Reload."""
    call.if_match(call.controller.status()["generation"])
    return Reply(await call.controller.reload(actor=call.actor))


ENDPOINTS = (reload,)
