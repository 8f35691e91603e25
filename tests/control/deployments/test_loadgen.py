"""The load generator: a steady rate whatever the upstream does, latency from the moment that a request is due, bounded connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.waiting import eventually, eventually_async, handed_over

from bgproxy.control.deployments.loadgen import Histogram, Load, Spec
from bgproxy.control.deployments.wire import Way
from bgproxy.model.snapshot import TlsSpec

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers on the test's loop, after `stall` seconds between the moments `begin` and `end` (since the first request)."""

    def __init__(self, answer: bytes = OK) -> None:
        self.answer = answer
        self.stalled: tuple[float, float] | None = None
        self.began: float | None = None
        self.connections = 0
        self.open = 0
        self.most = 0
        self.requests = 0
        self.port = 0
        self._tasks: set[asyncio.Task] = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await handed_over()

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        self.connections += 1
        self.open += 1
        self.most = max(self.most, self.open)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                await self._stall(reader)
                writer.write(self.answer)
                await writer.drain()
        self.open -= 1
        writer.close()

    async def _stall(self, reader):
        now = time.monotonic()
        self.began = self.began or now
        if self.stalled is not None:
            begin, end = self.stalled
            if begin <= now - self.began < end:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.began + end - now):
                        await reader.read(1)
                        raise ConnectionResetError  # the client has gone

    @property
    def way(self) -> Way:
        return Way(f"127.0.0.1:{self.port}", ("127.0.0.1", self.port), "a")


def spec(*ways: Way, **changes) -> Spec:
    fields = {"rate": 200.0, "seconds": 0.3, "connections": 8, "timeout": 5.0} | changes
    return Spec(ways=ways, requests=(REQUEST,) * len(ways), **fields)


async def closed_loop(server: Server, rate: float, count: int) -> Histogram:
    """What a tool would measure that asks at that rate, but only ever after an answer, and from when it asks."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    took = Histogram()
    began = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(began + number / rate - time.monotonic(), 0))
        asked = time.monotonic()
        writer.write(REQUEST)
        await reader.readuntil(b"ok")
        took.add(time.monotonic() - asked)
    writer.close()
    return took


@pytest.mark.alone
async def test_no_coordinated_omission():
    """A server that stalls for 1 s of 3 at 100 a second: the 100 requests that were due in it waited, and p99 says so.

    A closed loop asked but one of them: by its figures all is well.
    """
    async with Server() as server, Server() as other:
        server.stalled = other.stalled = (1.0, 2.0)
        load = Load(spec(server.way, rate=100.0, seconds=3.0))
        report, naive = await asyncio.gather(load.run(), closed_loop(other, 100.0, 300))
    assert (report["requests"], report["answered"], report["errors"]) == (300, 300, {})
    assert 0.9 < report["p99"] <= 1.2
    assert 0.9 < report["max"] <= 1.2
    assert report["p50"] < 0.2
    # A third of the requests were due while it stalled, evenly: the 90th percentile of all is 0.7 s of these.
    assert 0.55 < report["p90"] < 0.85
    assert naive.quantile(0.99) < 0.5
    assert naive.longest > 0.9


async def test_a_steady_rate_over_all_upstreams():
    """Each has its share of the requests and of the connections, and what was asked was asked in time."""
    async with Server() as one, Server() as two:
        report = await Load(spec(one.way, two.way, connections=3)).run()
    assert (one.requests, two.requests) == (30, 30)
    assert (report["requests"], report["sent"], report["answered"], report["statuses"]) == (60, 60, 60, {"200": 60})
    assert report["rate"] == pytest.approx(200, rel=0.2)
    assert report["seconds"] >= 0.3
    assert one.most <= 2
    assert two.most <= 1
    assert set(report["upstreams"]) == {one.way.id, two.way.id}


async def test_connections_are_bounded_and_waiting_counts():
    """With all of them busy a request waits for one; it is given up when nobody would wait any longer, and that is an error."""
    async with Server() as server:
        server.stalled = (0.0, 60.0)
        report = await Load(spec(server.way, connections=3, timeout=0.2)).run()
    assert server.most <= 3
    assert report["errors"] == {"timed out": 60}
    assert report["p50"] >= 0.18
    assert report["samples"]["timed out"] == f"{server.way.id}: timed out after 0.2s"


async def test_a_pool_that_hangs_takes_few_connections():
    """Thousands of requests that wait: all are counted, on time, and no connection is opened for one that would be too late."""
    async with Server() as server:
        server.stalled = (0.0, 60.0)
        report = await Load(spec(server.way, rate=5000.0, seconds=0.6, timeout=0.3)).run()
    assert report["errors"] == {"timed out": 3000}
    assert server.most <= 16  # eight, and those that it has not seen the end of
    assert server.connections <= 8 * 40  # as often as a tenth of the time-out passes, or a little more
    assert 0.25 < report["p50"] < 0.6
    assert report["late_p99"] < 0.1


@pytest.mark.parametrize(
    ("answer", "errors", "statuses"),
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", {"5xx": 60}, {"503": 60}),
        (b"HTTP/1.1 404 None\r\nContent-Length: 0\r\n\r\n", {}, {"404": 60}),
        (b"nonsense\r\n\r\n", {"rubbish": 60}, {}),
    ],
)
async def test_what_counts_as_an_error(answer, errors, statuses):
    """5xx and rubbish do; whether 404 is right the generator cannot know, but it tells."""
    async with Server(answer) as server:
        report = await Load(spec(server.way)).run()
    assert (report["errors"], report["statuses"]) == (errors, statuses)


async def test_a_port_that_refuses():
    """Errors of a kind of their own, which do not make the quantiles look good."""
    async with Server() as server:
        way = server.way
    report = await Load(spec(way)).run()
    assert report["errors"] == {"refused": 60}
    assert report["samples"]["refused"].endswith("connection refused")
    assert (report["p99"], report["answered"]) == (0.0, 0)


async def test_a_server_that_closes_after_each_answer():
    """A connection that was closed with nothing said is no error: the next one is opened."""
    async with Server(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n") as server:
        report = await Load(spec(server.way)).run()
    assert (report["answered"], report["errors"], server.connections) == (60, {}, 60)


async def test_a_generator_that_is_late_knows_it():
    """Its own loop is held up: the lateness of its schedule is told apart from what upstreams take."""
    async with Server() as server:
        running = asyncio.ensure_future(Load(spec(server.way)).run())
        await asyncio.sleep(0.1)
        time.sleep(0.15)  # noqa: ASYNC251 - as a machine without CPU to spare does
        report = await running
    assert report["late_max"] > 0.1
    assert report["late_p99"] > 0.05
    assert report["answered"] == 60


async def test_cancelling_leaves_no_connection_open():
    """As at an abort."""
    async with Server() as server:
        server.stalled = (0.0, 60.0)
        running = asyncio.ensure_future(Load(spec(server.way)).run())
        await asyncio.sleep(0.1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert [task for task in asyncio.all_tasks() if task.get_name().startswith("connection ")] == []
        await eventually_async(lambda: not server.open)


def test_quantiles_are_known_to_one_per_cent():
    """Over five orders of magnitude; the longest exactly, and no quantile beyond it."""
    histogram = Histogram()
    for number in range(1, 10_001):
        histogram.add(number / 1000)
    for share in (0.5, 0.9, 0.99, 0.999):
        assert histogram.quantile(share) == pytest.approx(10 * share, rel=0.011)
    assert histogram.longest == histogram.quantile(1.0) == 10.0
    histogram.add(0.0)
    assert histogram.quantile(0.0) <= 10e-6
    assert Histogram().quantile(0.5) == 0.0


@given(
    times=st.lists(st.floats(1e-5, 100.0), min_size=1, max_size=300),
    share=st.one_of(st.sampled_from([0.5, 0.9, 0.99, 0.999, 1.0]), st.floats(0.001, 1.0)),
)
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_a_quantile_is_that_of_the_sorted_times(times, share):
    """By nearest rank (the smallest time that so large a share was not above), never below it, and 1% above at the most."""
    histogram = Histogram()
    for each in times:
        histogram.add(each)
    exact = sorted(times)[math.ceil(share * len(times)) - 1]
    assert exact * (1 - 1e-9) <= histogram.quantile(share) <= exact * 1.01 * (1 + 1e-9)


def test_the_specification_survives_the_pipe():
    """Bytes, TLS and socket paths included."""
    tls = TlsSpec(authorities=b"A", chain=b"\xff", secret=b"s", server_name="x")
    first = Way("a", ("::1", 1), "h", b"\r\n\0Q", tls, "x")
    before = spec(first, Way("b", "/run/x.sock", "localhost"))
    assert Spec.of_json(json.loads(json.dumps(before.to_json()))) == before


@pytest.fixture
def program():
    """Starts the program; ended at the end."""
    command = [sys.executable, "-P", "-m", "bgproxy.control.deployments.loadgen"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_the_program_ends_with_its_parent(program):
    """The end of stdin is its end, in the middle of a run: no process outlives a deployment."""
    way = Way("x", ("127.0.0.1", 1), "a")
    program.stdin.write(json.dumps(spec(way, seconds=60.0).to_json()).encode() + b"\n")
    program.stdin.flush()
    line = json.loads(program.stdout.readline())
    assert line["progress"]["requests"] == 12000
    with open(f"/proc/{program.pid}/stat") as stat:  # noqa: PTH123 - proc(5)
        assert int(stat.read().rpartition(")")[2].split()[16]) >= 10  # nice: live traffic goes first
    program.stdin.close()
    eventually(lambda: program.poll() is not None)
    assert program.returncode == 1


def test_the_program_without_a_specification(program):
    """Nothing to do, and nothing to wait for."""
    program.stdin.close()
    assert program.wait(10) == 1
