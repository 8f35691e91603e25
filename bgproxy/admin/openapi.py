"""The OpenAPI 3.1 document, built from the declarations that stand beside the handlers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from aiohttp import web

from bgproxy import __version__
from bgproxy.admin import etag
from bgproxy.admin.body import schema_of
from bgproxy.admin.endpoint import Call, Endpoint, Operation, Reply, endpoint
from bgproxy.admin.idempotency import LONGEST_KEY
from bgproxy.admin.problems import CONTENT_TYPE, KINDS
from bgproxy.admin.schemas import COMPONENTS, POOL, STRING, Schema, ref

DOCUMENT: Final = web.AppKey("openapi", dict[str, Any])

_VARIABLE: Final = re.compile(r"\{(\w+)\}")
_PATH: Final[dict[str, tuple[str, Schema]]] = {
    "service": ("Name of a service", STRING | {"minLength": 1}),
    "pool": ("blue or green", POOL),
    "upstream": ("Id or URL of an upstream", STRING | {"minLength": 1}),
    "deployment": ("Number of a deployment", STRING | {"minLength": 1}),
}
_EVERY: Final = ("forbidden", "internal", "invalid", "malformed")
_GUARDED: Final = ("unauthorized",)
_CHANGING: Final = ("too-large", "unsupported-media-type", "idempotency-mismatch")

_IF_MATCH: Final[Schema] = STRING | {"pattern": rf"^(?:\*|{etag.PATTERN})$"}
_IDEMPOTENCY_KEY: Final[Schema] = STRING | {"pattern": "^[!-~](?:[ -~]*[!-~])?$", "maxLength": LONGEST_KEY}


def document(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for each in endpoints:
        operation = each.operation
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "bgproxy admin API",
            "version": __version__,
            "summary": "Who is live, and how that changes.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": COMPONENTS,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of admin.tokens, if there are any.",
                }
            },
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": _parameters(operation),
        "responses": _responses(operation),
        "security": [{"token": []}, {}] if operation.role is not None else [],
    }
    role = f"Takes the role {operation.role}." if operation.role is not None else "Public."
    described["description"] = f"{operation.about} {role}".strip()
    if operation.changes:
        described["requestBody"] = {
            "required": any(field.required for field in operation.body),
            "content": {"application/json": {"schema": schema_of(operation.body)}},
        }
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "description": _PATH[name][0], "schema": _PATH[name][1]}
        for name in _VARIABLE.findall(operation.path)
    ]
    for field in operation.query:
        schema = field.schema()
        about = schema.pop("description")
        found.append(
            {"name": field.name, "in": "query", "required": field.required, "description": about, "schema": schema}
        )
    if operation.changes:
        found.append(_header("If-Match", "Only if this is the generation: else 412.", _IF_MATCH))
        found.append(_header("Idempotency-Key", "The same key again gets the first answer again.", _IDEMPOTENCY_KEY))
    found += [_header(name, about, schema) for name, about, schema in operation.headers]
    return found


def _header(name: str, about: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": about, "schema": schema}


def _responses(operation: Operation) -> dict[str, Any]:
    content = {
        media_type: {"schema": operation.answer} for media_type in (operation.media_type, *operation.other_media_types)
    }
    done: dict[str, Any] = {"description": "Done", "content": content}
    if operation.tagged:
        done["headers"] = {"ETag": {"description": "The generation, in quotes", "schema": {"type": "string"}}}
    responses = {"200": done}
    for status, about in operation.other_answers.items():
        responses[str(status)] = {"description": about, "content": content}
    for status, slugs in _problems(operation).items():
        responses[str(status)] = {
            "description": "; ".join(f"{KINDS[slug].title} (`{slug}`)" for slug in slugs),
            "content": {CONTENT_TYPE: {"schema": ref("Problem")}},
        }
    return responses


def _problems(operation: Operation) -> dict[int, list[str]]:
    slugs = [*_EVERY, *operation.slugs]
    slugs += _GUARDED if operation.role is not None else ()
    slugs += _CHANGING if operation.changes else ()
    by_status: dict[int, list[str]] = {}
    for slug in sorted(set(slugs)):
        by_status.setdefault(KINDS[slug].status, []).append(slug)
    return dict(sorted(by_status.items()))


_ANSWER: Final[Schema] = {"type": "object", "description": "An OpenAPI 3.1 document"}


@endpoint(
    Operation(
        method="GET",
        path="/v1/openapi.json",
        name="getOpenAPI",
        summary="This document",
        role=None,
        answer=_ANSWER,
    )
)
async def read_openapi(call: Call) -> Reply:
    """The document that was built when the application was made."""
    return Reply(call.request.app[DOCUMENT])


ENDPOINTS = (read_openapi,)
