"""GET /v1/status: the whole program at a glance."""

from __future__ import annotations

from bgproxy.admin.endpoint import Call, Operation, Reply, endpoint
from bgproxy.admin.schemas import COUNT, STRING, TIME, listing, or_null, record, ref


@endpoint(
    Operation(
        method="GET",
        path="/v1/status",
        name="getStatus",
        summary="Program, workers, listeners and all services",
        role="viewer",
        answer=record(
            program=STRING,
            version=STRING,
            build={"type": "string", "enum": ["compiled", "interpreted"]},
            started_at=TIME,
            generation=COUNT,
            workers=listing(
                record(
                    index=COUNT,
                    pid={"type": ["integer", "null"]},
                    state={"type": "string", "enum": ["starting", "serving", "lost"]},
                    connections=COUNT,
                    restarts=COUNT,
                )
            ),
            controller=record(pid=COUNT, restarts=COUNT),
            listeners=listing(STRING),
            certificates=listing(
                record(
                    "Of listeners with TLS.",
                    cert=STRING | {"description": "path of its file"},
                    names=listing(STRING),
                    not_after=or_null(TIME),
                    problem=STRING
                    | {"description": "why its files as they are now are not in force; empty when they are"},
                )
            ),
            services=listing(ref("Service")),
        ),
        tagged=True,
    )
)
async def read_status(call: Call) -> Reply:
    """Everything; the ETag is the number of the last change of all."""
    status = call.controller.status()
    return Reply(status, status["generation"])


ENDPOINTS = (read_status,)
