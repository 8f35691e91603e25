"""The trickle of traffic."""

from __future__ import annotations

import asyncio
import itertools
import re

import pytest
from aiohttp import web
from support.waiting import eventually_async

from bgproxy.cli.demo import traffic as module
from bgproxy.cli.demo.traffic import Traffic
from bgproxy.cli.terminal import Paint


@pytest.fixture(autouse=True)
def _quickly(monkeypatch):
    monkeypatch.setattr(module, "_PAUSE", 0.001)
    monkeypatch.setattr(module, "_WINDOW", 0.02)


async def test_a_line_when_the_share_changes(aiohttp_server):
    """One line for who answers, another when that changes, none in between; the count goes on."""
    colour = "blue"

    async def answer(_request):
        return web.Response(headers={"X-Shop-Colour": colour})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    server = await aiohttp_server(app)
    said = []
    traffic = Traffic(str(server.make_url("")), said.append, Paint(on=False))
    task = asyncio.create_task(traffic.run())
    await eventually_async(lambda: traffic.answers["blue"] > 50 and said)
    assert len(said) == 1
    colour = "green"
    await eventually_async(lambda: "to green 100 %" in said[-1])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "the traffic goes to blue 100 %" in said[0]
    assert len(said) <= 3  # on a slow machine two windows may have both
    assert traffic.errors == 0
    assert traffic.summary().endswith("; 0 errors")


async def test_errors_are_counted_and_said(aiohttp_server):
    """A bad status and a broken connection are errors; ten of them are shown."""

    async def answer(request):
        if request.path == "/api/version":
            request.transport.abort()
        return web.Response(status=503)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    server = await aiohttp_server(app)
    said = []
    traffic = Traffic(str(server.make_url("")), said.append, Paint(on=False))
    task = asyncio.create_task(traffic.run())
    await eventually_async(lambda: traffic.errors > 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(said) == 10
    assert "error: status 503" in said
    assert any("error: GET /api/version: " in line for line in said)


async def test_a_lasting_share_is_shown(aiohttp_server):
    """Where both versions go on answering, the line has both."""
    colours = itertools.cycle(["blue", "green"])

    async def answer(_request):
        return web.Response(headers={"X-Shop-Colour": next(colours)})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    server = await aiohttp_server(app)
    said = []
    traffic = Traffic(str(server.make_url("")), said.append, Paint(on=False))
    task = asyncio.create_task(traffic.run())
    await eventually_async(lambda: said)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert re.search(r"the traffic goes to blue \d+ %, green \d+ %", said[0])
