"""The admin API over a controller in memory, on a real server on a free port."""

from __future__ import annotations

import pytest
from support.fake_controller import FakeController, config

from bgproxy.admin.app import make_app


@pytest.fixture
def controller():
    return FakeController(config())


@pytest.fixture
async def api(controller, aiohttp_client):
    """A client of the API as everyone sees it on loopback without tokens."""
    return await aiohttp_client(make_app(controller, controller.config))
