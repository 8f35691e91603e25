"""Commands and webhooks run on uvloop, as in the controller, and on asyncio's own loop; a runner with scripted stages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop
from support.control_room import ControlRoom
from support.scripted_stages import Scene

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
ON_BOTH = ("test_commands", "test_hooks")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return LOOPS if item.path.stem in ON_BOTH else {"asyncio": asyncio.new_event_loop}


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """A control room with a runner of its own."""
    async with ControlRoom(tmp_path) as room:
        scene = Scene(room)
        await scene.open()
        yield scene
        await scene.runner.stop()
