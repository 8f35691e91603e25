"""Active checks against real upstreams: what is good, what is not and why, and how often."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import time

import pytest
from aiohttp import web
from support.waiting import eventually_async, handed_over

from bgproxy.config.schema import Health
from bgproxy.control import health
from bgproxy.control.health import APART, FAST, CheckResult, HealthChecks, Judge, next_turn
from bgproxy.model.upstream import UpstreamEvent, UpstreamState


class Server:
    """A small aiohttp upstream that remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.status = 200
        self.headers: dict[str, str] = {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if request.path == "/stream":
            response = web.StreamResponse()
            await response.prepare(request)
            await asyncio.sleep(30)
            return response
        return web.Response(text="x" * 200_000, status=self.status, headers=self.headers)


@pytest.fixture
async def server(aiohttp_server):
    server = Server()
    app = web.Application()
    app.router.add_get("/{path:.*}", server.answer)
    running = await aiohttp_server(app, shutdown_timeout=0.1)
    server.address = ("127.0.0.1", running.port)
    server.url = f"http://127.0.0.1:{running.port}"
    yield server
    await handed_over()


@pytest.fixture
async def one_check():
    """The first result of checking an address."""
    running: list[HealthChecks] = []

    async def check(address, url: str = "http://web.test:81", **settings) -> CheckResult:
        found: asyncio.Future[CheckResult] = asyncio.get_running_loop().create_future()
        checks = HealthChecks(lambda _, result: None if found.done() else found.set_result(result))
        running.append(checks)
        checks.watch("k", url=url, address=address, settings=Health(**settings), fast=lambda: False)
        await checks.start()
        async with asyncio.timeout(5):
            return await found

    yield check
    for checks in running:
        await checks.stop()


async def test_a_good_upstream_is_good(server, one_check):
    """Asked for the path with its own host, and told who asks."""
    result = await one_check(server.address, path="/health?deep=%41%2F")
    assert (result.ok, result.reason) == (True, "")
    assert 0 < result.seconds < 1
    (request,) = server.requests
    assert request.raw_path == "/health?deep=%41%2F"
    assert request.headers["Host"] == "web.test:81"
    assert request.headers["User-Agent"].startswith("bgproxy-health/")


@pytest.mark.parametrize(
    ("status", "expect", "reason"),
    [
        (500, "200-399", "status 500, expected 200-399"),
        (302, "200-399", ""),
        (302, "200", "status 302, expected 200"),
        (404, "200,404", ""),
    ],
)
async def test_the_status_decides_and_redirects_are_not_followed(server, one_check, status, expect, reason):
    """A redirect is an answer like any other."""
    server.status, server.headers = status, {"Location": "/elsewhere"}
    result = await one_check(server.address, expect=expect)
    assert (result.ok, result.reason) == (not reason, reason)
    assert len(server.requests) == 1


async def test_a_body_that_never_ends_does_not_matter(server, one_check):
    """The status came in time; an event stream is a fit path for a check."""
    assert (await one_check(server.address, path="/stream", timeout=0.3)).ok


async def test_cookies_of_an_answer_are_not_sent_back(server):
    """Each check is a stranger: a session an interval would fill the upstream's store with one visitor."""
    server.headers = {"Set-Cookie": "id=1"}
    checks = HealthChecks(lambda *_: None)
    settings = Health(interval=0.02)
    checks.watch("k", url="http://web.test", address=server.address, settings=settings, fast=lambda: False)
    await checks.start()
    await eventually_async(lambda: len(server.requests) > 2)
    await checks.stop()
    assert not any("Cookie" in request.headers for request in server.requests)


async def test_a_unix_socket_is_checked_too(one_check, tmp_path):
    """By its path."""
    server = Server()
    app = web.Application()
    app.router.add_get("/{path:.*}", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    path = str(tmp_path / "app.sock")
    await web.UnixSite(runner, path).start()
    assert (await one_check(path, f"unix://{path}", path="/h")).ok
    assert server.requests[0].path == "/h"
    await runner.cleanup()
    (tmp_path / "app.sock").unlink(missing_ok=True)
    assert (await one_check(path, f"unix://{path}")).reason == "no such file or directory"


async def test_nobody_there(one_check):
    """The system's word for it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    assert reason_of(await one_check(address)) == "connection refused"


def reason_of(result: CheckResult) -> str:
    assert not result.ok
    return result.reason


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (None, "no answer within 0.1s"),
        (b"", "connection closed before it answered"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not an HTTP answer"),
    ],
)
async def test_an_upstream_that_misbehaves_is_told_with_its_reason(one_check, reply, reason):
    """Silent, closing at once, or another protocol."""
    gate = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if reply is None:
            await gate.wait()
        else:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        result = await one_check(server.sockets[0].getsockname(), timeout=0.1 if reply is None else 1.0)
        assert reason_of(result).startswith(reason)
    finally:
        gate.set()
        server.close()
        await server.wait_closed()


async def test_a_reset_is_told_in_words(one_check):
    """Not as a number of errno."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        now = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
        writer.transport.abort()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    assert reason_of(await one_check(server.sockets[0].getsockname())) == "connection reset by peer"
    server.close()
    await server.wait_closed()


async def test_checks_are_fast_while_an_upstream_is_new(server):
    """And come at the interval afterwards."""
    fast = True
    at: list[float] = []
    checks = HealthChecks(lambda *_: at.append(time.monotonic()))
    checks.watch("k", url=server.url, address=server.address, settings=Health(interval=60.0), fast=lambda: fast)
    await checks.start()
    await eventually_async(lambda: len(at) == 3)
    fast = False
    assert at[2] - at[0] == pytest.approx(2 * FAST, abs=0.15)
    await eventually_async(lambda: len(at) == 4)
    await asyncio.sleep(2 * FAST)
    assert len(at) == 4
    await checks.stop()


async def test_what_this_process_lacks_is_no_upstreams_fault(server, monkeypatch, caplog):
    """Without a descriptor nothing was asked, so nothing is judged: a live upstream must not fall for it. It is asked again."""
    results: list[CheckResult] = []
    lacking = [True]
    real = socket.socket

    def none_left(*arguments, **named):
        if lacking[0]:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(*arguments, **named)

    monkeypatch.setattr("bgproxy.control.probing.socket.socket", none_left)
    checks = HealthChecks(lambda _, result: results.append(result))
    settings = Health(interval=0.05)
    checks.watch("k", url=server.url, address=server.address, settings=settings, fast=lambda: False)
    await checks.start()
    await eventually_async(lambda: "no descriptors" in caplog.text)
    lacking[0] = False
    await eventually_async(lambda: results)
    await checks.stop()
    assert [result.ok for result in results] == [True]
    assert caplog.text.count("no descriptors") == 1


async def test_what_is_watched_no_more_is_not_checked(server):
    """And what is watched later begins at once."""
    results: list[str] = []
    checks = HealthChecks(lambda key, _: results.append(key))
    settings = Health(interval=0.02)
    await checks.start()
    checks.watch("a", url=server.url, address=server.address, settings=settings, fast=lambda: False)
    await eventually_async(lambda: "a" in results)
    checks.unwatch("a")
    checks.unwatch("a")
    count = results.count("a")
    checks.watch("b", url=server.url, address=server.address, settings=settings, fast=lambda: False)
    await eventually_async(lambda: results.count("b") > 3)
    assert results.count("a") == count
    await checks.stop()


async def test_a_listener_that_fails_does_not_end_the_checks(server, caplog):
    """A bug of ours in one place must not leave an upstream unchecked for ever."""
    calls: list[str] = []

    def fail(key: str, _: CheckResult) -> None:
        calls.append(key)
        raise RuntimeError("bug")

    checks = HealthChecks(fail)
    settings = Health(interval=0.02)
    checks.watch("k", url=server.url, address=server.address, settings=settings, fast=lambda: False)
    await checks.start()
    await eventually_async(lambda: len(calls) > 2)
    assert "bug" in caplog.text
    await checks.stop()


@pytest.fixture
async def silent_listener():
    """An upstream that says nothing by itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


async def test_so_many_are_under_way_at_a_time_and_the_others_wait_for_their_turn(silent_listener, monkeypatch):
    """A time-out ends one check and lets another begin."""
    monkeypatch.setattr(health, "MAX_UNDER_WAY", 2)
    address = silent_listener.getsockname()
    results: list[str] = []
    checks = HealthChecks(lambda key, _: results.append(key))
    settings = Health(interval=60.0, timeout=0.1)
    for key in "abcde":
        checks.watch(key, url="http://web.test", address=address, settings=settings, fast=lambda: False)
    started = time.monotonic()
    await checks.start()
    await eventually_async(lambda: len(results) == 5)
    assert time.monotonic() - started > 0.3
    assert results == list("abcde")
    await checks.stop()


async def test_a_process_that_was_held_up_blames_nobody(silent_listener):
    """An answer that came in time is good, though it is looked at late."""
    clock = [0.0]
    results: list[CheckResult] = []
    checks = HealthChecks(lambda _, result: results.append(result), now=lambda: clock[0])
    settings = Health(interval=60.0, timeout=0.5)
    checks.watch(
        "k", url="http://web.test", address=silent_listener.getsockname(), settings=settings, fast=lambda: False
    )
    await checks.start()
    await eventually_async(lambda: len(checks._prober) == 1)
    end, _ = silent_listener.accept()
    with end:
        end.sendall(b"HTTP/1.1 200 OK\r\n\r\n")  # within this turn of the loop, which has not looked since
        clock[0] = 7.0
        checks._tick()
    assert [result.ok for result in results] == [True]
    await checks.stop()


async def test_newcomers_are_asked_one_after_the_other(server):
    """Thousands at a start are no jam; a few are asked at once all the same."""
    first: dict[str, float] = {}
    checks = HealthChecks(lambda key, _: first.setdefault(key, time.monotonic()))
    keys = [str(number) for number in range(50)]
    for key in keys:
        checks.watch(key, url=server.url, address=server.address, settings=Health(interval=3600.0), fast=lambda: False)
    started = time.monotonic()
    await checks.start()
    await eventually_async(lambda: len(first) == len(keys))
    await checks.stop()
    assert first[keys[-1]] - started > (len(keys) - 1) * APART


async def test_no_look_begins_more_than_a_batch(silent_listener, monkeypatch):
    """However many are due after the process was held up: the loop is free in between."""
    monkeypatch.setattr(health, "BATCH", 3)
    clock = [0.0]
    checks = HealthChecks(lambda *_: None, now=lambda: clock[0])
    address = silent_listener.getsockname()
    for key in "abcdefgh":
        checks.watch(key, url="http://web.test", address=address, settings=Health(), fast=lambda: False)
    await checks.start()
    clock[0] = 0.9
    checks._tick()
    assert len(checks._prober) == 3
    checks._tick()
    assert len(checks._prober) == 6
    await checks.stop()


def test_turns_are_an_interval_apart():
    """At the same place in each interval, and never the same one twice."""
    at = next_turn(1000.3, 2.0, 0.25)
    assert at == pytest.approx(1000.5)
    for _ in range(1000):
        before, at = at, next_turn(at, 2.0, 0.25)
        assert at - before == pytest.approx(2.0)
    assert next_turn(at + 5.1, 2.0, 0.25) == pytest.approx(at + 6.0)


@pytest.mark.parametrize("count", [2, 7, 100, 2000])
async def test_checks_are_spread_evenly_over_the_interval(count):
    """However many there are: no gap is much longer than an even one."""
    checks = HealthChecks(lambda *_: None)
    for number in range(count):
        checks.watch(
            str(number), url="http://web.test", address=("127.0.0.1", 1), settings=Health(), fast=lambda: False
        )
    at = sorted(next_turn(5000.0, 2.0, check.phase) for check in checks._watched.values())
    gaps = [after - before for before, after in zip(at, [*at[1:], at[0] + 2.0], strict=True)]
    assert max(gaps) < 2.5 * 2.0 / count
    assert min(gaps) > 0.3 * 2.0 / count


def test_rise_and_fall_are_counted_in_a_row():
    """One result of the other kind and the count begins anew."""
    judge = Judge(Health(rise=2, fall=3))
    up, down = UpstreamState.UP, UpstreamState.DOWN
    good = [judge.judge(down, ok=ok) for ok in (True, False, True, True)]
    assert good == [None, None, None, UpstreamEvent.ROSE]
    bad = [judge.judge(up, ok=ok) for ok in (False, False, True, False, False, False)]
    assert bad == [None, None, None, None, None, UpstreamEvent.FELL]


@pytest.mark.parametrize("state", [UpstreamState.UP, UpstreamState.DRAINING, UpstreamState.MAINT])
def test_a_result_that_changes_nothing_is_no_event(state):
    """What is up cannot rise, and what an operator has taken out stays out."""
    judge = Judge(Health(rise=1, fall=1))
    assert judge.judge(state, ok=True) is None
    if state is not UpstreamState.UP:
        assert judge.judge(state, ok=False) is None


def test_a_forgotten_row_begins_anew():
    """After maintenance an upstream must show itself good `rise` times again."""
    judge = Judge(Health(rise=2))
    judge.judge(UpstreamState.CHECKING, ok=True)
    judge.forget()
    assert judge.judge(UpstreamState.CHECKING, ok=True) is None
    assert judge.judge(UpstreamState.CHECKING, ok=True) is UpstreamEvent.ROSE
