"""GET /v1/history: the changes that were made, newest last, kept over restarts."""

from __future__ import annotations

from typing import Final

from bgproxy.admin.body import Field
from bgproxy.admin.endpoint import Call, Operation, Reply, endpoint
from bgproxy.admin.schemas import listing, record, ref

#: A filter that several calls have.
SERVICE: Final = Field("service", "string", "Only what concerns this service.")

DEFAULT_LIMIT: Final = 50
LIMIT: Final = Field("limit", "integer", f"At most so many, the latest ({DEFAULT_LIMIT}).", least=1, most=1000)


@endpoint(
    Operation(
        method="GET",
        path="/v1/history",
        name="getHistory",
        summary="Switches, rollbacks and other changes by hand",
        role="viewer",
        answer=record(events=listing(ref("Event"))),
        query=(SERVICE, LIMIT),
        slugs=("not-found",),
    )
)
async def read_history(call: Call) -> Reply:
    """The latest changes; raises `NotFound` for a service that there is none of."""
    service = call.said.get("service")
    if service is not None:
        call.controller.generation(service)  # raises for an unknown one: a slip is no empty history
    events = call.controller.events.history(service, call.said.get("limit", DEFAULT_LIMIT))
    return Reply({"events": events})


ENDPOINTS = (read_history,)
