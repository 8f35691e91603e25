"""The load check: the generator's process, its progress, and what the figures say."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from support.backends import Backend
from support.deployments import make_run
from support.waiting import eventually_async

from bgproxy.config.schema import Check, Load
from bgproxy.control.deployments.load import judge, load_check

REPORT = {
    "requests": 1000,
    "sent": 1000,
    "answered": 1000,
    "errors": {},
    "samples": {},
    "statuses": {"200": 1000},
    "p50": 0.01,
    "p90": 0.02,
    "p99": 0.05,
    "p99.9": 0.06,
    "max": 0.07,
    "rate": 200.0,
    "late_p99": 0.001,
    "late_max": 0.002,
    "upstreams": {"a:1": {"requests": 1000, "errors": 0, "p99": 0.05}},
}


def check_of(**load) -> Check:
    return Check(name="load", load=Load(**({"rate": 200.0, "for_": 5.0} | load)))


async def checked(run, check):
    return await load_check(run, run.idle.upstreams, check, check.load)


async def test_a_pool_that_bears_it():
    """The generator runs, shows how far it is, and the result has the figures."""
    with Backend("green") as one, Backend("green") as two:
        run = make_run(one.url, two.url)
        result = await checked(run, check_of(rate=100.0, for_=0.7, path="/status?code=204", p99=5.0))
        assert (one.total, two.total) == (35, 35)
        assert one.requests[0].target == "/status?code=204"
    assert (result.ok, result.name, result.stage) == (True, "load", "verifying")
    assert result.expected == "p99 at most 5s, at most 0.1% failed, at 100/s for 700ms"
    assert "0 of 70 failed, 100.0/s" in result.found
    assert result.details[0] == "70 requests, 70 sent, 70 answered (70 of status 204)"
    assert run.tell.lines[0].startswith("load: ")
    assert run.tell.figures[0]["requests"] == 70


async def test_a_pool_that_does_not():
    """The number that broke, and an example of what went wrong."""
    with Backend("green") as backend:
        result = await checked(make_run(backend.url), check_of(for_=0.1, path="/status?code=503"))
    assert not result.ok
    assert result.found == f"100% failed (20 of 20: 20 5xx; such as 127.0.0.1:{backend.port}: status 503)"


async def generators() -> list[int]:
    """The generators that are children of this process."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - proc(5)
        try:
            with open(f"/proc/{name}/cmdline", "rb") as line, open(f"/proc/{name}/stat") as stat:  # noqa: PTH123, ASYNC230
                parent = int(stat.read().rpartition(")")[2].split()[1])
                if parent == os.getpid() and b"loadgen" in line.read():
                    found.append(int(name))
        except OSError:
            continue
    return found


async def test_an_abort_ends_the_generator():
    """No process is left, and no connection."""
    with Backend("green") as backend:
        checking = asyncio.ensure_future(checked(make_run(backend.url), check_of(for_=60.0)))
        await eventually_async(lambda: backend.total > 5)
        checking.cancel()
        await asyncio.wait({checking})
        assert checking.cancelled()
        assert await generators() == []
        await eventually_async(lambda: not backend.open)


async def test_a_time_out_ends_the_generator():
    """That it was not done in time is the result."""
    with Backend("green") as backend:
        check = Check(name="load", load=Load(rate=10.0, for_=60.0), timeout=0.6)
        result = await checked(make_run(backend.url), check)
    assert (result.ok, result.found) == (False, "it was not done after 600ms")
    assert await generators() == []


async def test_a_generator_that_dies():
    """Such as by the kernel, for want of memory: the check fails, and says of whom it is the fault."""
    with Backend("green") as backend:
        checking = asyncio.ensure_future(checked(make_run(backend.url), check_of(for_=60.0)))
        await eventually_async(lambda: backend.total > 5)
        (pid,) = await generators()
        os.kill(pid, signal.SIGKILL)
        result = await checking
    assert (result.ok, result.found) == (False, "the load generator ended without a report: it said nothing")


async def test_a_path_that_is_none():
    """It is told before anything is started."""
    result = await checked(make_run("http://127.0.0.1:1"), check_of(path="a b"))
    assert not result.ok
    assert result.found.startswith("'a b' is not a path")


@pytest.mark.parametrize(
    ("load", "report", "found"),
    [
        ({"p99": 0.05}, {}, None),
        ({"p99": 0.049}, {}, "p99 50ms"),
        ({}, {"errors": {"5xx": 1}}, None),
        (
            {},
            {
                "errors": {"5xx": 1, "refused": 1},
                "samples": {"5xx": "a:1: status 500", "refused": "a:1: connection refused"},
            },
            "0.2% failed (2 of 1000: 1 5xx, 1 refused; such as a:1: status 500)",
        ),
        ({"errors": 0.5}, {"errors": {"5xx": 5}}, None),
    ],
    ids=["at the limit", "slow", "few errors", "errors", "as many as are allowed"],
)
def test_limits(load, report, found):
    """What is at a limit has kept to it; what broke it is named."""
    samples = {"samples": {"5xx": "a:1: status 500"}} if "samples" not in report else {}
    check = check_of(**load)
    result = judge(check, check.load, REPORT | report | samples, 5.0)
    assert result.ok is (found is None)
    if found is not None:
        assert result.found == found


def test_a_generator_that_was_late_does_not_blame_the_pool():
    """Its figures are then of this machine; but what was refused was refused all the same, and good figures stay good."""
    check = check_of(p99=0.1)
    late = REPORT | {"p99": 0.4, "late_p99": 0.3}
    result = judge(check, check.load, late, 5.0)
    assert not result.ok
    assert result.found.startswith(
        "this machine could not keep up with 200/s: the load generator was itself 300ms behind"
    )
    refused = late | {"errors": {"refused": 500}, "samples": {"refused": "a:1: connection refused"}}
    assert judge(check, check.load, refused, 5.0).found.startswith("50% failed (500 of 1000: 500 refused")
    assert judge(check, check.load, late | {"p99": 0.09}, 5.0).ok
    # Nor is a pool excused that hangs, or is slower than that could have made it.
    hung = late | {"p99": 10.0, "errors": {"timed out": 500}, "samples": {"timed out": "a:1: timed out after 10s"}}
    assert judge(check, check.load, hung, 5.0).found.startswith("50% failed (500 of 1000: 500 timed out")
    assert judge(check, check.load, hung | {"late_p99": 5.0, "late_max": 6.0}, 5.0).found.startswith("this machine")
    assert judge(check, check.load, late | {"p99": 0.8}, 5.0).found == "p99 800ms"


async def test_a_great_many_upstreams():
    """Their figures make long lines."""
    with Backend("green") as backend:
        run = make_run(*(f"http://127.0.{number // 250}.{number % 250 + 1}:{backend.port}" for number in range(1000)))
        result = await checked(run, check_of(rate=1000.0, for_=1.0))
    assert result.details[0].startswith("1000 requests, 1000 sent, 1 answered")
    assert "999 refused" in result.found


def test_who_of_several_is_the_slow_one():
    """The worst upstreams are told one by one."""
    slow = {"a:1": {"requests": 500, "errors": 0, "p99": 0.01}, "b:1": {"requests": 500, "errors": 3, "p99": 0.9}}
    check = check_of()
    details = judge(check, check.load, REPORT | {"upstreams": slow}, 5.0).details
    assert details[-2:] == ("b:1: 3 of 500 failed, p99 900ms", "a:1: 0 of 500 failed, p99 10ms")
