"""GET of services."""

from __future__ import annotations


async def test_all_services_are_listed(api, controller):
    """With the generation of the whole."""
    async with api.get("/v1/services") as answer:
        assert await answer.json() == {"generation": 1, "services": controller.status()["services"]}


async def test_one_service(api, controller):
    """Its own status."""
    async with api.get("/v1/services/shop") as answer:
        assert answer.status == 200
        assert await answer.json() == controller.service_status("shop")


async def test_an_unknown_service_is_404(api):
    """And the text says which there are."""
    async with api.get("/v1/services/shoop") as answer:
        assert answer.status == 404
        problem = await answer.json(content_type=None)
    assert problem["type"] == "urn:bgproxy:problem:not-found"
    assert "known: shop, api" in problem["detail"]


async def test_an_unknown_query_parameter_is_refused(api):
    """As an unknown field is."""
    async with api.get("/v1/services/shop?verbose=1") as answer:
        assert answer.status == 422
