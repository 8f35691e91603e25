"""Session cookies: what they say, who can have written them, and how long they hold a client to a pool."""

from __future__ import annotations

import time
from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from support.routing import KEY

from bgproxy.config.schema import ONLY_SERVICE, Sessions
from bgproxy.http1.request import cookie_value
from bgproxy.proxy.sessions import Pin, SessionRules, tag_of

NOW = 1_800_000_000


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The time of day stands still; a test may set it."""
    times = [NOW]
    monkeypatch.setattr(time, "time", lambda: times[0])
    return times


def rules(service="shop", key=KEY, **settings):
    return SessionRules(service, Sessions(mode="cookie", **settings), key)


def pin(pool=1, issued=NOW, tag=None):
    return Pin(pool, issued, b"sessions", tag_of("127.0.0.1:9000") if tag is None else tag)


def value_of(line):
    """The cookie's value in a Set-Cookie line."""
    return line.partition(b"=")[2].partition(b";")[0]


def said(pin):
    return None if pin is None else (pin.pool, pin.issued, pin.session, pin.tag)


# --- the cookie ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", [0, 1])
def test_what_is_written_is_read_back(pool):
    """Pool, time of issue, session and upstream; by any worker that has the key."""
    written = pin(pool)
    assert said(rules().read(value_of(rules().write(written)))) == said(written)


def test_the_line_is_a_cookie_that_scripts_cannot_read():
    """HttpOnly, SameSite=Lax, Path=/, for what is left of its life (product: sessions)."""
    line = rules(ttl=100.0).write(pin(issued=NOW - 40))
    name, _, rest = line.partition(b"=")
    assert name == b"Set-Cookie: bgproxy_session_shop"
    assert rest.endswith(b"; Max-Age=60; Path=/; HttpOnly; SameSite=Lax\r\n")
    assert b'"' not in value_of(line)
    assert not value_of(line).translate(None, b"-_.=ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")


def test_the_value_survives_the_cookie_header():
    """What a browser sends back among others is what was set."""
    value = value_of(rules().write(pin()))
    sent = b"a=b; " + rules().cookie + b"=" + value + b"; c=d"
    assert rules().read(cookie_value(sent, rules().cookie)) is not None


@pytest.mark.parametrize(
    ("service", "configured", "name"),
    [
        ("shop", "bgproxy_session", b"bgproxy_session_shop"),
        (ONLY_SERVICE, "bgproxy_session", b"bgproxy_session"),
        ("shop", "mine", b"mine"),
    ],
)
def test_services_on_one_host_have_cookies_of_their_own(service, configured, name):
    """The default name carries the service's, where there is more than one."""
    assert rules(service, cookie=configured).cookie == name


def test_every_bit_of_it_is_under_the_signature():
    """A flip of any bit in payload or signature makes it nobody's."""
    value = value_of(rules().write(pin()))
    payload, mac = urlsafe_b64decode(value[:24]), urlsafe_b64decode(value[25:])
    for index in range(len(payload + mac)):
        for bit in range(8):
            forged = bytearray(payload + mac)
            forged[index] ^= 1 << bit
            text = urlsafe_b64encode(bytes(forged[:18])) + b"." + urlsafe_b64encode(bytes(forged[18:]))
            assert rules().read(text) is None, (index, bit)


def test_neither_another_service_nor_another_key_can_have_written_it():
    """A cookie that is moved between services, or made by somebody else, says nothing."""
    value = value_of(rules().write(pin()))
    assert rules("api").read(value) is None
    assert rules(key=bytes(32)).read(value) is None


def test_a_pool_that_is_none_is_not_read():
    """Even if we had signed it."""
    assert rules().read(value_of(rules().write(Pin(2, NOW, b"sessions", b"12345")))) is None


@pytest.mark.parametrize(
    "value", [b"", b"x", b"." * 41, b"A" * 41, b"\xff" * 41, b"=" * 41, b"A" * 24 + b"." + b"*" * 16, b"A" * 4096]
)
def test_rubbish_is_no_pin_and_no_error(value):
    """Whatever a client sends."""
    assert rules().read(value) is None


def test_a_new_pin_is_of_now_and_of_nobody_else():
    """Each session has an id of its own."""
    first, second = rules().begin(1, b"12345"), rules().begin(1, b"12345")
    assert (first.pool, first.issued, first.tag) == (1, NOW, b"12345")
    assert first.session != second.session
    assert len(first.session) == 8


def test_a_tag_is_five_bytes_and_tells_upstreams_apart():
    """It stands in the cookie instead of an address."""
    tags = {tag_of(f"127.0.0.1:{port}") for port in range(1000)}
    assert len(tags) == 1000
    assert {len(tag) for tag in tags} == {5}


# --- how long it holds --------------------------------------------------------------------------------------------------

SWITCH = 500.0  # CLOCK_MONOTONIC of the switch; drain is 60 s, ttl 100 s


@pytest.mark.parametrize(
    ("policy", "since_switch", "age", "stays"),
    [
        ("follow", 0.0, 0, False),
        ("follow", 59.0, 0, False),
        ("finish", 0.0, 0, True),
        ("finish", 59.9, 0, True),
        ("finish", 60.0, 0, False),
        ("finish", 1.0, 99, True),
        ("finish", 1.0, 100, False),
        ("deadline", 0.0, 0, True),
        ("deadline", 59.9, 0, True),
        ("deadline", 60.0, 0, False),
        ("deadline", 1.0, 100, True),
        ("deadline", 59.0, 10_000, True),
    ],
)
def test_whether_a_pinned_client_stays_after_a_switch(policy, since_switch, age, stays):
    """`follow` moves at once; `finish` until the cookie or the drain ends; `deadline` until the drain ends."""
    session = rules(on_switch=policy, drain=60.0, ttl=100.0)
    assert session.stays(pin(0, issued=NOW - age), 1, SWITCH, SWITCH + since_switch) is stays


@pytest.mark.parametrize("policy", ["follow", "finish", "deadline"])
def test_on_the_live_pool_a_client_always_stays(policy):
    """However old the cookie and however long ago the switch."""
    session = rules(on_switch=policy, drain=60.0, ttl=100.0)
    assert session.stays(pin(1, issued=NOW - 10_000), 1, SWITCH, SWITCH + 10_000)


def test_a_life_is_counted_from_the_first_issue(clock):
    """Not renewed by use; one from the future, of a clock that was set back, is fresh."""
    session = rules(ttl=100.0)
    assert not session.expired(pin(issued=NOW))
    assert not session.expired(pin(issued=NOW + 5000))
    clock[0] = NOW + 100
    assert session.expired(pin(issued=NOW))


def test_a_pin_shows_itself_without_its_tag():
    """In a debugger; nothing of the signature."""
    assert repr(pin()) == f"<Pin pool=1 issued={NOW} session={b'sessions'.hex()}>"


def test_over_tls_the_cookie_is_secure():
    """And is the same otherwise."""
    line = rules().write(pin())
    assert b"Secure" not in line
    assert rules().write(pin(), secure=True) == line.removesuffix(b"\r\n") + b"; Secure\r\n"
