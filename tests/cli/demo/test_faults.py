"""What can be wrong with a version of the demo's shop."""

from __future__ import annotations

import time

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from bgproxy.cli.demo import faults
from bgproxy.cli.demo.faults import Fault, is_live

CHECK = {"User-Agent": "bgproxy/0.1.0 check"}


async def fine(_request: web.Request) -> web.Response:
    return web.Response(text="fine")


async def ask(fault: Fault, path: str = "/api/version", headers=None) -> int:
    return (await fault.around(make_mocked_request("GET", path, headers=headers or {}), fine)).status


def test_who_is_a_user():
    """Neither a check nor a mirrored request is one."""
    assert is_live(make_mocked_request("GET", "/", headers={"User-Agent": "curl/8"}))
    assert is_live(make_mocked_request("GET", "/"))
    assert not is_live(make_mocked_request("GET", "/", headers=CHECK))
    assert not is_live(make_mocked_request("GET", "/", headers={"X-BGProxy-Mirror": "1"}))


async def test_a_good_one_is_fine():
    """However often it is asked."""
    fault = Fault()
    assert {await ask(fault, "/health"), *[await ask(fault) for _ in range(30)]} == {200}


async def test_an_unhealthy_one_serves_all_but_its_health():
    """That is what a health check is for."""
    fault = Fault("unhealthy")
    assert (await ask(fault, "/health"), await ask(fault)) == (503, 200)


async def test_errors_are_for_users_alone():
    """One in twenty; checks see none."""
    fault = Fault("errors")
    assert {await ask(fault, headers=CHECK) for _ in range(40)} == {200}
    assert [await ask(fault) for _ in range(40)].count(500) == 2


@pytest.mark.parametrize(("headers", "times"), [(None, 5), (CHECK, 1)])
async def test_it_is_late_for_users_alone(headers, times, monkeypatch):
    """Five times as long as its work takes."""
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(faults.asyncio, "sleep", sleep)
    await ask(Fault("late"), headers=headers)
    assert slept == [faults.WORK * times]


async def test_a_cold_one_is_warm_after_a_while(monkeypatch):
    """From its first request on; its health check knows nothing of that."""
    monkeypatch.setattr(faults, "_COLD", 0.05)
    fault = Fault("cold")
    began = time.monotonic()
    assert await ask(fault, "/health") == 200
    assert await ask(fault) == 200
    assert time.monotonic() - began >= 0.05
    began = time.monotonic()
    assert await ask(fault, "/") == 200
    assert time.monotonic() - began < 0.04
