"""The shop of the demo."""

from __future__ import annotations

import hashlib
import io

import pytest

from bgproxy.cli.demo import shop as module
from bgproxy.cli.demo.shop import Shop


@pytest.fixture
async def shop(aiohttp_client, monkeypatch):
    """A client of the green shop."""
    monkeypatch.setattr(module, "_TICK", 0.001)
    return await aiohttp_client(Shop("green", "2.0").app())


async def test_every_answer_is_signed(shop):
    """Page, API and errors say which version they came from."""
    for path, status in [("/", 200), ("/health", 200), ("/api/version", 200), ("/api/products/9", 404)]:
        async with shop.get(path) as answer:
            assert (answer.status, answer.headers["X-Shop-Colour"], answer.headers["X-Shop-Version"]) == (
                status,
                "green",
                "2.0",
            )


async def test_api(shop):
    """Products, one product, and orders that are counted."""
    products = (await (await shop.get("/api/products")).json())["products"]
    assert products[1] == {"id": 2, "name": "Yixing", "price": 89.0 * 0.9}
    assert (await (await shop.get("/api/products/2")).json())["product"] == products[1]
    assert [(await (await shop.post("/api/orders")).json())["order"] for _ in range(2)] == [1, 2]


async def test_events(shop):
    """One answer without end, an event after the other."""
    async with shop.get("/events") as answer:
        assert answer.content_type == "text/event-stream"
        assert await answer.content.readline() == b"data: green 2.0, event 1 of this answer\n"
        await answer.content.readline()
        assert await answer.content.readline() == b"data: green 2.0, event 2 of this answer\n"


async def test_websocket(shop):
    """Echoes with its version and a count."""
    async with shop.ws_connect("/ws") as sock:
        await sock.send_str("hello")
        assert await sock.receive_str() == "green 2.0, message 1: hello"


async def test_slow(shop):
    """Takes as long as it is told, within limits."""
    async with shop.get("/slow?s=0.01") as answer:
        assert (await answer.json())["seconds"] == 0.01
    for seconds in ("-1", "61", "nan", "x"):
        async with shop.get(f"/slow?s={seconds}") as answer:
            assert answer.status == 400


async def test_upload(shop):
    """More than aiohttp takes by itself, counted and hashed as it comes."""
    data = bytes(range(256)) * 16384
    async with shop.post("/upload", data=io.BytesIO(data)) as answer:
        said = await answer.json()
    assert (said["bytes"], said["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
