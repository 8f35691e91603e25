"""Bad versions of the demo, which are started when somebody asks for them."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from bgproxy.cli.demo.faults import KINDS
from bgproxy.cli.demo.spoiled import Spoiled


@pytest.fixture
async def spoiled(tmp_path):
    spoiled = Spoiled(tmp_path)
    spoiled.open()
    yield spoiled
    await spoiled.close()


async def test_each_kind_has_a_port_and_no_process_yet(spoiled):
    """A demo starts as quickly as without them."""
    assert spoiled.urls.keys() == KINDS.keys()
    assert len(set(spoiled.urls.values())) == len(KINDS)
    assert spoiled._children == []


async def test_one_is_started_by_who_connects(spoiled):
    """That very connection is answered; the one that is down refuses all."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{spoiled.urls['unhealthy']}/health") as answer:
            assert answer.status == 503
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(spoiled.urls["down"])
    assert [child.name for child in spoiled._children] == ["unhealthy shop"]


async def test_where_one_has_died_nobody_listens(spoiled):
    """As a crash is met in real life."""
    async with aiohttp.ClientSession() as session, session.get(f"{spoiled.urls['wrong']}/health") as answer:
        assert answer.status == 200
    (child,) = spoiled._children
    await child.stop()
    host, port = spoiled.urls["wrong"].removeprefix("http://").split(":")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, int(port))
