"""Following a drain."""

from __future__ import annotations

import pytest
from support.fake_admin import drain, pool, service

from bgproxy.cli.client import Client
from bgproxy.cli.drain import PATIENCE, Follower, Old, drained_words, waits_for
from bgproxy.cli.exits import UnreachableError


class Clock:
    """Time that passes only when someone sleeps; `at` may do something on the way."""

    def __init__(self, at=lambda now: None):
        self.time = 0.0
        self._at = at

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.time += seconds
        self._at(self.time)


def follower(clock):
    return Follower(Client.of(None), now=clock.now, sleep=clock.sleep)


def test_polls_until_empty(admin, capsys):
    """The pool is watched until its drain is over."""
    admin.services["shop"] = service(live="green", blue=pool("draining", drain=drain(streams=1)))

    def end(now):
        if now > 1:
            admin.services["shop"] = service(live="green", blue=pool())

    clock = Clock(end)
    assert follower(clock).follow([Old("shop", "blue")]) == 0
    assert clock.time == pytest.approx(1.2)
    assert capsys.readouterr().out.splitlines() == [
        "shop: blue drains, waits for 1 stream (cut in 4m 59s)",
        "shop: blue is drained",
    ]


def test_in_flight_without_a_drain_is_not_drained(admin):
    """Both must hold: no drain, and nothing in flight."""
    admin.services["shop"] = service(live="green", blue=pool(in_flight={"requests": 1, "streams": 0, "websockets": 0}))

    def end(now):
        admin.services["shop"] = service(live="green", blue=pool())

    clock = Clock(end)
    follower(clock).follow([Old("shop", "blue")])
    assert clock.time > 0


def test_an_api_that_is_away_for_a_moment(admin, capsys):
    """A restart of the controller in the middle of a drain does not end the wait."""
    admin.script["GET", "/v1/services/shop"] = lambda: (200, b"not yet")

    def back(now):
        if now > PATIENCE / 2:
            admin.script.clear()
            admin.services["shop"] = service(live="green", blue=pool())

    assert follower(Clock(back)).follow([Old("shop", "blue")]) == 0
    assert capsys.readouterr().out == "shop: blue is drained\n"


def test_an_api_that_stays_away(admin):
    """In the end it is said that the switch was made and only the view of it is lost."""
    admin.script["GET", "/v1/services/shop"] = lambda: (200, b"gone")
    clock = Clock()
    with pytest.raises(UnreachableError, match="the switch was made, but its drain is out of sight"):
        follower(clock).follow([Old("shop", "blue")])
    assert clock.time == pytest.approx(PATIENCE, abs=0.3)


def test_words_of_a_drain():
    """What is waited for, for how long, and sessions that stay."""
    assert waits_for(pool(drain=drain())) == "nearly empty"
    assert waits_for(pool(drain=drain(requests=2))) == "waits for 2 requests (cut in 29 s)"
    assert waits_for(pool(drain=drain() | {"sessions_until_in": 60})) == "sessions stay for 1m 0s at the most"


def test_words_of_its_end():
    """What ended by itself, what was cut, or that there was nothing."""
    assert drained_words({"seconds": 0.01}) == ", nothing was in flight"
    assert drained_words({"requests": 3, "seconds": 2}) == " after 2.0 s: 3 requests finished, nothing was cut"
    assert drained_words({"cut": {"streams": 2}, "seconds": 300}) == " after 5m 0s: cut at the deadline: 2 streams"
