"""JSON Schemas of what several calls answer with; those of one call stand beside its handler."""

from __future__ import annotations

from typing import Any, Final

from bgproxy.model.classes import CLASS_NAMES
from bgproxy.model.deployment import DeploymentState
from bgproxy.model.pool import POOLS, PoolState
from bgproxy.model.upstream import UpstreamState

Schema = dict[str, Any]

STRING: Final[Schema] = {"type": "string"}
NUMBER: Final[Schema] = {"type": "number"}
SHARE: Final[Schema] = {"type": "number", "minimum": 0, "maximum": 1}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
FLAG: Final[Schema] = {"type": "boolean"}
POOL: Final[Schema] = {"type": "string", "enum": list(POOLS)}
TIME: Final[Schema] = {"type": "string", "format": "date-time", "description": "RFC 3339, UTC"}


def ref(name: str) -> Schema:
    """A reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def or_null(schema: Schema) -> Schema:
    """The same, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def record(about: str = "", /, **members: Schema) -> Schema:
    """An object that has all these members, and may have others in later versions."""
    schema: Schema = {"type": "object", "properties": members, "required": list(members)}
    return schema | ({"description": about} if about else {})


def listing(items: Schema) -> Schema:
    """An array."""
    return {"type": "array", "items": items}


def by_class(items: Schema, about: str) -> Schema:
    """A value for each class of what is in flight."""
    return record(about, **dict.fromkeys(CLASS_NAMES, items))


_STATE: Final[Schema] = {"type": "string", "enum": [state.value for state in DeploymentState]}
_WAITS: Final[Schema] = FLAG | {"description": "for somebody to approve or abort it"}

COMPONENTS: Final[dict[str, Schema]] = {
    "Problem": record(
        "RFC 9457; `type` is stable.",
        type=STRING,
        title=STRING,
        status={"type": "integer"},
        detail=STRING,
        details=listing(STRING),
    ),
    "Upstream": record(
        id=STRING,
        url=STRING,
        address=STRING,
        state={"type": "string", "enum": [state.value for state in UpstreamState]},
        ejected=FLAG,
        reason=STRING | {"description": "of the last failed check; empty when it is up"},
        since=TIME,
        in_flight=COUNT,
        connections=COUNT | {"description": "open, idle ones too"},
        check_ms=or_null(NUMBER),
    ),
    "Drain": record(
        "What a pool that is no longer live still waits for; times in seconds.",
        since=TIME,
        seconds=NUMBER,
        waiting_for=by_class(COUNT, "in flight"),
        deadline_in=by_class(NUMBER, "until the rest is ended"),
        sessions_until_in=or_null(NUMBER),
    ),
    "Pool": record(
        state={"type": "string", "enum": [state.value for state in PoolState]},
        version=STRING,
        healthy=FLAG,
        in_flight=by_class(COUNT, "in flight"),
        sessions=COUNT,
        requests=COUNT,
        upstreams=listing(ref("Upstream")),
        unresolved=listing(record(url=STRING, reason=STRING)),
        drain=or_null(ref("Drain")),
    ),
    "Service": record(
        service=STRING,
        generation=COUNT | {"description": "number of its last change"},
        live=POOL,
        previous=or_null(POOL | {"description": "where a rollback goes"}),
        switched_at=or_null(TIME),
        match=record(hosts=listing(STRING), path=STRING),
        sessions=record(mode=STRING, on_switch=STRING),
        pools=record(blue=ref("Pool"), green=ref("Pool")),
        share={
            "type": "integer",
            "minimum": 0,
            "maximum": 100,
            "description": "per cent of the clients that go to the pool that is not live; 0 but in a canary",
        },
        deploys=record(
            "What a deployment would do, as configured.",
            strategy=STRING,
            stages=listing(_STATE),
        ),
        deployment=or_null(
            record(
                "The one that is under way.",
                id=COUNT,
                state=_STATE,
                target=POOL,
                version=STRING,
                text=STRING | {"description": "how far its stage is, in words"},
                share=or_null(SHARE | {"description": "of its stage that is done"}),
                waits=_WAITS,
            )
        ),
        last_deployment=or_null(
            record(
                "The latest that has ended.",
                id=COUNT,
                state=_STATE,
                target=POOL,
                version=STRING,
                ended_at=TIME,
                outcome=STRING | {"description": "why it ended so"},
            )
        ),
    ),
    "Deployment": record(
        "One deployment: its way so far, what its stages found out, how far it is.",
        id=COUNT,
        service=STRING,
        state=_STATE,
        running=FLAG | {"description": "it has not ended"},
        waits=_WAITS,
        target=POOL | {"description": "the pool that is to be live"},
        version=STRING,
        upstreams=or_null(listing(STRING) | {"description": "that the pool is to have; null: those that it has"}),
        strategy=STRING,
        reason=STRING,
        actor=record(name=STRING, address=STRING),
        created_at=TIME,
        ended_at=or_null(TIME),
        outcome=STRING | {"description": "why it ended as it did, in one sentence; empty while it runs"},
        steps=listing(record("A state that was entered.", state=_STATE, at=TIME, by=STRING, why=STRING)),
        results=listing(
            record(
                "What a stage found out.",
                stage=STRING,
                name=STRING,
                ok=FLAG,
                expected=STRING,
                found=STRING,
                seconds=NUMBER,
                details=listing(STRING),
            )
        ),
        progress=or_null(
            record(
                "Of its present stage; null when it has ended.",
                share=or_null(SHARE),
                text=STRING,
                figures={"type": "object"},
            )
        ),
    ),
    "Switched": record(
        "What a switch or a rollback did.",
        service=STRING,
        live=POOL,
        previous=or_null(POOL),
        generation=COUNT,
        switched_in_ms=NUMBER,
        drained=or_null(ref("Drained")),
    ),
    "Drained": record(
        'How the old pool ended; only with `"wait": "drained"`.',
        **dict.fromkeys(CLASS_NAMES, COUNT),
        cut=by_class(COUNT, "ended by the drain deadline"),
        seconds=NUMBER,
        complete=FLAG,
    ),
    "Event": record(
        id=COUNT,
        at=TIME,
        type=STRING,
        service=or_null(STRING),
        pool=or_null(STRING),
        upstream=or_null(STRING),
        actor=record(name=STRING, address=STRING),
        reason=STRING,
        message=STRING,
        data={"type": "object"},
    ),
}
