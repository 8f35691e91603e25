"""kill -9 at moments that chance chooses, while deployments are under way everywhere: what they leave is always in order.

What becomes of one that is killed at a certain place is in `test_deploy_crashes`; here are the places that nobody thought of.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.deploys import Deploys
from support.fast_server import FastServer
from support.proxy import Proxy, gone
from support.users import Users
from support.waiting import eventually

from bgproxy.model.deployment import DEPLOYMENT_TABLE, DeploymentState

pytestmark = pytest.mark.slow

#: `BGPROXY_KILLS` makes it longer; `BGPROXY_SEED` repeats one that was found wanting.
KILLS = int(os.environ.get("BGPROXY_KILLS", "2"))
SEED = int(os.environ.get("BGPROXY_SEED", "5"))

#: Seconds that a deployment takes when nobody disturbs it, more or less: the first kill comes within, and perhaps another one so soon after.
TAKES = 0.6
AGAIN = 0.2

_BAKE = {"for": "300ms", "min_requests": 1, "p99": {"worse_than_before": "off"}}
#: By service: deployments that are in many different places at any one moment.
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "proven": {"verify": {"checks": [{"name": "page", "request": "GET /"}]}, "warm": {"requests": 5, "paths": ["/"]}},
    "baked": {"bake": _BAKE},
    "canary": {"strategy": {"type": "canary", "percent": "50%", "for": "500ms"}, "bake": _BAKE},
    "linear": {"strategy": {"type": "linear", "step": "30%", "every": "200ms"}},
    "compared": {"compare": {"mirror": "100%", "for": "500ms", "min_requests": 0, "mismatches": "100%"}},
    "commands": {"provision": {"run": "sleep 0.1"}, "retire": {"after": "300ms", "run": "sleep 0.1"}},
    "worse": {"verify": {"checks": [{"name": "gone", "request": "GET /", "expect": {"status": "404"}}]}},
}

_EDGES = {(before.value, after.value) for (before, _), after in DEPLOYMENT_TABLE.transitions.items()}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Deploys]:
    """A service of each kind, all before the same two pools."""
    with ExitStack() as stack:
        pools = {pool: {"upstreams": [stack.enter_context(FastServer(pool)).url]} for pool in ("blue", "green")}
        services = {
            name: {
                "match": {"hosts": [f"{name}.test"]},
                "pools": pools,
                "health": {"path": "/", "interval": "500ms", "rise": 1, "fall": 3},
                "deployment": settings,
            }
            for name, settings in KINDS.items()
        }
        proxy = stack.enter_context(Proxy(tmp_path, services=services))
        for name in KINDS:
            proxy.wait_healthy(service=name)
        yield Deploys(proxy)


def _kill(proxy: Proxy, what: str) -> None:
    if what == "controller":
        restarts = proxy.status()["controller"]["restarts"]
        pid = proxy.controller_pid()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: gone(pid))
        eventually(lambda: proxy.status()["controller"]["restarts"] == restarts + 1, within=15)
        return
    pids = [proxy.process.pid, *proxy.pids()]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    proxy.process.wait()
    for pid in pids:
        eventually(lambda pid=pid: gone(pid))
    proxy.restart_killed()


@pytest.mark.timeout(60 + 15 * KILLS)
@pytest.mark.parametrize("what", ["controller", "everything"])
def test_whatever_is_killed_whenever(scene: Deploys, what: str) -> None:
    """Each ends, by a way that the table has and the history tells; its end says who is live, and that is so everywhere."""
    proxy, chance = scene.proxy, random.Random(SEED)
    stood: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    hosts = [f"{name}.test" for name in KINDS]
    with Users(lambda: proxy.address, hosts, each=2, every=0.1) as users:
        users.more(50)
        for _ in range(KILLS):
            live = {name: proxy.live(name) for name in KINDS}
            # The quick ones last, or they would always be over.
            for name in reversed(KINDS):
                scene.begin(name)
            for within in chance.choice(((TAKES,), (TAKES, AGAIN))):
                time.sleep(chance.uniform(0, within))  # no condition: chance is what is wanted
                stood.update(scene.get(name)["state"] for name in KINDS)
                _kill(proxy, what)
            for name in KINDS:
                ended = scene.ended(name)
                ends[ended["state"]] += 1
                way = [step["state"] for step in ended["steps"]]
                assert [edge for edge in itertools.pairwise(way) if edge not in _EDGES] == [], way
                assert scene.told(name) == way
                if ended["state"] == "succeeded":
                    assert ended["target"] != live[name]
                    live[name] = ended["target"]
                assert DeploymentState.SUCCEEDED.value not in way[:-1]
            for name in KINDS:
                scene.check_whole(live[name], name, f"{name}.test")
        users.more(50)
    print(f"| {what} | stood in {dict(stood)} | ended {dict(ends)} |")
    if what == "controller":
        assert [one for one in users.seen if one.status != 200] == []
