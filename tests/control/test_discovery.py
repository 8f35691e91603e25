"""Names to addresses: what is kept, what is told, and that nothing waits."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest
from support.waiting import eventually_async

from bgproxy.control import discovery as discovery_module
from bgproxy.control.discovery import Discovery, resolve_name


class Names:
    """A resolver that says what the test wants."""

    def __init__(self) -> None:
        self.answers: dict[str, object] = {}
        self.asked: list[str] = []

    async def __call__(self, host: str, _port: int) -> tuple[str, ...]:
        self.asked.append(host)
        answer = self.answers[host]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, asyncio.Event):
            await answer.wait()
            return ()
        return answer


@pytest.fixture
def names():
    return Names()


@pytest.fixture
async def discovery(names):
    changed: list[str] = []
    discovery = Discovery(changed.append, interval=0.01, deadline=0.1, resolve=names)
    discovery.changed = changed
    yield discovery
    await discovery.stop()


async def test_a_name_is_its_addresses_and_a_change_is_told_once(discovery, names):
    """Told when they differ, not each time that they are looked up."""
    names.answers["web"] = ("10.0.0.1",)
    discovery.watch("web", 80)
    discovery.watch("web", 80)
    await discovery.start()
    await discovery.settle()
    assert discovery.addresses("web") == ("10.0.0.1",)
    await eventually_async(lambda: names.asked.count("web") > 3)
    assert discovery.changed == ["web"]
    names.answers["web"] = ("10.0.0.1", "10.0.0.2")
    await eventually_async(lambda: discovery.addresses("web") == ("10.0.0.1", "10.0.0.2"))
    assert discovery.changed == ["web", "web"]


async def test_a_name_that_stops_resolving_keeps_its_addresses(discovery, names):
    """And says what is wrong, until it is not any more."""
    names.answers["web"] = ("10.0.0.1",)
    discovery.watch("web", 80)
    await discovery.start()
    await discovery.settle()
    names.answers["web"] = socket.gaierror(-2, "Name or service not known")
    await eventually_async(lambda: discovery.problem("web"))
    assert discovery.problem("web") == "web: name does not resolve (Name or service not known)"
    assert discovery.addresses("web") == ("10.0.0.1",)
    names.answers["web"] = ()
    await eventually_async(lambda: discovery.problem("web") == "web: name has no address")
    assert discovery.addresses("web") == ("10.0.0.1",)
    names.answers["web"] = ("10.0.0.9",)
    await eventually_async(lambda: discovery.addresses("web") == ("10.0.0.9",))
    assert discovery.problem("web") == ""


async def test_a_name_that_never_resolved_has_no_address_and_a_reason(discovery, names):
    """A mistake in a name is seen in the status."""
    names.answers["wbe"] = socket.gaierror(-2, "Name or service not known")
    discovery.watch("wbe", 80)
    await discovery.start()
    await discovery.settle()
    assert discovery.addresses("wbe") == ()
    assert discovery.problem("wbe").startswith("wbe: name does not resolve")
    assert discovery.addresses("never watched") == ()
    assert discovery.problem("never watched") == ""


async def test_a_resolver_that_hangs_holds_up_no_other_name(discovery, names):
    """Each name waits for itself only, and no longer than the deadline."""
    names.answers |= {"slow": asyncio.Event(), "web": ("10.0.0.1",)}
    discovery.watch("slow", 80)
    discovery.watch("web", 80)
    await discovery.start()
    await eventually_async(lambda: discovery.addresses("web"))
    assert discovery.problem("slow") == ""
    await eventually_async(lambda: discovery.problem("slow") == "slow: the resolver did not answer within 0.1s")


async def test_settling_has_an_end(names):
    """A start does not wait for a resolver that is down."""
    discovery = Discovery(lambda _: None, deadline=60.0, resolve=names)
    names.answers["slow"] = asyncio.Event()
    discovery.watch("slow", 80)
    await discovery.start()
    async with asyncio.timeout(2):
        await discovery.settle(0.01)
    await discovery.stop()


async def test_what_is_forgotten_is_looked_up_no_more(discovery, names):
    """And what is watched later begins at once."""
    names.answers |= {"web": ("10.0.0.1",), "api": ("10.0.0.2",)}
    discovery.watch("web", 80)
    await discovery.start()
    await discovery.settle()
    discovery.unwatch("web")
    discovery.unwatch("web")
    discovery.watch("api", 80)
    await eventually_async(lambda: discovery.addresses("api"))
    count = names.asked.count("web")
    await eventually_async(lambda: names.asked.count("api") > 3)
    assert names.asked.count("web") == count
    assert discovery.addresses("web") == ()


async def test_a_listener_that_fails_does_not_end_the_watch(names, caplog):
    """A bug of ours in one place must not silently freeze the addresses of a pool."""
    calls: list[str] = []

    def fail(host: str) -> None:
        calls.append(host)
        raise RuntimeError("bug")

    discovery = Discovery(fail, interval=0.01, resolve=names)
    names.answers["web"] = ("10.0.0.1",)
    discovery.watch("web", 80)
    await discovery.start()
    await discovery.settle()
    names.answers["web"] = ("10.0.0.2",)
    await eventually_async(lambda: len(calls) == 2)
    assert "bug" in caplog.text
    await discovery.stop()


async def test_the_systems_resolver_is_asked_for_all_addresses(monkeypatch):
    """Sorted and without doubles, so that a resolver that shuffles changes nothing."""

    def getaddrinfo(host, port, **_):
        assert (host, port) == ("web", 80)
        return [(0, 0, 0, "", (address, port)) for address in ("10.0.0.2", "10.0.0.1", "10.0.0.2")]

    monkeypatch.setattr(discovery_module.socket, "getaddrinfo", getaddrinfo)
    assert await resolve_name("web", 80) == ("10.0.0.1", "10.0.0.2")


async def test_a_resolver_that_hangs_is_not_asked_again_meanwhile(monkeypatch):
    """Else each interval would add a thread that hangs."""
    gate = threading.Event()
    asked: list[str] = []

    def getaddrinfo(host, port, **_):
        asked.append(host)
        gate.wait(10)
        return [(0, 0, 0, "", ("10.0.0.1", port))]

    monkeypatch.setattr(discovery_module.socket, "getaddrinfo", getaddrinfo)
    discovery = Discovery(lambda _: None, interval=0.01, deadline=0.02)
    discovery.watch("web", 80)
    await discovery.start()
    await eventually_async(lambda: discovery.problem("web"))
    await asyncio.sleep(0.15)  # some intervals, in which nothing may happen
    assert asked == ["web"]
    gate.set()
    await eventually_async(lambda: discovery.addresses("web") == ("10.0.0.1",))
    await discovery.stop()


async def test_a_name_outlives_a_system_without_room_for_threads(monkeypatch):
    """The watch goes on, says what is wrong, and finds the addresses once there is room again."""
    start = threading.Thread.start

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(discovery_module.socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", ("10.0.0.1", 80))])
    monkeypatch.setattr(threading.Thread, "start", refuse)
    discovery = Discovery(lambda _: None, interval=0.01)
    discovery.watch("web", 80)
    await discovery.start()
    await discovery.settle(1.0)
    assert discovery.problem("web") == "web: name does not resolve (no thread could be started)"
    monkeypatch.setattr(threading.Thread, "start", start)
    await eventually_async(lambda: discovery.addresses("web") == ("10.0.0.1",))
    assert discovery.problem("web") == ""
    await discovery.stop()
