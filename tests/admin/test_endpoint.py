"""What happens around every call."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from bgproxy.admin import endpoint as module
from bgproxy.admin.endpoint import Endpoint, Operation, Reply, endpoint


def operation(**changed) -> Operation:
    said = {"method": "POST", "path": "/x", "name": "x", "summary": "x", "role": "admin", "answer": {}}
    return Operation(**said | changed)


def test_a_handler_without_its_declaration_cannot_be_registered():
    """An endpoint is a handler and all that OpenAPI says of it; leaving something out is an error at import."""
    with pytest.raises(TypeError, match="summary"):
        Operation(method="GET", path="/x", name="x", role=None, answer={})

    @endpoint(operation())
    async def handler(call):
        return Reply({})

    assert isinstance(handler, Endpoint)


async def test_a_change_must_answer_with_a_reply(api, caplog):
    """A response could not be kept for its Idempotency-Key: a bug of ours, said as 500."""

    async def handler(_call):
        return web.Response()

    app = web.Application()
    for key in (module.CONTROLLER, module.AUTHORITY, module.ANSWERS):
        app[key] = api.app[key]
    Endpoint(operation(), handler).register(app)
    from aiohttp.test_utils import TestClient, TestServer

    async with TestClient(TestServer(app)) as client, client.post("/x") as answer:
        assert answer.status == 500
    assert "a change answers with a Reply" in caplog.text


async def test_a_body_that_does_not_come_is_not_waited_for_for_ever(api, controller, monkeypatch):
    """400 after the deadline, and nothing is changed."""
    monkeypatch.setattr(module, "BODY_WITHIN", 0.05)
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(
            b"POST /v1/services/shop/switch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 10\r\n\r\n{"
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 400")
        writer.close()
    assert controller.calls == []


async def test_changes_take_no_query(api, controller):
    """`?force=1` must not be taken for nothing."""
    async with api.post("/v1/services/shop/switch?force=1") as answer:
        assert answer.status == 422
    assert controller.calls == []
