"""Which pool and upstream a request goes to: preview before session before who is live."""

from __future__ import annotations

import time

import pytest
from support.routing import client, fields, make_service, service_spec

from bgproxy.config.schema import Preview, Sessions
from bgproxy.proxy.choice import Memory, choose, remember
from bgproxy.proxy.sessions import Pin, tag_of

NOW = 1_800_000_000
PUBLIC = "8.8.8.8"


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    times = [NOW]
    monkeypatch.setattr(time, "time", lambda: times[0])
    return times


# --- previews -----------------------------------------------------------------------------------------------------------


def previewed(service, *lines, live=0, peer="127.0.0.1", trusted=(), extra=(b"x-bgproxy-pool",)):
    """The pool that a request is sent to; None where nothing but who is live decides."""
    caller = client(peer, trusted)
    memory = Memory(service, fields(*lines, extra=extra), caller)
    return None if memory.plain else choose(service, memory, live, caller).pool.name


@pytest.mark.parametrize(
    ("named", "live", "pool"),
    [
        (b"blue", 0, "blue"),
        (b"green", 0, "green"),
        (b"GREEN", 0, "green"),
        (b"blue", 1, "blue"),
        (b"live", 0, "blue"),
        (b"live", 1, "green"),
        (b"idle", 0, "green"),
        (b"idle", 1, "blue"),
        (b"red", 0, None),
        (b"", 0, None),
        (b"green, blue", 0, None),
    ],
)
@pytest.mark.parametrize("by", [b"X-BGProxy-Pool: %b", b"Cookie: a=b; bgproxy_pool=%b"])
def test_a_tester_names_a_pool(by, named, live, pool):
    """By header or by cookie; live and idle are whoever is at the moment; any other word means nothing."""
    assert previewed(make_service(), by % named, live=live) == pool


def test_the_header_goes_before_the_cookie():
    """What is said with the request wins over what a browser carries along."""
    assert previewed(make_service(), b"Cookie: bgproxy_pool=blue", b"X-BGProxy-Pool: green") == "green"


def test_a_way_that_is_turned_off_is_not_there():
    """An empty name turns it off; the other way stays."""
    no_header = make_service(preview=Preview(header=""))
    assert previewed(no_header, b"X-BGProxy-Pool: green") is None
    assert previewed(no_header, b"Cookie: bgproxy_pool=green") == "green"
    no_cookie = make_service(preview=Preview(cookie=""))
    assert previewed(no_cookie, b"Cookie: bgproxy_pool=green; =green") is None
    assert previewed(no_cookie, b"X-BGProxy-Pool: green") == "green"


def test_the_header_of_another_service_means_nothing():
    """Names are known over all services, but each asks for its own."""
    service = make_service(preview=Preview(header="X-Mine"))
    assert previewed(service, b"X-Other: green", extra=(b"x-mine", b"x-other")) is None
    assert previewed(service, b"x-MINE: green", extra=(b"x-mine", b"x-other")) == "green"


@pytest.mark.parametrize(
    ("allow", "peer", "allowed"),
    [
        ("private", "127.0.0.1", True),
        ("private", "10.0.0.7", True),
        ("private", "::ffff:192.168.0.1", True),
        ("private", "", True),
        ("private", PUBLIC, False),
        ("private", "2001:db8::1", False),
        ("any", PUBLIC, True),
        (("8.8.0.0/16",), PUBLIC, True),
        (("8.8.0.0/16",), "8.9.0.1", False),
        (("8.8.0.0/16",), "127.0.0.1", False),
        ((), "127.0.0.1", False),
    ],
)
def test_who_may_name_a_pool(allow, peer, allowed):
    """Private peers, anybody, or a list of networks; a Unix peer is of this host. Others get what everybody gets."""
    service = make_service(preview=Preview(allow=allow))
    assert previewed(service, b"X-BGProxy-Pool: green", peer=peer) == ("green" if allowed else None)


@pytest.mark.parametrize(
    ("lines", "allowed"),
    [
        ((), True),
        ((b"X-Forwarded-For: 10.0.0.9",), True),
        ((b"X-Forwarded-For: 8.8.8.8",), False),
        ((b"X-Forwarded-For: 10.0.0.9, 8.8.8.8",), False),
        ((b"X-Forwarded-For: 8.8.8.8, 10.0.0.2",), False),
        ((b"X-Forwarded-For: 8.8.8.8", b"X-Forwarded-For: 10.0.0.2"), False),
        ((b"X-Forwarded-For: 8.8.8.8:1234",), False),
        ((b"X-Forwarded-For: unknown",), False),
    ],
)
def test_behind_a_trusted_proxy_the_client_counts(lines, allowed):
    """Not the proxy, which is private as a rule; over several lines, and where the client is nobody knows who."""
    service = make_service()
    named = (*lines, b"X-BGProxy-Pool: green")
    assert previewed(service, *named, peer="10.0.0.1", trusted=("10.0.0.0/30",)) == ("green" if allowed else None)


def test_an_untrusted_peer_cannot_say_where_it_is():
    """Its X-Forwarded-For is its own invention."""
    lines = (b"X-Forwarded-For: 127.0.0.1", b"X-BGProxy-Pool: green")
    assert previewed(make_service(), *lines, peer=PUBLIC) is None


def test_a_preview_of_an_empty_pool_has_no_upstream():
    """503 is the connection's to say; the tester is not sent elsewhere."""
    service = make_service(green=0)
    caller = client()
    chosen = choose(service, Memory(service, fields(b"X-BGProxy-Pool: green"), caller), 0, caller)
    assert (chosen.pool.name, chosen.upstream) == ("green", None)


def test_a_preview_leaves_sessions_alone():
    """Looking at the other pool does not pin to it."""
    service = make_service(sessions=Sessions(mode="cookie"))
    caller = client()
    chosen = choose(service, Memory(service, fields(b"X-BGProxy-Pool: green"), caller), 0, caller)
    assert (chosen.pool.name, chosen.extra) == ("green", b"")
    assert not chosen.pool.seen


# --- the memory ---------------------------------------------------------------------------------------------------------


def test_nothing_but_who_is_live_decides_a_plain_request():
    """The hot path asks no more."""
    assert Memory(make_service(), fields(b"Cookie: a=b"), client()).plain
    assert not Memory(make_service(sessions=Sessions(mode="cookie")), fields(), client()).plain
    assert not Memory(make_service(sessions=Sessions(mode="source")), fields(), client()).plain
    assert not Memory(make_service(), fields(b"X-BGProxy-Pool: blue"), client()).plain


def test_a_service_that_asks_nothing_of_clients_has_one_memory_for_all():
    """And a header block that names a pool has its own; so has every block where clients matter."""
    service = make_service()
    common = remember(service, fields(), client())
    assert remember(service, fields(b"Cookie: a=b"), client("8.8.8.8")) is common
    assert common.plain
    assert not remember(service, fields(b"X-BGProxy-Pool: green"), client()).plain
    assert not remember(service, fields(b"Cookie: bgproxy_pool=green"), client()).plain
    for rules in (
        {"balance": "source_hash"},
        {"sessions": Sessions(mode="source")},
        {"sessions": Sessions(mode="cookie")},
    ):
        asking = make_service(**rules)
        assert remember(asking, fields(), client()) is not remember(asking, fields(), client())


def test_the_common_memory_ends_with_the_rules_that_it_was_made_by():
    """A new spec of the service is judged anew."""
    service = make_service()
    common = remember(service, fields(), client())
    service.update(service_spec(preview=Preview(allow="any")), bytes(32), memoryview(bytearray(1 << 24)).cast("Q"))
    assert remember(service, fields(), client()) is not common


@pytest.mark.parametrize("rules", [{"balance": "source_hash"}, {"sessions": Sessions(mode="source")}])
def test_a_client_is_hashed_by_its_own_address(rules):
    """Behind trusted proxies by the one that they name; the same from every worker; 0 where nothing is hashed."""
    service = make_service(blue=5, **rules)
    direct = Memory(service, fields(), client(PUBLIC))
    behind = Memory(service, fields(b"X-Forwarded-For: 8.8.8.8"), client("10.0.0.1", ("10.0.0.0/8",)))
    other = Memory(service, fields(), client("8.8.4.4"))
    assert direct.key == behind.key != other.key
    assert 0 not in {direct.key, Memory(service, fields(), client("")).key}
    assert Memory(make_service(), fields(), client(PUBLIC)).key == 0


def test_a_source_session_keeps_its_upstream_and_follows_the_switch():
    """No cookie: the address decides, on whichever pool is live."""
    service = make_service(blue=5, green=5, sessions=Sessions(mode="source"))
    caller = client(PUBLIC)
    chosen = [choose(service, Memory(service, fields(), caller), 0, caller) for _ in range(5)]
    assert len({each.upstream for each in chosen}) == 1
    assert {each.extra for each in chosen} == {b""}
    assert choose(service, Memory(service, fields(), caller), 1, caller).pool.name == "green"


# --- cookie sessions ----------------------------------------------------------------------------------------------------


class Visit:
    """A client with a cookie jar, before a service with sessions: 3 upstreams a pool, a drain of 60 s, a ttl of 100 s."""

    def __init__(self, policy="follow", **options):
        sessions = Sessions(mode="cookie", on_switch=policy, drain=60.0, ttl=100.0)
        self.service = make_service(
            blue=options.pop("blue", 3), green=options.pop("green", 3), sessions=sessions, **options
        )
        self.jar = b""
        self.set = False

    def ask(self, live=0, *, since_switch=1000.0):
        """One request on a new connection, so long after a switch; returns pool and upstream."""
        lines = (b"Cookie: " + self.service.sessions.cookie + b"=" + self.jar,) if self.jar else ()
        caller = client(now=5000.0 + since_switch, switched_at=5000.0)
        chosen = choose(self.service, Memory(self.service, fields(*lines), caller), live, caller)
        self.set = bool(chosen.extra)
        if self.set:
            assert chosen.extra.startswith(b"Set-Cookie: ")
            self.jar = chosen.extra.partition(b"=")[2].partition(b";")[0]
        return chosen.pool.name, chosen.upstream and chosen.upstream.port

    def down(self, *ports):
        for pool in self.service.pools:
            for upstream in pool.upstreams:
                upstream.usable = upstream.port not in ports
            pool.ready = [upstream for upstream in pool.upstreams if upstream.usable]


def test_a_session_keeps_its_upstream():
    """The first answer sets the cookie; with it every later request goes to the same upstream, and sets none."""
    visit = Visit()
    first = visit.ask()
    assert visit.set
    for _ in range(9):
        assert visit.ask() == first
        assert not visit.set


def test_clients_without_a_cookie_are_spread():
    """Each begins a session of its own, by the balance."""
    service = Visit()
    ports = set()
    for _ in range(3):
        service.jar = b""
        ports.add(service.ask()[1])
    assert len(ports) == 3


@pytest.mark.parametrize(
    ("policy", "since_switch", "age", "pool"),
    [
        ("follow", 0.0, 0, "green"),
        ("follow", 30.0, 0, "green"),
        ("finish", 0.0, 0, "blue"),
        ("finish", 59.0, 0, "blue"),
        ("finish", 61.0, 0, "green"),
        ("finish", 30.0, 101, "green"),
        ("deadline", 0.0, 0, "blue"),
        ("deadline", 59.0, 101, "blue"),
        ("deadline", 61.0, 0, "green"),
    ],
)
def test_after_a_switch(clock, policy, since_switch, age, pool):
    """A session of blue, when green has become live: where it goes, and that it is told so once."""
    visit = Visit(policy)
    before = visit.ask(0)
    clock[0] += age
    after = visit.ask(1, since_switch=since_switch)
    assert after[0] == pool
    assert visit.set is (pool == "green")
    if pool == "blue":
        assert after == before
    elif not age:
        assert visit.ask(1, since_switch=since_switch) == after  # and there it stays
        assert not visit.set


@pytest.mark.parametrize("policy", ["finish", "deadline"])
def test_a_session_that_begins_after_the_switch_is_the_new_pools(policy):
    """Only what was pinned before stays behind."""
    assert Visit(policy).ask(1, since_switch=0.0)[0] == "green"


def test_a_rollback_takes_back_by_the_same_rules_and_to_one_place():
    """Who moved to green goes back at once by `follow`, every time to the same upstream, whichever worker picks it."""
    visit = Visit("follow")
    visit.ask(0)
    green = visit.ask(1)
    blue = visit.ask(0)
    assert blue[0] == "blue"
    assert [visit.ask(1), visit.ask(0), visit.ask(1)] == [green, blue, green]
    other_worker = Visit("follow")
    other_worker.jar = visit.jar
    assert other_worker.ask(0) == blue


@pytest.mark.parametrize("policy", ["finish", "deadline"])
def test_a_rollback_leaves_who_never_moved_where_it_is(policy):
    """A session of blue that stayed is on the live pool again, with its upstream and without a word."""
    visit = Visit(policy)
    before = visit.ask(0)
    assert visit.ask(1, since_switch=5.0) == before
    assert visit.ask(0, since_switch=1.0) == before
    assert not visit.set


@pytest.mark.parametrize("policy", ["finish", "deadline"])
def test_a_rollback_drains_who_began_on_the_new_pool(policy):
    """A session of green stays there for its drain from the rollback on."""
    visit = Visit(policy)
    green = visit.ask(1)
    assert visit.ask(0, since_switch=59.0) == green
    assert visit.ask(0, since_switch=61.0)[0] == "blue"


def test_a_pinned_upstream_that_is_down_is_picked_anew():
    """Never an error; the same new one by every worker; the cookie says so."""
    visit = Visit()
    pool, port = visit.ask()
    visit.down(port)
    jar = visit.jar
    again = visit.ask()
    assert again[0] == pool
    assert again[1] not in {port, None}
    assert visit.set
    visit.jar = jar
    assert visit.ask() == again
    assert visit.ask() == again
    assert not visit.set


def test_a_pinned_upstream_that_is_gone_is_picked_anew():
    """The tag in the cookie is nobody's any more."""
    visit = Visit()
    visit.jar = visit.service.sessions.write(Pin(0, NOW, b"sessions", tag_of("gone:1"))).partition(b"=")[2][:41]
    assert visit.ask()[0] == "blue"
    assert visit.set


@pytest.mark.parametrize("policy", ["finish", "deadline"])
def test_a_pinned_pool_that_is_down_as_a_whole_is_left(policy):
    """Staying must not mean an error: the session moves to the live pool."""
    visit = Visit(policy)
    visit.ask(0)
    visit.down(9000, 9001, 9002)
    assert visit.ask(1, since_switch=1.0)[0] == "green"
    assert visit.set


def test_a_live_pool_that_is_down_as_a_whole_has_no_upstream():
    """Pinned or new: 503, and no cookie."""
    visit = Visit()
    assert visit.ask(1)[0] == "green"
    visit.down(9500, 9501, 9502)
    assert visit.ask(1) == ("green", None)
    assert not visit.set
    visit.jar = b""
    assert visit.ask(1) == ("green", None)
    assert not visit.set


@pytest.mark.parametrize("jar", [b"forged", b"A" * 24 + b"." + b"A" * 16])
def test_a_forged_cookie_begins_a_session_anew(jar):
    """It cannot choose a pool; the client gets a good one instead."""
    visit = Visit("finish")
    visit.jar = jar
    assert visit.ask(1, since_switch=0.0)[0] == "green"
    assert visit.set
    assert visit.jar != jar


def test_a_cookie_of_another_service_is_nobodys():
    """Even under the right name: the signature is the service's."""
    other = Visit("finish", name="api")
    other.ask(0)
    visit = Visit("finish")
    visit.jar = other.jar
    assert visit.ask(1, since_switch=0.0)[0] == "green"
    assert visit.set


def test_an_expired_cookie_on_the_live_pool_is_renewed_with_its_upstream(clock):
    """The client stays; a new life begins."""
    visit = Visit()
    before = visit.ask()
    clock[0] += 101
    assert visit.ask() == before
    assert visit.set
    assert visit.ask() == before
    assert not visit.set


def test_an_expired_cookie_that_moves_begins_a_new_life(clock):
    """A cookie for one more second would send the client elsewhere with its next request."""
    visit = Visit()
    visit.ask(0)
    clock[0] += 101
    moved = visit.ask(1)
    clock[0] += 2
    assert visit.ask(1) == moved
    assert not visit.set


def test_sessions_are_counted_where_they_are():
    """Distinct ids, on the pool that served them."""
    visit = Visit()
    for _ in range(3):
        visit.ask(0)
    assert [len(pool.seen) for pool in visit.service.pools] == [1, 0]
    visit.ask(1)
    assert [len(pool.seen) for pool in visit.service.pools] == [1, 1]
    visit.jar = b""
    visit.ask(0)
    assert [len(pool.seen) for pool in visit.service.pools] == [2, 1]
