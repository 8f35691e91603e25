"""kill -9 in every stage of a deployment: of the controller, and of everything; then what became of it.

One bgproxy has a service for each place where a deployment can stand. All of them are brought there and held by something that
does not pass by itself (a command that waits for a file, an answer that does not come, a worker that is stopped); then the kill comes, once.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from support.backends import Backend, Request
from support.deploys import Deploys
from support.proxy import Proxy, gone
from support.users import Users
from support.waiting import eventually

pytestmark = pytest.mark.slow

#: Of the two things that are killed.
KILLED = ("controller", "everything")

#: Waits, in the name of the service that it stands in, until the test makes the file; notes each time that it is run.
HELD = "echo run >> runs.$BGPROXY_SERVICE; until [ -e go.$BGPROXY_SERVICE ]; do sleep 0.1; done"

#: A bake that comes to no end before somebody approves it.
BAKE = {"for": "200ms", "min_requests": 1_000_000, "errors": {"max": "1%"}}

#: Seconds that the stand-by and the comparison last: longer than it takes to bring everybody to their place.
LASTS = 6


@dataclass(frozen=True)
class Place:
    """Where a deployment stands when the kill comes, and what is to become of it."""

    name: str  # of the service, too
    state: str
    settings: dict[str, Any]
    ends: str
    way: str  # states before the kill, and after it
    found: str = ""  # in the outcome
    late: bool = False  # held by a worker that is stopped
    body: dict[str, Any] = field(default_factory=dict)
    runs: int = 0  # of the command

    @property
    def host(self) -> str:
        return f"{self.name}.test"

    @property
    def live(self) -> str:
        return "green" if self.ends == "succeeded" else "blue"


_REST = "switching draining succeeded"
PLACES = (
    Place(
        "command",
        "provisioning",
        {"provision": {"run": HELD}},
        "failed",
        "queued provisioning | failed",
        "restarted while the provisioning ran",
        runs=1,
    ),
    Place(
        "pool",
        "provisioning",
        {"verify": {}},
        "succeeded",
        f"queued provisioning | verifying {_REST}",
        late=True,
        body={"version": "3.0"},
    ),
    Place(
        "verify",
        "verifying",
        {"verify": {"checks": [{"name": "held", "run": HELD}]}},
        "succeeded",
        f"queued verifying | {_REST}",
        runs=2,
    ),
    Place(
        "compare",
        "comparing",
        {"compare": {"mirror": "100%", "for": f"{LASTS}s", "min_requests": 10}},
        "succeeded",
        f"queued comparing | {_REST}",
    ),
    Place("warm", "warming", {"warm": {"paths": ["/held/warm"]}}, "succeeded", f"queued warming | {_REST}"),
    Place("approval", "awaiting_approval", {"approve": "manual"}, "succeeded", f"queued awaiting_approval | {_REST}"),
    Place(
        "switch",
        "switching",
        {"verify": {}, "bake": BAKE},
        "succeeded",
        "queued verifying switching | baking draining succeeded",
        late=True,
    ),
    Place(
        "canary",
        "switching",
        {"strategy": {"type": "canary", "percent": "50%", "for": "60s"}, "bake": BAKE},
        "rolled_back",
        "queued switching | rolling_back rolled_back",
        "restarted while the traffic was split",
    ),
    Place(
        "linear",
        "switching",
        {"strategy": {"type": "linear", "step": "30%", "every": "60s"}, "bake": BAKE},
        "rolled_back",
        "queued switching | rolling_back rolled_back",
        "restarted while the traffic was split",
    ),
    Place("bake", "baking", {"bake": BAKE}, "succeeded", "queued switching baking | draining succeeded"),
    Place(
        "worse",
        "baking",
        {"bake": BAKE | {"min_requests": 20, "for": "60s"}},
        "rolled_back",
        "queued switching baking | rolling_back rolled_back",
        "requests failed",
    ),
    Place("drain", "draining", {}, "succeeded", "queued switching draining | succeeded"),
    Place(
        "standby",
        "retiring",
        {"retire": {"after": f"{LASTS}s", "run": HELD}},
        "succeeded",
        "queued switching draining retiring | succeeded",
        runs=1,
    ),
    Place(
        "retire",
        "retiring",
        {"retire": {"after": "1ms", "run": HELD}},
        "succeeded",
        "queued switching draining retiring | succeeded",
        runs=1,
    ),
    Place(
        "back",
        "rolling_back",
        {"bake": BAKE},
        "rolled_back",
        "queued switching baking rolling_back | rolled_back",
        "aborted by",
        late=True,
    ),
)


class Scene:
    """A bgproxy whose services stand in their places, are killed, and go on."""

    def __init__(self, proxy: Proxy, blue: Backend, green: Backend, users: Users) -> None:
        self.proxy = proxy
        self.green = green
        self.blue = blue
        self.users = users
        self.deploys = Deploys(proxy)
        self.at_kill: dict[str, dict[str, Any]] = {}
        self.events_at_kill: dict[str, list[int]] = {}
        self.ended: dict[str, dict[str, Any]] = {}
        self.slow = proxy.client(timeout=30)

    def hold(self) -> int:
        """Bring every deployment to its place; the worker that is stopped for it."""
        deploys = self.deploys
        self.slow.send_request("GET", "/held/drain", {"Host": "drain.test"})
        eventually(lambda: self.blue.counts["/held/drain"])
        early = [place for place in PLACES if not place.late]
        for place in early:
            deploys.begin(place.name, **place.body)
        deploys.begin("back")
        for place in early:
            deploys.until(place.state, place.name)
        for name, share in (("canary", 50), ("linear", 30)):
            eventually(lambda name=name, share=share: self.proxy.service(name)["share"] == share)
        for name in ("approval", "bake", "back"):
            deploys.waits(name)
        eventually(lambda: self.green.counts["/compare"], what="mirrored requests")
        for name in ("command", "verify", "retire"):
            eventually((self.proxy.directory / f"runs.{name}").exists)
        eventually(lambda: self.green.counts["/held/warm"])
        self.users.more()
        victim = self.proxy.worker_pids()[1]
        os.kill(victim, signal.SIGSTOP)
        for place in PLACES:
            if place.late and place.name != "back":
                deploys.begin(place.name, **place.body)
        deploys.abort("back")
        for place in PLACES:
            deploys.until(place.state, place.name)
        return victim

    def kill(self, what: str, stopped: int) -> None:
        """The kill, and the start of who was killed."""
        proxy = self.proxy
        for place in PLACES:
            self.at_kill[place.name] = self.deploys.get(place.name)
            self.events_at_kill[place.name] = [event["id"] for event in self.deploys.history(place.name)]
        if what == "controller":
            pid = proxy.controller_pid()
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: gone(pid))
            os.kill(stopped, signal.SIGCONT)
            eventually(lambda: proxy.status()["controller"]["restarts"] == 1, within=10)
            return
        pids = proxy.pids()
        for pid in (proxy.process.pid, *pids):
            os.kill(pid, signal.SIGKILL)
        proxy.process.wait()
        for pid in pids:
            eventually(lambda pid=pid: gone(pid))
        proxy.restart_killed()

    def let_go(self) -> None:
        """Have everything end that was held."""
        for name in ("approval", "switch", "bake"):
            self.deploys.waits(name)
            self.deploys.approve(name)
        for place in PLACES:
            (self.proxy.directory / f"go.{place.name}").touch()
        self.blue.release()
        self.green.release()
        for place in PLACES:
            self.ended[place.name] = self.deploys.ended(place.name)


def _held(backend: Backend, request: Request) -> None:
    backend.gate.wait(60)
    request.answer(backend.pool, "200 OK", f"X-Pool: {backend.pool}")


def _same(backend: Backend, request: Request) -> None:
    """The same body, whoever answers."""
    request.answer("same", "200 OK", f"X-Pool: {backend.pool}")


def _worse(after: threading.Event) -> Callable[[Backend, Request], None]:
    """Fails in green once `after` is set."""

    def answer(backend: Backend, request: Request) -> None:
        failed = backend.pool == "green" and after.is_set()
        status = "500 Internal Server Error" if failed else "200 OK"
        request.answer(backend.pool, status, f"X-Pool: {backend.pool}")

    return answer


@pytest.fixture(scope="module", params=KILLED)
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Scene]]:
    """Everything held, killed, and gone on to its end."""
    killed = threading.Event()
    directory = tmp_path_factory.mktemp("crashes")
    with contextlib.ExitStack() as stack:
        blue, green = (stack.enter_context(Backend(pool)) for pool in ("blue", "green"))
        for backend in (blue, green):
            for name in ("warm", "drain"):
                backend.on(f"/held/{name}", _held)
            backend.on("/worse", _worse(killed))
            backend.on("/compare", _same)
        pools = {"blue": {"upstreams": [blue.url]}, "green": {"upstreams": [green.url]}}
        proxy = Proxy(
            directory,
            services={
                place.name: {
                    "match": {"hosts": [place.host]},
                    "pools": pools,
                    "health": {"path": "/health", "interval": "500ms", "rise": 1, "fall": 2},
                    "deployment": place.settings,
                }
                for place in PLACES
            },
        )
        stack.enter_context(proxy)
        for place in PLACES:
            proxy.wait_healthy(service=place.name)
        users = Users(lambda: proxy.address, [place.host for place in PLACES], each=2, every=0.25)
        for user in users.users:
            user.path = "/" + user.host.removesuffix(".test")
        made = Scene(proxy, blue, green, users)
        try:
            with users:
                users.more(60)
                stopped = made.hold()
                made.kill(request.param, stopped)
                killed.set()
                made.let_go()
                users.more()
        finally:
            killed.set()
            print(proxy.log())
            blue.release()
            green.release()
        yield request.param, made
        made.slow.close()


@pytest.mark.parametrize("place", PLACES, ids=[place.name for place in PLACES])
def test_what_becomes_of_it(scene: tuple[str, Scene], place: Place) -> None:
    """It goes on or it is undone, as the runner's table says; nothing of its way is lost, and the traffic is whole."""
    killed, made = scene
    before, after = made.at_kill[place.name], made.ended[place.name]
    print(f"| {place.name} | {place.state} | {killed} | {after['state']}: {after['outcome']} | {after['target']} |")
    first, rest = (half.split() for half in place.way.split("|"))
    assert [step["state"] for step in before["steps"]] == first
    assert [step["state"] for step in after["steps"]] == first + rest
    assert after["steps"][: len(first)] == before["steps"]
    assert after["state"] == place.ends
    assert place.found in after["outcome"]
    if place.body:
        assert made.proxy.service(place.name)["pools"]["green"]["version"] == place.body["version"]

    # The history has all of it: what was there at the kill is, in front of the rest.
    events = made.deploys.history(place.name)
    assert [event["id"] for event in events][: len(made.events_at_kill[place.name])] == made.events_at_kill[place.name]
    told = [event["data"]["state"] for event in events if event["type"] == "deployment"]
    assert told == first + rest
    moves = [event["type"] for event in events if event["type"] in ("switched", "rolled_back")]
    there_and_back = ["switched", "rolled_back"] if "baking" in first else []
    assert moves == (["switched"] if place.live == "green" else there_and_back)


@pytest.mark.parametrize("place", PLACES, ids=[place.name for place in PLACES])
def test_the_traffic_is_whole(scene: tuple[str, Scene], place: Place) -> None:
    """All workers answer from one pool: that of the memory and of the disk. A client without a cookie is on no side."""
    _, made = scene
    made.deploys.check_whole(place.live, place.name, place.host)


@pytest.mark.parametrize("place", [place for place in PLACES if place.runs], ids=lambda place: place.name)
def test_how_often_a_command_is_run(scene: tuple[str, Scene], place: Place) -> None:
    """A check is run again; what provisions or retires servers is not, once it has begun."""
    _, made = scene
    assert (made.proxy.directory / f"runs.{place.name}").read_text().split() == ["run"] * place.runs


@pytest.mark.parametrize("place", PLACES, ids=[place.name for place in PLACES])
def test_live_users_noticed_nothing_of_a_killed_controller(scene: tuple[str, Scene], place: Place) -> None:
    """No error, nobody goes to and fro. When all is killed they are cut off, and the errors are that; what they get is of one pool."""
    killed, made = scene
    if killed == "everything":
        seen = [one for one in made.users.of(place.host) if one.status]
    else:
        seen = made.users.of(place.host)
        if place.name != "worse":
            assert [one for one in seen if one.status != 200] == []
    ways = {"blue": "(blue )+", "green": "(blue )*(green )+"}
    for _, answers in itertools.groupby(sorted(seen, key=lambda one: one.user), key=lambda one: one.user):
        way = "".join(f"{one.pool} " for one in answers)
        allowed = "(blue )+(green )*(blue )+" if place.ends == "rolled_back" else ways[place.live]
        assert re.fullmatch(allowed, way), way


def test_a_request_that_is_drained_outlives_the_controller(scene: tuple[str, Scene]) -> None:
    """Of a controller that is killed in the drain, the request that it waited for knows nothing."""
    killed, made = scene
    if killed == "everything":
        return
    assert made.slow.read_response().text == "blue"
