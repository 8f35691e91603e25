"""The promise itself: traffic moves in one instant, and nobody loses anything."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import pytest
from support.fast_server import FastServer
from support.load import Load, Record, Switch, judge
from support.proxy import Proxy

#: Seconds of load, a hundred switches; `BGPROXY_LOAD_SECONDS` makes it shorter or longer.
SECONDS = float(os.environ.get("BGPROXY_LOAD_SECONDS", "30"))


def test_the_judge_finds_what_is_wrong() -> None:
    """An answer from the old pool after one from the new, or after the switch was answered, is found; races are not."""
    switches = [Switch(1.0, 1.2, "green")]
    fine = [
        Record(0.5, 1.1, "blue"),
        Record(0.9, 1.05, "green"),
        Record(1.04, 1.15, "green"),
        Record(1.3, 1.4, "green"),
    ]
    assert judge(fine, switches, "blue") == []
    assert len(judge([Record(0.9, 1.05, "green"), Record(1.06, 1.1, "blue")], switches, "blue")) == 1
    assert len(judge([Record(1.3, 1.4, "blue")], switches, "blue")) == 1
    assert len(judge([Record(0.1, 0.2, "green")], switches, "blue")) == 1


async def _switching(proxy: Proxy, services: tuple[str, ...], seconds: float, each: float) -> list[Switch]:
    """Switch all services together, four times a second or as `each` says; back and forth."""
    done: list[Switch] = []
    to = "green"
    ends = time.monotonic() + seconds
    async with aiohttp.ClientSession(proxy.admin_url) as session:
        while (now := time.monotonic()) < ends:
            body: Mapping[str, Any]
            if len(services) == 1:
                path, body = f"/v1/services/{services[0]}/switch", {"to": to}
            else:
                path, body = "/v1/switch", {"services": dict.fromkeys(services, to)}
            called = time.monotonic()
            async with session.post(path, json=body) as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()
            done.append(Switch(called, time.monotonic(), to))
            to = "blue" if to == "green" else "green"
            await asyncio.sleep(max(0.0, now + each - time.monotonic()))
    return done


def _run(proxy: Proxy, load: Load, services: tuple[str, ...], seconds: float, each: float = 0.25) -> list[Switch]:
    async def main() -> list[Switch]:
        await load.start()
        try:
            return await _switching(proxy, services, seconds, each)
        finally:
            await load.stop()

    return asyncio.run(main())


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 60)
def test_nothing_is_lost_and_nothing_is_late(start_proxy: Callable[..., Proxy]) -> None:
    """Load over 50 connections and 2 workers, a switch four times a second: no error, nothing closed, nothing late.

    Late is a request to the old pool that began after an answer of the new one, or after `switch` had answered.
    """
    with FastServer("blue") as blue, FastServer("green") as green:
        proxy = start_proxy(blue=[blue.url], green=[green.url], health={"path": "/", "interval": "1s"})
        proxy.wait_healthy()
        load = Load(proxy.address)
        switches = _run(proxy, load, ("default",), SECONDS)
        wrong = judge(load.records, switches, "blue")
    print(f"{len(load.records)} requests, {len(switches)} switches, {len(load.errors)} errors, {load.closed} closed")
    assert load.errors == []
    assert load.closed == 0
    assert wrong == []
    assert len(switches) >= SECONDS * 3
    assert {record.pool for record in load.records} == {"blue", "green"}


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_four_services_move_as_one(start_proxy: Callable[..., Proxy]) -> None:
    """Four services switched together are never seen on different sides in answers that follow each other."""
    with FastServer("blue") as blue, FastServer("green") as green:
        names = ("shop", "api", "img", "pay")
        services = {
            name: {
                "match": {"hosts": [f"{name}.test"]},
                "pools": {"blue": {"upstreams": [blue.url]}, "green": {"upstreams": [green.url]}},
                "health": {"interval": "1s"},
            }
            for name in names
        }
        proxy = start_proxy(services=services)
        for name in names:
            proxy.wait_healthy(service=name)
        load = Load(proxy.address, hosts=tuple(f"{name}.test" for name in names))
        switches = _run(proxy, load, names, min(SECONDS, 10), each=0.1)
        wrong = judge(load.records, switches, "blue")
    print(f"{len(load.records)} requests, {len(switches)} switches of four services, {len(load.errors)} errors")
    assert load.errors == []
    assert wrong == []


@pytest.mark.alone
@pytest.mark.slow
def test_a_storm_of_switches_from_many_callers(start_proxy: Callable[..., Proxy]) -> None:
    """Of eight callers that switch at once each is switched or told that it was late: one winner a generation.

    Traffic notices nothing of it (faults.md row 19).
    """
    with FastServer("blue") as blue, FastServer("green") as green:
        proxy = start_proxy(blue=[blue.url], green=[green.url], health={"path": "/", "interval": "1s"})
        proxy.wait_healthy()
        load = Load(proxy.address, connections=10)
        won: list[int] = []
        seen: set[int] = set()

        async def caller(session: aiohttp.ClientSession) -> None:
            for _ in range(40):
                async with session.get("/v1/services/default") as answer:
                    tag, live = answer.headers["ETag"], (await answer.json())["live"]
                to = "green" if live == "blue" else "blue"
                headers = {"If-Match": tag}
                async with session.post("/v1/services/default/switch", json={"to": to}, headers=headers) as answer:
                    seen.add(answer.status)
                    if answer.status == 200:
                        won.append((await answer.json())["generation"])

        async def main() -> None:
            await load.start()
            async with aiohttp.ClientSession(proxy.admin_url) as session:
                await asyncio.gather(*(caller(session) for _ in range(8)))
            await load.stop()

        asyncio.run(main())
    assert seen <= {200, 409, 412}
    assert len(won) == len(set(won))
    assert len(won) >= 8  # most tries of eight callers meet a change that is under way
    assert load.errors == []
