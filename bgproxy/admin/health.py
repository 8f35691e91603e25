"""GET /healthz and /readyz: for those who ask every second whether to send us traffic, or to restart us. Both public."""

from __future__ import annotations

from bgproxy.admin.endpoint import Call, Operation, Reply, endpoint
from bgproxy.admin.schemas import FLAG, STRING, listing, record


@endpoint(
    Operation(
        method="GET",
        path="/healthz",
        name="isAlive",
        summary="Whether the controller answers",
        role=None,
        answer=record(ok=FLAG),
    )
)
async def healthz(_call: Call) -> Reply:
    """It does."""
    return Reply({"ok": True})


@endpoint(
    Operation(
        method="GET",
        path="/readyz",
        name="isReady",
        summary="Whether every worker serves and every live pool has an upstream up",
        about="The reasons are told to those who may see the status.",
        role=None,
        answer=record(ready=FLAG, reasons=listing(STRING)),
        other_answers={503: "Not ready"},
    )
)
async def readyz(call: Call) -> Reply:
    """Ready, or 503 with the reasons."""
    ready, reasons = call.controller.ready()
    told = reasons if call.caller.may("viewer") else []
    return Reply({"ready": ready, "reasons": told}, status=200 if ready else 503)


ENDPOINTS = (healthz, readyz)
