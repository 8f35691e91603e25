"""GET /v1/history."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def some(controller):
    for service in ("shop", "api", "shop"):
        controller.events.add("switched", service)


@pytest.mark.parametrize(
    ("query", "ids"), [("", [1, 2, 3]), ("?limit=2", [2, 3]), ("?service=shop", [1, 3]), ("?service=shop&limit=1", [3])]
)
async def test_the_latest_changes_of_one_service_or_of_all(api, query, ids):
    """In the order in which they happened."""
    async with api.get(f"/v1/history{query}") as answer:
        assert [event["id"] for event in (await answer.json())["events"]] == ids


async def test_an_unknown_service_is_404(api):
    """A slip is no empty history."""
    async with api.get("/v1/history?service=shoop") as answer:
        assert answer.status == 404
