"""GET of the services: who is live, what state its pools are in."""

from __future__ import annotations

from bgproxy.admin.endpoint import Call, Operation, Reply, endpoint
from bgproxy.admin.schemas import COUNT, listing, record, ref


@endpoint(
    Operation(
        method="GET",
        path="/v1/services",
        name="listServices",
        summary="All services",
        role="viewer",
        answer=record(generation=COUNT, services=listing(ref("Service"))),
        tagged=True,
    )
)
async def list_services(call: Call) -> Reply:
    """All of them; the ETag is the number of the last change of all."""
    status = call.controller.status()
    generation = status["generation"]
    return Reply({"generation": generation, "services": status["services"]}, generation)


@endpoint(
    Operation(
        method="GET",
        path="/v1/services/{service}",
        name="getService",
        summary="One service",
        role="viewer",
        answer=ref("Service"),
        tagged=True,
        slugs=("not-found",),
    )
)
async def read_service(call: Call) -> Reply:
    """One service; the ETag is the number of its last change, for If-Match."""
    status = call.controller.service_status(call.path("service"))
    return Reply(status, status["generation"])


ENDPOINTS = (list_services, read_service)
