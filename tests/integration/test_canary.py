"""A share of the clients goes first: who is on which side, over all workers, for how long, and what becomes of them afterwards."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
from support.deploys import Deploys
from support.fast_server import FastServer
from support.http import Client
from support.proxy import Proxy
from support.users import Users
from support.waiting import eventually

pytestmark = pytest.mark.slow

HOST = "shop.test"
CLIENTS = 400
#: Connections that all of them share, so that each comes to every worker.
WAYS = 16
#: How far from its mean a share may be by chance, in standard deviations: one run of a million is further.
FAR = 5.0


@pytest.fixture(scope="module")
def upstreams() -> Iterator[dict[str, Any]]:
    """Blue and green."""
    with FastServer("blue") as blue, FastServer("green") as green:
        yield {"blue": {"upstreams": [blue.url]}, "green": {"upstreams": [green.url]}}


class Crowd:
    """Clients with a cookie jar each, that ask over connections which they share."""

    def __init__(self, proxy: Proxy, stack: ExitStack) -> None:
        self.jars: list[dict[str, str]] = [{} for _ in range(CLIENTS)]
        self._ways = itertools.cycle([stack.enter_context(proxy.client()) for _ in range(WAYS)])

    def ask(self, jar: dict[str, str]) -> str:
        """One request of one client, over the next connection; the pool."""
        way: Client = next(self._ways)
        cookie = "; ".join(f"{name}={value}" for name, value in jar.items())
        answer = way.get(Host=HOST, **({"Cookie": cookie} if cookie else {}))
        assert answer.status == 200
        for line in answer.all("Set-Cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            jar[name] = value
        return answer.text

    def sides(self) -> list[str]:
        """The pool of every client, one request each."""
        return [self.ask(jar) for jar in self.jars]


@pytest.fixture
def scene(upstreams: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Deploys, Crowd]]:
    """Two workers, the strategy that the test asks for, live users beside the crowd; nobody ever has an error.

    With `sessions` in what it asks for, these are the service's.
    """
    asked = dict(request.param)
    more = {"sessions": asked.pop("sessions")} if "sessions" in asked else {}
    service = {
        **more,
        "match": {"hosts": [HOST]},
        "pools": upstreams,
        "health": {"path": "/health", "interval": "500ms", "rise": 1},
        "deployment": {"strategy": asked, "bake": {"for": "300ms", "min_requests": 1}},
    }
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(tmp_path, services={"shop": service}))
        proxy.wait_healthy(service="shop")
        crowd = Crowd(proxy, stack)
        eventually(
            lambda: all(worker["connections"] for worker in proxy.status()["workers"]), what="both workers asked"
        )
        with Users(lambda: proxy.address, [HOST], each=8, every=0.1, ways=4) as users:
            yield Deploys(proxy), crowd
            users.more(20)
        assert [one for one in users.seen if one.status != 200] == []


def _canary(percent: int) -> dict[str, str]:
    return {"type": "canary", "percent": f"{percent}%", "for": "60s"}


def _until_share(deploys: Deploys, share: int) -> None:
    eventually(lambda: deploys.proxy.service("shop")["share"] == share, within=10, what=f"a share of {share}%")


def _far(sides: list[str], percent: int) -> float:
    """How far the share of green is from what it should be, in standard deviations."""
    share = percent / 100
    return abs(sides.count("green") - share * CLIENTS) / sqrt(CLIENTS * share * (1 - share))


@pytest.mark.parametrize(
    ("scene", "percent"), [(_canary(10), 10), (_canary(50), 50)], ids=["10", "50"], indirect=["scene"]
)
def test_a_client_stays_on_its_side(scene: tuple[Deploys, Crowd], percent: int) -> None:
    """Whichever connection and worker it comes over; the sides are as large as they should be. An abort has all on the old pool."""
    deploys, crowd = scene
    deploys.begin("shop")
    _until_share(deploys, percent)
    first = crowd.sides()
    assert _far(first, percent) < FAR, first.count("green")
    assert crowd.sides() == first
    assert list(reversed([crowd.ask(jar) for jar in reversed(crowd.jars)])) == first
    deploys.abort("shop")
    assert deploys.ended("shop")["state"] == "rolled_back"
    assert set(crowd.sides()) == {"blue"}
    deploys.check_whole("blue", "shop", HOST)


@pytest.mark.parametrize("scene", [{"type": "linear", "step": "30%", "every": "5s"}], indirect=True)
def test_a_share_that_grows_sends_nobody_back(scene: tuple[Deploys, Crowd]) -> None:
    """Who was moved in a step stays in the next one, and others join; in the end it is everybody."""
    deploys, crowd = scene
    deploys.begin("shop")
    before = ["blue"] * CLIENTS
    for share in (30, 60):
        _until_share(deploys, share)
        sides = crowd.sides()
        assert deploys.proxy.service("shop")["share"] == share, "the step was over before everybody had asked"
        assert _far(sides, share) < FAR, sides.count("green")
        assert [pair for pair in zip(before, sides, strict=True) if pair == ("green", "blue")] == []
        before = sides
    deploys.abort("shop")
    assert deploys.ended("shop")["state"] == "rolled_back"
    assert set(crowd.sides()) == {"blue"}


@pytest.mark.parametrize("scene", [{"type": "canary", "percent": "50%", "for": "4s"}], indirect=True)
def test_after_the_step_everybody_is_moved(scene: tuple[Deploys, Crowd]) -> None:
    """Those who were on the old side too. The next deployment begins with others, or some would always be the first."""
    deploys, crowd = scene
    moved = []
    for target in ("green", "blue"):
        deploys.begin("shop")
        _until_share(deploys, 50)
        moved.append([side == target for side in crowd.sides()])
        assert deploys.proxy.service("shop")["share"] == 50, "the step was over before everybody had asked"
        assert deploys.ended("shop")["state"] == "succeeded"
        assert set(crowd.sides()) == {target}
        deploys.check_whole(target, "shop", HOST)
    both = sum(first and second for first, second in zip(*moved, strict=True))
    assert abs(both - CLIENTS / 4) < FAR * sqrt(CLIENTS * 3 / 16)


@pytest.mark.parametrize("scene", [_canary(50) | {"sessions": {"mode": "cookie"}}], indirect=True)
def test_pinned_sessions_of_a_canary_come_back(scene: tuple[Deploys, Crowd]) -> None:
    """Their cookie names the new pool, and they follow all the same: in the canary, and back when it is aborted."""
    deploys, crowd = scene
    assert set(crowd.sides()) == {"blue"}
    deploys.begin("shop")
    _until_share(deploys, 50)
    sides = crowd.sides()
    assert _far(sides, 50) < FAR, sides.count("green")
    assert crowd.sides() == sides
    deploys.abort("shop")
    assert deploys.ended("shop")["state"] == "rolled_back"
    assert set(crowd.sides()) == {"blue"}


def test_a_worker_that_joins_a_canary_has_its_share(upstreams: dict[str, Any], tmp_path: Path) -> None:
    """The successor of one that was killed puts every client on the side where it was, and the next steps reach it."""
    service = {
        "match": {"hosts": [HOST]},
        "pools": upstreams,
        "health": {"path": "/health", "interval": "500ms", "rise": 1},
        "deployment": {"strategy": {"type": "linear", "step": "50%", "every": "6s"}},
    }
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(tmp_path, services={"shop": service}))
        proxy.wait_healthy(service="shop")
        deploys, crowd = Deploys(proxy), Crowd(proxy, stack)
        crowd.sides()
        deploys.begin("shop")
        _until_share(deploys, 50)
        sides = crowd.sides()
        first, second = proxy.worker_pids()
        for victim in (first, second):
            os.kill(victim, signal.SIGKILL)
            eventually(lambda gone=victim: len(proxy.worker_pids()) == 2 and gone not in proxy.worker_pids())
        again = Crowd(proxy, stack)
        again.jars = crowd.jars
        assert again.sides() == sides
        assert deploys.proxy.service("shop")["share"] == 50, "the step was over before everybody had asked"
        assert deploys.ended("shop")["state"] == "succeeded"
        assert set(again.sides()) == {"green"}
