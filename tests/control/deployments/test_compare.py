"""The comparing stage before real upstreams: what it repeats, what it counts, when it ends, and what it leaves behind."""

from __future__ import annotations

import asyncio
import gzip
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from support.backends import Backend
from support.certificates import Authority
from support.deployments import FakeLinks, make_hands, make_run
from support.tls_upstreams import TlsBackend, server_context
from support.waiting import eventually_async, handed_over

from bgproxy.config.schema import Compare, Deployment, Ignore
from bgproxy.control.deployments import compare as module
from bgproxy.control.deployments.compare import compare
from bgproxy.control.deployments.stage import Halted
from bgproxy.model.deployment import DeploymentState
from bgproxy.model.snapshot import MirrorSpec, TlsSpec
from bgproxy.switchboard.messages import MirrorCredit, Mirrored

HEAD = b"GET / HTTP/1.1\r\nHost: shop.test\r\nCookie: a=b\r\nVia: 1.1 x\r\nX-Request-ID: 7-1\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Clock:
    """Time that passes when the test says so; whoever sleeps looks again soon."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    def time(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        await asyncio.sleep(0.001)


class Worker:
    """A link to a worker, and its credits."""

    def __init__(self) -> None:
        self.credits = 0

    def send(self, *messages: Any) -> None:
        for message in messages:
            assert isinstance(message, MirrorCredit)
            assert (message.service, message.number) == ("shop", 7)
            self.credits += message.count


class Links(FakeLinks):
    """Two workers that mirror what a test gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.workers = 2
        self.links = [Worker(), Worker()]
        self.take: Any = None

    def take_mirrored(self, service: str, number: int, take: Any) -> None:
        assert (service, number) == ("shop", 7)
        self.take = take

    def leave_mirrored(self, service: str, number: int) -> None:
        assert (service, number) == ("shop", 7)
        self.take = None

    def up_to_date(self) -> list[Worker]:
        return self.links

    def mirror(self, target: str = "/json", answer: bytes = b'{"a": 1}', **changes: Any) -> None:
        """A worker mirrors a request, with a credit."""
        worker = max(self.links, key=lambda worker: worker.credits)
        assert worker.credits > 0
        worker.credits -= 1
        values = {
            "service": "shop",
            "number": 7,
            "method": b"GET",
            "target": target.encode(),
            "head": HEAD,
            "body": b"",
            "status": 200,
            "answer_head": ANSWER,
            "answer": answer,
            "complete": True,
            "seconds": 0.01,
        }
        self.take(worker, Mirrored(**(values | changes)))


class Stage:
    """A comparison under way."""

    def __init__(self, *urls: str, tls: TlsSpec | None = None, **settings: Any) -> None:
        self.clock = Clock()
        self.links = Links()
        self.published: list[MirrorSpec | None] = []
        self.mismatches: list[tuple[str, str]] = []
        self.counts = SimpleNamespace(mirror_dropped=0)
        publisher = SimpleNamespace(touch=lambda _: None, publish=self._publish)
        hands = make_hands(
            links=self.links,
            publisher=publisher,
            counters=SimpleNamespace(pool=lambda _service, _pool: self.counts),
            mismatched=lambda *names: self.mismatches.append(names),
        )
        self.run = make_run(
            *urls,
            deployment=Deployment(compare=Compare(**({"mirror": 100.0, "concurrency": 4, "timeout": 5.0} | settings))),
            state=DeploymentState.COMPARING,
            clock=self.clock,
            hands=hands,
            tls=tls,
        )
        self.task: asyncio.Task[None] = None  # type: ignore[assignment] # until `begin`

    def _publish(self) -> None:
        self.published.append(self.run.service.mirror)

    async def begin(self) -> None:
        self.task = asyncio.create_task(compare(self.run))
        await eventually_async(lambda: self.published)

    def credits(self) -> int:
        return sum(worker.credits for worker in self.links.links)

    async def mirror(self, count: int = 1, **changes: Any) -> None:
        """Have so many compared, one after the other."""
        for _ in range(count):
            before = self.figures().get("compared", 0)
            self.links.mirror(**changes)
            await eventually_async(lambda before=before: self.task.done() or self.figures()["compared"] > before)
            await eventually_async(lambda: self.credits() == 4 or self.task.done())

    def figures(self) -> dict[str, Any]:
        return self.run.progress.figures

    async def end(self) -> None:
        self.clock.at += 60.0
        await self.task

    def result(self) -> Any:
        (result,) = self.run.record.results
        return result


@pytest.fixture(autouse=True)
async def nothing_left(monkeypatch):
    """Whatever happens: no task stays."""
    monkeypatch.setattr(module, "MOST_A_SECOND", 1_000_000)
    before = asyncio.all_tasks()
    yield
    await handed_over()
    assert asyncio.all_tasks() <= before | {asyncio.current_task()}


@pytest.fixture
def green():
    with Backend("green") as green:
        green.on("/json", lambda _, request: request.answer('{"a":1.0}', "200 OK", "Content-Type: application/json"))
        yield green


async def test_a_pool_that_agrees_passes(green):
    """The workers are told what to mirror, get credits, and are told to stop; the result says how many were the same."""
    stage = Stage(green.url, methods=("GET", "POST"), body_bytes=1000, mirror=20.0)
    await stage.begin()
    assert stage.published == [MirrorSpec(7, 0, 20.0, ("GET", "POST"), 1000)]
    assert [worker.credits for worker in stage.links.links] == [2, 2]
    await stage.mirror(3)
    stage.counts.mirror_dropped = 5
    await stage.end()
    assert stage.published[-1] is None
    assert stage.links.take is None
    result = stage.result()
    assert result.ok
    assert result.stage == "comparing"
    assert result.expected == "at most 0.1% of at least 1 differ"
    assert result.found.startswith("0 of 3 answers differ (blue / green), 0%; 5 were not mirrored, as more were ")
    assert "; median 10ms / " in result.found
    assert stage.mismatches == []


async def test_what_is_repeated(green):
    """The request as it went to the live pool, with the mark; its framing is made anew."""
    stage = Stage(green.url)
    await stage.begin()
    head = HEAD.replace(b"GET / ", b"POST /json ").replace(b"Cookie", b"Transfer-Encoding: chunked\r\nCookie")
    await stage.mirror(method=b"POST", head=head, body=b"hello")
    await stage.end()
    (request,) = green.requests
    assert (request.method, request.target) == ("POST", "/json")
    assert request.header("X-BGProxy-Mirror") == "1"
    assert [request.header(name) for name in ("Host", "Cookie", "Via", "X-Request-ID")] == [
        "shop.test",
        "a=b",
        "1.1 x",
        "7-1",
    ]
    assert (request.header("Content-Length"), request.header("Transfer-Encoding")) == ("5", None)


async def test_mismatches_are_kept_side_by_side(green):
    """Which request, what differs, both values; too many of them end it, with the first as the cause."""
    stage = Stage(green.url)
    await stage.begin()
    await stage.mirror(2)
    await stage.mirror(answer=b'{"a": 2, "b": 1}', target="/json?id=5")
    with pytest.raises(Halted) as halted:
        await stage.end()
    shown = "GET /json?id=5: $.a: 2 / 1.0; $.b: 1 / (none)"
    assert halted.value.details == (shown,)
    assert str(halted.value).startswith("1 of 3 answers differ (blue / green), 33.3%; median ")
    assert str(halted.value).endswith(f"; at most 0.1% of at least 1 differ: {shown}")
    assert not stage.result().ok
    assert stage.mismatches == [("shop", "green")]
    assert stage.published[-1] is None


async def test_a_few_mismatches_may_be(green):
    """As many as are allowed."""
    stage = Stage(green.url, mismatches=50.0)
    await stage.begin()
    await stage.mirror()
    await stage.mirror(answer=b"{}")
    await stage.end()
    assert stage.result().ok
    assert stage.result().details == ("GET /json: $.a: (none) / 1.0",)


async def test_ignored_places_and_fields(green):
    """They may differ."""
    stage = Stage(green.url, headers=("Content-Type", "Server"), ignore=Ignore(headers=("server",), json=("$.a",)))
    await stage.begin()
    await stage.mirror(answer=b'{"a": 9}', answer_head=ANSWER + b"Server: blue\r\n")
    await stage.end()
    assert stage.result().ok


async def test_it_ends_at_once_when_it_is_hopeless(green):
    """Long before its time is up."""
    stage = Stage(green.url)
    await stage.begin()
    await stage.mirror(17)
    await stage.mirror(3, answer=b"{}")
    with pytest.raises(Halted, match="3 of 20 answers differ"):
        await stage.task
    assert stage.clock.at == 1000.0


async def test_one_of_twenty_proves_nothing(green):
    """A thousand may follow that are the same."""
    stage = Stage(green.url, mismatches=5.0)
    await stage.begin()
    await stage.mirror(1, answer=b"{}")
    await stage.mirror(20)
    await stage.end()
    assert stage.result().ok


async def test_where_none_may_differ_the_first_is_the_last(green):
    """A limit of 0% is broken by one."""
    stage = Stage(green.url, mismatches=0.0)
    await stage.begin()
    await stage.mirror(answer=b"{}")
    with pytest.raises(Halted, match="1 of 1 answers differ"):
        await stage.task


async def test_no_traffic_is_no_success(green):
    """It says how many there were, and how many there must be."""
    stage = Stage(green.url, min_requests=10)
    await stage.begin()
    await stage.mirror(2)
    with pytest.raises(Halted) as halted:
        await stage.end()
    assert (
        str(halted.value)
        == "2 live requests could be compared within 1m, not 10: 100% of them are mirrored (GET, HEAD)"
    )
    assert not stage.result().ok


async def test_unanswered_is_a_mismatch(green):
    """Refused: the operator reads which upstream, and why; their number is told."""
    green.close()
    stage = Stage(green.url)
    await stage.begin()
    await stage.mirror()
    with pytest.raises(Halted, match=r"1 of 1 answers differ .*; 1 were not answered") as halted:
        await stage.end()
    assert halted.value.details[0].startswith(f"GET /json: answer: 200 / none of 127.0.0.1:{green.port}: ")


async def test_a_pool_that_hangs_is_judged_in_time(green):
    """What is under way when the time is up has its own time-out, and counts; no credit is given back before."""
    stage = Stage(green.url, timeout=0.2)
    green.on("/json", lambda backend, _: backend.gate.wait(5))
    await stage.begin()
    for _ in range(4):
        stage.links.mirror()
    assert stage.credits() == 0
    await eventually_async(lambda: len(green.open) == 4)
    with pytest.raises(Halted, match=r"4 of 4 answers differ .*; 4 were not answered"):
        await stage.end()
    green.gate.set()


async def test_an_upstream_that_resets(green):
    """A mismatch as well."""
    green.on("/json", lambda _, request: request.sock.close())
    stage = Stage(green.url)
    await stage.begin()
    await stage.mirror()
    with pytest.raises(Halted, match="1 were not answered"):
        await stage.end()


async def test_a_flood_is_cut(green):
    """Of an answer without end no more is read than is compared."""
    sent = []

    def flood(_: Backend, request: Any) -> None:
        request.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 104857600\r\n\r\n")
        for _ in range(1600):
            request.send(bytes(65536))
            sent.append(65536)

    green.on("/json", flood)
    stage = Stage(green.url, body_bytes=1000)
    await stage.begin()
    await stage.mirror()
    with pytest.raises(Halted, match="body: 8 bytes / more than 1000 bytes"):
        await stage.end()
    assert sum(sent) < 32 * 1024 * 1024


@pytest.mark.parametrize("status", ["200 OK", "500 Oops"])
async def test_streams_are_compared_by_their_heads(green, status):
    """What has no end on the live pool is not waited for on the idle one."""

    def stream(backend: Backend, request: Any) -> None:
        request.send(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        backend.gate.wait(5)

    green.on("/json", stream)
    stage = Stage(green.url, mismatches=100.0)
    await stage.begin()
    await stage.mirror(2, complete=False, answer=b"")
    await stage.end()
    green.gate.set()
    assert stage.result().found.startswith(f"{0 if status == '200 OK' else 2} of 2 answers differ")
    assert "not answered" not in stage.result().found


async def test_heads_not_modified_and_gzip(green):
    """Answers without a body, and those that the pools compress in their own ways."""
    data = b'{"a": [1, 2, 3]}'
    green.on(
        "/gzip",
        lambda _, request: request.answer(
            gzip.compress(data, 1), "200 OK", "Content-Encoding: gzip", "Content-Type: application/json"
        ),
    )
    green.on(
        "/same", lambda _, request: request.send(b"HTTP/1.1 304 Not Modified\r\nContent-Type: application/json\r\n\r\n")
    )
    stage = Stage(green.url)
    await stage.begin()
    await stage.mirror(method=b"HEAD", answer=b"")
    await stage.mirror(target="/same", answer=b"", status=304)
    await stage.mirror(
        target="/gzip", answer=gzip.compress(data, 9), answer_head=ANSWER + b"Content-Encoding: gzip\r\n"
    )
    await stage.end()
    assert stage.result().found.startswith("0 of 3 answers differ")


async def test_all_upstreams_take_their_turns(green):
    """Those that are up."""
    with Backend("green") as other, Backend("green") as down:
        other.on("/json", lambda _, request: request.answer('{"a":1}', "200 OK", "Content-Type: application/json"))
        stage = Stage(green.url, other.url, down.url)
        stage.run.idle.upstreams[2].state = type(stage.run.idle.upstreams[2].state).DOWN
        await stage.begin()
        await stage.mirror(4)
        await stage.end()
        assert (green.total, other.total, down.total) == (2, 2, 0)


async def test_a_pool_without_upstreams(green):
    """All were taken out by hand meanwhile."""
    stage = Stage(green.url)
    await stage.begin()
    stage.run.idle.upstreams.clear()
    await stage.mirror()
    with pytest.raises(Halted, match="it has no upstream that could be asked"):
        await stage.end()


async def test_a_worker_that_comes_later_gets_credits(green):
    """As many as the others, once."""
    stage = Stage(green.url)
    await stage.begin()
    stage.links.links.append(Worker())
    await eventually_async(lambda: stage.links.links[2].credits == 2)
    with pytest.raises(Halted, match="0 live requests"):
        await stage.end()
    assert [worker.credits for worker in stage.links.links] == [2, 2, 2]


async def test_no_more_are_under_way_than_may_be(green):
    """Each worker has a credit at least, but the pool is asked no more than so many things at once."""
    busy = []
    most = []

    def slow(_: Backend, request: Any) -> None:
        busy.append(1)
        most.append(len(busy))
        request.answer('{"a":1}', "200 OK", "Content-Type: application/json")
        busy.pop()

    green.on("/json", slow)
    stage = Stage(green.url, concurrency=1)
    await stage.begin()
    assert [worker.credits for worker in stage.links.links] == [1, 1]
    stage.links.mirror()
    stage.links.mirror()
    await eventually_async(lambda: stage.figures()["compared"] == 2)
    await stage.end()
    assert max(most) == 1


async def test_a_pace_is_kept(green, monkeypatch):
    """A quick pool is not asked as fast as it can answer: the machine has users to serve."""
    monkeypatch.setattr(module, "MOST_A_SECOND", 1)
    stage = Stage(green.url)
    await stage.begin()
    for _ in range(4):
        stage.links.mirror()
    await eventually_async(lambda: stage.figures()["compared"] == 4)
    assert stage.credits() == 0
    await stage.end()


async def test_a_pool_behind_tls(tmp_path):
    """It is asked as live traffic would ask it: over TLS, with its certificate verified; what is wrong with that is a mismatch."""
    authority = Authority()
    context = server_context(authority.issue(tmp_path, "app.test"))
    with TlsBackend("green", context, "app.test") as green:
        green.on("/json", lambda _, request: request.answer('{"a":1.0}', "200 OK", "Content-Type: application/json"))
        for name, found in (("", "0 of 2 answers differ"), ("other.test", "host name does not match")):
            trusted = TlsSpec(authorities=authority.root.pem(), server_name=name)
            stage = Stage(green.url, tls=trusted, mismatches=100.0)
            await stage.begin()
            await stage.mirror(2)
            await stage.end()
            assert found in str(stage.result())
        assert green.requests[0].header("Host") == "shop.test"


async def test_nothing_is_added_but_the_mark(green):
    """A user who does not say what is accepted gets what the live pool gives to such users, and so does the copy."""
    stage = Stage(green.url)
    await stage.begin()
    await stage.mirror()
    await stage.end()
    names = [name for name, _ in green.requests[0].headers]
    assert names == ["Host", "Cookie", "Via", "X-Request-ID", "X-BGProxy-Mirror"]


@pytest.mark.parametrize("kind", ["large", "coded"])
async def test_what_takes_long_is_compared_beside_the_loop(green, monkeypatch, kind):
    """One pair at a time, in a thread, while everything else goes on; and then others have their turn."""
    go = threading.Event()
    under_way = []

    def slow(live, idle, rules):
        under_way.append(threading.current_thread() is threading.main_thread())
        go.wait(10)
        return []

    monkeypatch.setattr(module, "differences", slow)
    body = b"[" + b" " * 20_000 + b"]" if kind == "large" else b"[]"
    field = b"Content-Encoding: gzip\r\n" if kind == "coded" else b""
    stage = Stage(green.url)
    await stage.begin()
    for _ in range(2):
        stage.links.mirror(answer=body, answer_head=ANSWER + field)
    await eventually_async(lambda: under_way)
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert under_way == [False]
    go.set()
    await eventually_async(lambda: stage.figures()["compared"] == 2)
    await stage.end()
    assert stage.result().ok


async def test_cancelled_in_the_middle_nothing_is_left(green):
    """The workers mirror no more, what is under way is ended, and so are its connections."""
    green.on("/json", lambda backend, _: backend.gate.wait(5))
    stage = Stage(green.url)
    await stage.begin()
    for _ in range(3):
        stage.links.mirror()
    await eventually_async(lambda: len(green.open) == 3)
    stage.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stage.task
    assert stage.published[-1] is None
    assert stage.links.take is None
    green.gate.set()
    await eventually_async(lambda: not green.open)
    assert stage.run.record.results == ()


async def test_without_settings_there_is_nothing_to_do():
    """It is not configured."""
    run = make_run(deployment=Deployment())
    await compare(run)
    assert run.record.results == ()
