"""GET /v1/status: the whole program at a glance."""

from __future__ import annotations

from bgproxy.admin.endpoint import Call, Operation, Reply, endpoint
from bgproxy.admin.schemas import COUNT, STRING, TIME, listing, record, ref


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
