"""The warming stage: what is replayed, when it is enough, and what its failures mean."""

from __future__ import annotations

import asyncio
import time

import pytest
from support.backends import Backend
from support.deployments import FakeLinks, make_hands, make_run
from support.waiting import eventually_async

from bgproxy.config.schema import Deployment, Health, Warm
from bgproxy.control.deployments.stage import Halted
from bgproxy.control.deployments.warm import WINDOW, Settling, warm
from bgproxy.errors import Unavailable
from bgproxy.model.deployment import DeploymentState
from bgproxy.model.upstream import UpstreamState


@pytest.fixture
def backend():
    with Backend("green") as backend:
        yield backend


class Links(FakeLinks):
    """With a memory of what the live pool was asked for."""

    def __init__(self, seen: list[tuple[str, int]]) -> None:
        super().__init__()
        self.seen = seen

    async def recent(self, service: str, limit: int) -> list[tuple[str, int]]:
        assert service == "shop"
        return self.seen[:limit]


def run_of(*urls, links=None, service=None, **settings):
    hands = make_hands(links=links or FakeLinks())
    deployment = Deployment(warm=Warm(**({"requests": 30, "concurrency": 4} | settings)))
    return make_run(*urls, deployment=deployment, state=DeploymentState.WARMING, hands=hands, **(service or {}))


def results(run):
    return {result.name: result for result in run.record.results}


async def test_what_one_user_asked_for_once_is_not_repeated():
    """A link that confirms an address, or ends a subscription, may be good for one time; and nobody's cookies or credentials are sent."""
    links = Links([("/shop?page=2", 2), ("/plain", 1), ("/confirm?token=secret", 1)])
    with Backend("green") as backend:
        run = run_of(backend.url, links=links, requests=6, concurrency=1)
        await warm(run)
        assert {request.target for request in backend.requests} == {"/shop?page=2", "/plain"}
        assert {name for request in backend.requests for name, _ in request.headers} == {"Host", "User-Agent", "Accept"}
    assert "secret" not in str(run.record.results)


async def test_what_was_seen_most_is_asked_first_of_all_upstreams():
    """In turns: every upstream gets every path, as often as the others."""
    links = Links([("/rare", 1), ("/often?x=1", 50)])
    with Backend("green") as one, Backend("green") as two:
        run = run_of(one.url, two.url, links=links, requests=12, concurrency=1)
        await warm(run)
        assert [request.target for request in one.requests] == ["/often?x=1", "/rare"] * 3
        assert [request.target for request in two.requests] == ["/often?x=1", "/rare"] * 3
    result = results(run)["replayed GETs"]
    assert result.ok
    assert result.found.startswith("12 GETs of the 2 paths seen most; median ")
    assert result.found.endswith("; the number was reached")
    assert run.tell.lines[0].startswith("1 of at most 12 GETs, median ")


async def test_a_list_of_paths(backend):
    """Those, and no others."""
    await warm(run_of(backend.url, paths=("/a", "/b"), requests=10))
    assert backend.counts == {"/a": 5, "/b": 5}


@pytest.mark.parametrize("links", [None, Links([])], ids=["nobody knows", "nothing was seen"])
async def test_without_recent_paths_the_health_path_is_asked(backend, links):
    """It is the one that is known to be there."""
    backend.on("/ready", lambda _backend, request: request.answer(b""))
    run = run_of(backend.url, links=links, service={"health": Health(path="/ready")})
    await warm(run)
    assert backend.counts == {"/ready": 30}
    assert "GETs of /ready: none was seen of late" in results(run)["replayed GETs"].found


async def test_connections_are_opened_at_last(backend):
    """By the workers, to the pool that is to be live, when the GETs are done."""
    links = FakeLinks()
    run = run_of(backend.url, links=links)
    await warm(run)
    assert links.opened == [("shop", 1)]
    assert [result.name for result in run.record.results] == ["replayed GETs", "connections"]


async def test_no_requests_open_connections_only(backend):
    """And a tcp service has no GETs to replay."""
    for run in (run_of(backend.url, requests=0), run_of(backend.url, service={"tcp": True})):
        await warm(run)
        assert list(results(run)) == ["connections"]
    assert not backend.total


async def test_workers_that_do_not_answer_halt_nothing(backend):
    """The switch will ask them again, and fail if they do not answer then."""

    class Silent(FakeLinks):
        async def acknowledged(self, within=5.0, *, then_warm=()):
            raise Unavailable("worker 1 (pid 9) did not answer within 5s; nothing was changed.")

    run = run_of(backend.url, links=Silent())
    await warm(run)
    assert results(run)["connections"].found.startswith("worker 1 (pid 9) did not answer")


async def test_it_ends_when_latency_has_settled(backend):
    """A cold start is waited for: the first answers take long, and it goes on until they do no more."""
    cold = iter([0.05] * 30)

    def answer(_backend, request):
        time.sleep(next(cold, 0))
        request.answer(b"x")

    backend.on("/", answer)
    run = run_of(backend.url, requests=5000, paths=("/",))
    await warm(run)
    # A window that is cold, one that is half so, and two of which the medians are alike.
    assert 4 * WINDOW <= backend.total < 1000
    result = results(run)["replayed GETs"]
    assert result.found.endswith("latency has settled")
    assert "median 5" in result.found


async def test_failures_are_told_and_halt_nothing(backend):
    """One path that fails is for the checks to judge."""
    run = run_of(backend.url, paths=("/", "/status?code=503"), requests=10, concurrency=1)
    await warm(run)
    result = results(run)["replayed GETs"]
    assert result.ok
    assert result.found.endswith("; 5 failed")
    assert result.details == (f"GET /status?code=503 of 127.0.0.1:{backend.port}: status 503",)


async def test_a_pool_that_answers_nothing_halts_it(backend):
    """It would answer users no better."""
    run = run_of(backend.url, paths=("/reset",))
    with pytest.raises(Halted) as halted:
        await warm(run)
    where = f"GET /reset of 127.0.0.1:{backend.port}: the connection was closed before it answered"
    assert str(halted.value).startswith(f"not one of 30 GETs was answered well: {where}")
    assert not results(run)["replayed GETs"].ok


async def test_a_pool_that_has_gone_down_halts_it(backend):
    """With the reasons of its upstreams."""
    run = run_of(backend.url)
    run.idle.upstreams[0].state = UpstreamState.DOWN
    run.idle.upstreams[0].reason = "connection refused"
    with pytest.raises(Halted, match="no upstream of green is up") as halted:
        await warm(run)
    assert halted.value.details == (f"127.0.0.1:{backend.port}: connection refused",)


async def test_an_abort_leaves_no_connection_and_no_task(backend):
    """In the middle of it."""
    run = run_of(backend.url, paths=("/silent",))
    warming = asyncio.ensure_future(warm(run))
    await eventually_async(lambda: backend.counts["/silent"] == 4)
    warming.cancel()
    await asyncio.wait({warming})
    assert warming.cancelled()
    await eventually_async(lambda: not backend.open)
    assert not [task for task in asyncio.all_tasks() if "warm-up" in task.get_name()]


@pytest.mark.parametrize(
    ("medians", "settled"),
    [
        ([0.1, 0.1, 0.1], True),
        ([0.1, 0.109, 0.1], True),
        ([0.1, 0.1, 0.2], False),
        ([3.0, 0.1, 0.1], False),
        ([3.0, 0.1, 0.1, 0.1], True),
        ([0.1, 0.12, 0.12, 0.14, 0.14], False),
        ([0.0003, 0.0008, 0.0002], True),
        ([0.1, 0.1], False),
    ],
)
def test_when_latency_has_settled(medians, settled):
    """Two pairs of windows in a row whose medians are within 10%; less than a millisecond is no difference."""
    settling = Settling(3)
    for median in medians:
        for latency in (0.0, median, 99.0):
            settling.add(latency)
    assert (settling.medians, settling.settled) == (medians, settled)
