"""/healthz and /readyz."""

from __future__ import annotations

from support.fake_controller import FakeController, config

from bgproxy.admin.app import make_app
from bgproxy.config.schema import Token


async def test_healthz_answers_while_the_controller_does(api, controller):
    """Even if nothing is ready."""
    controller.not_ready = ["worker 0 does not serve"]
    async with api.get("/healthz") as answer:
        assert (answer.status, await answer.json()) == (200, {"ok": True})


async def test_readyz_is_503_with_the_reasons_until_everything_serves(api, controller):
    """And 200 afterwards."""
    controller.not_ready = ["worker 0 does not serve"]
    async with api.get("/readyz") as answer:
        assert answer.status == 503
        assert await answer.json() == {"ready": False, "reasons": ["worker 0 does not serve"]}
    controller.not_ready = []
    async with api.get("/readyz") as answer:
        assert (answer.status, await answer.json()) == (200, {"ready": True, "reasons": []})


async def test_readyz_tells_strangers_no_reasons(aiohttp_client, monkeypatch):
    """With tokens, who sends none hears whether, not why."""
    monkeypatch.setenv("T", "t" * 20)
    controller = FakeController(config(tokens=(Token(name="t", role="viewer", token_env="T"),)))
    controller.not_ready = ["shop: blue has no upstream up"]
    api = await aiohttp_client(make_app(controller, controller.config))
    for headers, reasons in (({}, []), ({"Authorization": "Bearer " + "t" * 20}, controller.not_ready)):
        async with api.get("/readyz", headers=headers) as answer:
            assert (answer.status, (await answer.json())["reasons"]) == (503, reasons)
