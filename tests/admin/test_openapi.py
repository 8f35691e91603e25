"""The OpenAPI document is valid, and is the API."""

from __future__ import annotations

import re

import pytest
from aiohttp import web
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from bgproxy.admin.app import ENDPOINTS, make_app
from bgproxy.admin.problems import KINDS


@pytest.fixture
async def document(api):
    async with api.get("/v1/openapi.json") as answer:
        assert answer.status == 200
        return await answer.json()


async def test_the_document_is_valid(document):
    """By the OpenAPI 3.1 specification."""
    OpenAPIV31SpecValidator(document).validate()


async def test_every_route_is_described_and_every_description_is_a_route(document, controller):
    """HEAD apart, which is GET without its body."""
    app = make_app(controller, controller.config)
    served = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if isinstance(route, web.AbstractRoute) and route.method != "HEAD"
    }
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert served == described
    assert len(served) == len(ENDPOINTS)


async def test_every_operation_has_its_own_name_and_words(document):
    """A summary for people, a name for generated clients."""
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert all(operation["summary"] and operation["description"] for operation in operations)


async def test_every_slug_that_is_declared_exists():
    """A slip in a declaration would be a KeyError at start; this says which."""
    for each in ENDPOINTS:
        assert set(each.operation.slugs) <= set(KINDS), each.operation.path


CALLS = [
    ("GET", "/v1/status", None),
    ("GET", "/v1/services", None),
    ("GET", "/v1/services/{service}", None),
    ("POST", "/v1/services/{service}/switch", {"wait": "drained"}),
    ("POST", "/v1/services/{service}/rollback", None),
    ("POST", "/v1/switch", {"services": {"shop": "green"}}),
    ("PUT", "/v1/services/{service}/pools/{pool}", {"version": "3"}),
    ("PUT", "/v1/services/{service}/pools/{pool}/upstreams/{upstream}/state", {"state": "drain"}),
    ("POST", "/v1/services/{service}/deployments", {"version": "3"}),
    ("GET", "/v1/services/{service}/deployments", None),
    ("GET", "/v1/deployments/{deployment}", None),
    ("POST", "/v1/deployments/{deployment}/approve", None),
    ("POST", "/v1/deployments/{deployment}/abort", {"reason": "no"}),
    ("GET", "/v1/history", None),
    ("POST", "/v1/reload", None),
    ("GET", "/healthz", None),
    ("GET", "/readyz", None),
    ("GET", "/v1/openapi.json", None),
]
VALUES = {"service": "shop", "pool": "green", "upstream": "127.0.0.1:9002", "deployment": "1"}


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0]} {call[1]}")
async def test_what_is_answered_is_what_is_described(api, controller, document, call):
    """Good answers and problems, by their schemas."""
    method, path, body = call
    controller.services["shop"].previous = "green"
    if "deployments" not in path or "{deployment}" in path:
        controller.deployments.add("shop", waits=True)
    problem = {"content": {"problem": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    responses = document["paths"][path][method.lower()]["responses"]
    real = re.sub(r"\{(\w+)\}", lambda match: VALUES[match[1]], path)
    async with api.request(method, real, json=body) as answer:
        _conforms(document, responses["200"], "application/json", await answer.json())
    async with api.request(method, f"{real}?zzz=1", json=body) as answer:
        _conforms(document, problem, "problem", await answer.json(content_type=None))


def _conforms(document, response, media_type, value):
    schema = response["content"][media_type]["schema"] | {"components": document["components"]}
    Draft202012Validator(schema).validate(value)


def test_calls_are_all_json_calls():
    """A new call cannot be forgotten in the table above."""
    json_calls = {
        (each.operation.method, each.operation.path)
        for each in ENDPOINTS
        if each.operation.media_type == "application/json"
    }
    assert {(method, path) for method, path, _ in CALLS} == json_calls
