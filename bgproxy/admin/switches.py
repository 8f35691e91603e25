"""POST of switch, rollback, and the switch of several services in one instant."""

from __future__ import annotations

from typing import Any, Final

from bgproxy.admin.body import Field
from bgproxy.admin.endpoint import Call, Operation, Reply, endpoint
from bgproxy.admin.schemas import COUNT, listing, record, ref
from bgproxy.config.schema import MAX_SERVICES
from bgproxy.model.pool import POOLS

REASON: Final = Field("reason", "string", "Why, for the history and the audit log.", nullable=True, longest=1000)

_FORCE: Final = Field("force", "boolean", "Even if the pool is not healthy.", nullable=True)
_WAIT: Final = Field(
    "wait",
    "string",
    "When to answer: as soon as new requests go to the new pool (the default), or when the old one is empty.",
    choices=("switched", "drained"),
    nullable=True,
)
_HOW: Final = (_FORCE, _WAIT, REASON)
_SLUGS: Final = ("not-found", "not-healthy", "busy", "refused", "stale", "unavailable", "state-not-written")


@endpoint(
    Operation(
        method="POST",
        path="/v1/services/{service}/switch",
        name="switchService",
        summary="Move all traffic of a service to a pool",
        about="To the idle pool unless `to` names one. To the pool that is live already: nothing changes, and that is fine.",
        role="operator",
        answer=ref("Switched"),
        body=(
            Field("to", "string", "The pool; null or left out: the idle one.", choices=POOLS, nullable=True),
            *_HOW,
        ),
        tagged=True,
        slugs=_SLUGS,
    )
)
async def switch_service(call: Call) -> Reply:
    """Switch one service."""
    service = call.path("service")
    generation = call.if_match(call.controller.generation(service))
    targets = {service: call.said.get("to")}
    (result,) = await call.controller.switch(targets, actor=call.actor, if_match=generation, **_how(call))
    return Reply(result.to_json(), result.generation)


@endpoint(
    Operation(
        method="POST",
        path="/v1/services/{service}/rollback",
        name="rollbackService",
        summary="Move all traffic of a service back to the pool that was live before",
        role="operator",
        answer=ref("Switched"),
        body=_HOW,
        tagged=True,
        slugs=_SLUGS,
    )
)
async def rollback_service(call: Call) -> Reply:
    """Roll one service back."""
    service = call.path("service")
    generation = call.if_match(call.controller.generation(service))
    result = await call.controller.rollback(service, actor=call.actor, if_match=generation, **_how(call))
    return Reply(result.to_json(), result.generation)


@endpoint(
    Operation(
        method="POST",
        path="/v1/switch",
        name="switchServices",
        summary="Move the traffic of several services in one instant, or of none",
        about="If-Match here is the generation of the whole (the ETag of /v1/services).",
        role="operator",
        answer=record(generation=COUNT, services=listing(ref("Switched"))),
        body=(
            Field(
                "services",
                "choices by name",
                "The pool for each service.",
                choices=POOLS,
                required=True,
                longest=MAX_SERVICES,
            ),
            *_HOW,
        ),
        tagged=True,
        slugs=_SLUGS,
    )
)
async def switch_services(call: Call) -> Reply:
    """Switch several services: all of them, or none."""
    call.if_match(call.controller.status()["generation"])
    results = await call.controller.switch(call.said["services"], actor=call.actor, **_how(call))
    generation = max(result.generation for result in results)
    return Reply({"generation": generation, "services": [result.to_json() for result in results]}, generation)


def _how(call: Call) -> dict[str, Any]:
    return {
        "force": call.said.get("force", False),
        "wait": call.said.get("wait", "switched"),
        "reason": call.said.get("reason", ""),
    }


ENDPOINTS = (switch_service, rollback_service, switch_services)
