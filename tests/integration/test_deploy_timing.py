"""How soon a version that turns bad in the bake is live no more, by the clock of those who use it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.deploys import Deploys
from support.moody_server import MoodyServer
from support.proxy import Proxy
from support.users import Seen, Users
from support.waiting import eventually

pytestmark = [pytest.mark.alone, pytest.mark.slow]

#: Seconds that an answer takes of a pool that is well.
WELL = 0.02

#: By the rate, requests a second: seconds from the first bad answer to the last request that the bad pool was sent.
LIMITS = {200: 1.5, 10: 5.0}

#: Requests that a bake needs before it judges, and as many that it compares with.
ENOUGH = 100


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[tuple[Proxy, MoodyServer]]:
    """Bgproxy before blue and green, which are both well; the bake is the default one but for its length."""
    with contextlib.ExitStack() as stack:
        blue, green = (stack.enter_context(MoodyServer(pool, WELL)) for pool in ("blue", "green"))
        service = {
            "pools": {"blue": {"upstreams": [blue.url]}, "green": {"upstreams": [green.url]}},
            "health": {"path": "/health", "interval": "500ms", "rise": 1},
            "deployment": {"bake": {"for": "10m"}},
        }
        proxy = stack.enter_context(
            Proxy(tmp_path, services={"shop": {"match": {"hosts": ["test.example"]}, **service}})
        )
        proxy.wait_healthy(service="shop")
        yield proxy, green


def _is_bad(seen: Seen) -> bool:
    return seen.pool == "green" and (seen.status != 200 or seen.ended - seen.began > 3 * WELL)


@pytest.mark.parametrize("mood", ["fail", "slow"])
@pytest.mark.parametrize("rate", LIMITS)
def test_a_pool_that_turns_bad_is_live_no_more(scene: tuple[Proxy, MoodyServer], rate: int, mood: str) -> None:
    """In so many seconds from its first bad answer; those after it are as few as that. Nobody else has an error."""
    proxy, green = scene
    deploys = Deploys(proxy)
    address = proxy.address
    # What is compared with, and what the bake needs before it judges, comes fast in any case.
    with Users(lambda: address, each=10, every=0.05) as fast:
        fast.more(2 * ENOUGH)
        deploys.begin("shop")
        deploys.until("baking", "shop")
        eventually(lambda: deploys.get("shop")["progress"]["figures"].get("requests", 0) > ENOUGH, within=10)
    users = max(rate // 5, 2)
    with Users(lambda: address, each=users, every=users / rate) as steady:
        steady.more(2 * rate if rate > 20 else 10)
        green.mood(mood)
        ended = deploys.ended("shop")
        steady.more(rate)
    assert ended["state"] == "rolled_back", ended["outcome"]
    assert ("requests failed" if mood == "fail" else "p99") in ended["outcome"]

    seen = sorted(steady.seen, key=lambda one: one.ended)
    bad = [one for one in seen if _is_bad(one)]
    last = max(one.began for one in seen if one.pool == "green")
    passed = last - bad[0].ended
    print(f"| {rate}/s | {mood} | {passed * 1000:.0f} ms | {len(bad)} bad | {ended['outcome']} |")
    assert passed < LIMITS[rate]
    assert {one.status for one in fast.seen} == {200}
    assert [one for one in seen if one.status != 200 and not _is_bad(one)] == []
    deploys.check_whole("blue", "shop")
