"""GET /v1/status."""

from __future__ import annotations


async def test_the_status_is_the_controllers(api, controller):
    """As it is, with the generation of the whole as ETag, and not to be cached."""
    async with api.get("/v1/status") as answer:
        assert answer.status == 200
        assert answer.content_type == "application/json"
        assert answer.headers["ETag"] == '"1"'
        assert answer.headers["Cache-Control"] == "no-store"
        assert await answer.json() == controller.status()


async def test_head_is_answered_too(api):
    """RFC 9110 section 9.1: GET and HEAD are what every server has."""
    async with api.head("/v1/status") as answer:
        assert answer.status == 200
        assert await answer.read() == b""
