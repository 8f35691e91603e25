"""POST /v1/reload."""

from __future__ import annotations

from bgproxy.errors import ConfigError, Mistake


async def test_a_reload_says_what_it_did(api, controller):
    """The controller's answer."""
    async with api.post("/v1/reload", json={"reason": "new route"}) as answer:
        assert answer.status == 200
        assert answer.headers["ETag"] == '"1"'
        assert await answer.json() == {"generation": 1, "added": [], "removed": [], "changed": ["shop"]}


async def test_a_configuration_with_mistakes_is_422_with_all_of_them(api, controller):
    """One line a mistake, as `bgproxy check` says it."""
    mistakes = [Mistake("f.yaml", 3, "listen", "wrong"), Mistake("f.yaml", 9, "services.shop.live", "red")]
    controller.raises = ConfigError(mistakes)
    async with api.post("/v1/reload") as answer:
        assert answer.status == 422
        said = await answer.json(content_type=None)
    assert said["type"] == "urn:bgproxy:problem:config"
    assert said["details"] == ["f.yaml:3: listen: wrong", "f.yaml:9: services.shop.live: red"]
