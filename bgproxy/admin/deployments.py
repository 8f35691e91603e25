"""Deployments: POST to begin one, GET to watch it, POST to approve or abort it."""

from __future__ import annotations

from typing import Final

from aiohttp.hdrs import IF_MATCH

from bgproxy.admin.body import Field
from bgproxy.admin.endpoint import Call, Operation, Reply, endpoint
from bgproxy.admin.history import DEFAULT_LIMIT, LIMIT
from bgproxy.admin.schemas import listing, record, ref
from bgproxy.admin.switches import REASON
from bgproxy.control.deployments.runner import STRATEGIES
from bgproxy.control.editing import LONGEST_VERSION
from bgproxy.errors import NotFound

_SLUGS: Final = ("not-found", "busy", "refused", "unavailable", "state-not-written")
#: Ids are decimal, and no longer than this.
_LONGEST_ID: Final = 15


def _number(call: Call) -> int:
    text = call.path("deployment")
    if not (text.isascii() and text.isdecimal() and len(text) <= _LONGEST_ID):
        raise NotFound(f"There is no deployment {text!r}; its id is a number.")
    return int(text)


def _decided_on(call: Call) -> int:
    """The number of the deployment that is to be changed, if its service is as the caller believes (If-Match)."""
    number = _number(call)
    service = call.controller.deployments.get(number)["service"]
    if IF_MATCH in call.request.headers:
        call.if_match(call.controller.generation(service))
    return number


@endpoint(
    Operation(
        method="POST",
        path="/v1/services/{service}/deployments",
        name="deploy",
        summary="Begin a deployment to the idle pool",
        about="Stages as configured under `deployment`. One at a time for a service. Answers at once; the deployment goes on.",
        role="operator",
        answer=ref("Deployment"),
        body=(
            Field("version", "string", "Label of the idle pool from now on.", nullable=True, longest=LONGEST_VERSION),
            Field("upstreams", "strings", "Of the idle pool from now on, as in the file.", nullable=True, longest=1000),
            Field("strategy", "string", "Another one than the configured.", choices=STRATEGIES, nullable=True),
            REASON,
        ),
        tagged=True,
        slugs=(*_SLUGS, "stale"),
    )
)
async def deploy(call: Call) -> Reply:
    """Begin one."""
    service, said = call.path("service"), call.said
    generation = call.controller.generation(service)
    # Before If-Match: what it has begun may have changed the generation. Answers outlive no restart, deployments do.
    key = call.request.headers.get("Idempotency-Key", "")
    begun = call.controller.deployments.begun_under(service, call.actor, key)
    if begun is not None:
        return Reply(begun, generation)
    call.if_match(generation)
    upstreams = said.get("upstreams")
    begun = await call.controller.deploy(
        service,
        actor=call.actor,
        version=said.get("version"),
        upstreams=None if upstreams is None else tuple(upstreams),
        strategy=said.get("strategy"),
        reason=said.get("reason", ""),
        key=key,
    )
    return Reply(begun, generation)


@endpoint(
    Operation(
        method="GET",
        path="/v1/services/{service}/deployments",
        name="listDeployments",
        summary="The deployments of a service: the one under way, and the latest that have ended",
        role="viewer",
        answer=record(deployments=listing(ref("Deployment"))),
        query=(LIMIT,),
        slugs=("not-found",),
    )
)
async def list_deployments(call: Call) -> Reply:
    """The latest of those that are known, the newest last."""
    service = call.path("service")
    call.controller.generation(service)  # raises for an unknown one
    return Reply({"deployments": call.controller.deployments.listing(service, call.said.get("limit", DEFAULT_LIMIT))})


@endpoint(
    Operation(
        method="GET",
        path="/v1/deployments/{deployment}",
        name="getDeployment",
        summary="One deployment: its way so far, what its stages found out, how far it is",
        role="viewer",
        answer=ref("Deployment"),
        slugs=("not-found",),
    )
)
async def read_deployment(call: Call) -> Reply:
    """One of them."""
    return Reply(call.controller.deployments.get(_number(call)))


@endpoint(
    Operation(
        method="POST",
        path="/v1/deployments/{deployment}/approve",
        name="approveDeployment",
        summary="Say yes to a deployment that waits for it",
        role="operator",
        answer=ref("Deployment"),
        body=(REASON,),
        slugs=(*_SLUGS, "stale"),
    )
)
async def approve_deployment(call: Call) -> Reply:
    """Let it go on."""
    number = _decided_on(call)
    return Reply(
        await call.controller.deployments.approve(number, actor=call.actor, reason=call.said.get("reason", ""))
    )


@endpoint(
    Operation(
        method="POST",
        path="/v1/deployments/{deployment}/abort",
        name="abortDeployment",
        summary="End a deployment",
        about="Before the switch nothing has happened; in it and in the bake it is rolled back; later only the rest is called off.",
        role="operator",
        answer=ref("Deployment"),
        body=(REASON,),
        slugs=(*_SLUGS, "stale"),
    )
)
async def abort_deployment(call: Call) -> Reply:
    """End it."""
    number = _decided_on(call)
    return Reply(await call.controller.deployments.abort(number, actor=call.actor, reason=call.said.get("reason", "")))


ENDPOINTS = (deploy, list_deployments, read_deployment, approve_deployment, abort_deployment)
