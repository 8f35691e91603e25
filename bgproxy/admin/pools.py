"""PUT of what a pool is made of, and of what an upstream is good for by hand."""

from __future__ import annotations

from bgproxy.admin.body import Field
from bgproxy.admin.endpoint import Call, Operation, Reply, endpoint
from bgproxy.admin.schemas import ref
from bgproxy.admin.switches import REASON
from bgproxy.control.editing import LONGEST_VERSION
from bgproxy.errors import Invalid, NotFound
from bgproxy.model.pool import POOLS


def _pool(call: Call) -> str:
    name = call.path("pool")
    if name not in POOLS:
        raise NotFound(f"There is no pool {name!r}; a service has {' and '.join(POOLS)}.")
    return name


@endpoint(
    Operation(
        method="PUT",
        path="/v1/services/{service}/pools/{pool}",
        name="setPool",
        summary="Set the upstreams or the version of a pool",
        about="What is left out stays as it is. Kept over restarts, until the configuration file itself changes this pool.",
        role="operator",
        answer=ref("Service"),
        body=(
            Field("version", "string", "A label of yours, of one line.", nullable=True, longest=LONGEST_VERSION),
            Field("upstreams", "strings", "All of its upstreams, as in the file.", nullable=True, longest=1000),
            REASON,
        ),
        tagged=True,
        slugs=("not-found", "busy", "refused", "stale", "unavailable", "state-not-written"),
    )
)
async def set_pool(call: Call) -> Reply:
    """Change one pool."""
    service, pool = call.path("service"), _pool(call)
    version, upstreams = call.said.get("version"), call.said.get("upstreams")
    generation = call.if_match(call.controller.generation(service))
    if version is None and upstreams is None:
        raise Invalid("Nothing to set: say version, upstreams, or both.")
    status = await call.controller.set_pool(
        service, pool, version=version, upstreams=upstreams, actor=call.actor, if_match=generation
    )
    return Reply(status, status["generation"])


@endpoint(
    Operation(
        method="PUT",
        path="/v1/services/{service}/pools/{pool}/upstreams/{upstream}/state",
        name="setUpstreamState",
        summary="Drain an upstream, take it out for maintenance, or take it back",
        about="`upstream` is an id of the status or a URL of the configuration, percent-encoded.",
        role="operator",
        answer=ref("Service"),
        body=(
            Field("state", "string", "What it is good for.", choices=("ready", "drain", "maint"), required=True),
            REASON,
        ),
        tagged=True,
        slugs=("not-found", "busy", "refused", "stale", "unavailable", "state-not-written"),
    )
)
async def set_upstream_state(call: Call) -> Reply:
    """Change one upstream."""
    service, pool = call.path("service"), _pool(call)
    call.if_match(call.controller.generation(service))
    status = await call.controller.set_upstream_state(
        service, pool, call.path("upstream"), call.said["state"], actor=call.actor
    )
    return Reply(status, status["generation"])


ENDPOINTS = (set_pool, set_upstream_state)
