"""Services, pools and upstreams of a worker: specs taken, connections kept, counts stored and found again."""

from __future__ import annotations

import dataclasses

import pytest
from support.routing import KEY, area, make_service, service_spec, upstream_spec

from bgproxy.config import schema
from bgproxy.model.snapshot import PoolSpec, TlsSpec, UpstreamSpec
from bgproxy.proxy.balance import SOURCE_HASH
from bgproxy.proxy.runtime import Service, Upstream
from bgproxy.switchboard import layout


@pytest.fixture
def cells():
    return area()


def blue_of(spec, *upstreams):
    """The spec with another blue pool."""
    return dataclasses.replace(spec, pools=(PoolSpec("blue", "2", upstreams), spec.pools[1]))


# --- taking specs -------------------------------------------------------------------------------------------------------


def test_a_service_has_its_rules_in_the_form_that_a_claim_needs(cells):
    """Numbers, bytes and lists, made once a spec."""
    spec = service_spec(
        balance="source_hash",
        path="/api",
        retries=schema.Retries(attempts=3),
        drain=schema.Drain(requests=1.0, streams=2.0, websockets=3.0),
        preview=schema.Preview(header="X-Mine", cookie="mine", allow="any"),
        sessions=schema.Sessions(mode="source"),
        expose_pool=True,
    )
    service = make_service(spec, cells)
    assert (service.balance, service.retries, service.drain) == (SOURCE_HASH, 3, [1.0, 2.0, 3.0])
    assert (service.path, service.expose_pool, service.source_sessions) == (b"/api", True, True)
    assert (service.preview_header, service.preview_cookie, service.preview_allow) == (b"x-mine", b"mine", "any")
    assert service.sessions is None
    service.update(service_spec(sessions=schema.Sessions(mode="cookie")), KEY, cells)
    assert service.sessions is not None
    assert not service.source_sessions


@pytest.mark.parametrize(
    ("address", "url", "place", "authority"),
    [
        (("127.0.0.1", 9001), "http://127.0.0.1:9001", ("", "127.0.0.1", 9001), b"127.0.0.1:9001"),
        (("172.18.0.3", 8000), "http://web:8000", ("", "172.18.0.3", 8000), b"web:8000"),
        ("/run/app.sock", "unix:///run/app.sock", ("/run/app.sock", "", 0), b"localhost"),
    ],
)
def test_where_an_upstream_is(cells, address, url, place, authority):
    """A numeric address or a path; the name that it was configured by is what a request without Host is given."""
    pool = make_service().pools[0]
    upstream = Upstream(UpstreamSpec("id", 0, url, address, usable=True), pool, cells)
    assert (upstream.path, upstream.host, upstream.port) == place
    assert upstream.authority == authority


def test_an_upstream_that_stays_is_the_same_one(cells):
    """Its connections and counts go on; what is gone is given back, and keeps none."""
    spec = service_spec(blue=2)
    service = make_service(spec, cells)
    pool = service.pools[0]
    stays, goes = pool.upstreams
    connection = object()
    stays.idle.append(connection)
    stays.in_flight = 3
    gone = service.update(blue_of(spec, upstream_spec(9000, 0), upstream_spec(9007, 7)), KEY, cells)
    assert gone == [goes]
    assert not goes.usable
    assert pool.upstreams[0] is stays
    assert (stays.idle, stays.in_flight) == ([connection], 3)
    assert [upstream.id for upstream in pool.ready] == ["127.0.0.1:9000", "127.0.0.1:9007"]
    assert pool.version == "2"


def test_an_upstream_in_another_slot_is_another_one(cells):
    """Its cells are not where they were: the former is gone, whatever its id."""
    spec = service_spec()
    service = make_service(spec, cells)
    (former,) = service.pools[0].upstreams
    gone = service.update(blue_of(spec, upstream_spec(9000, 5)), KEY, cells)
    assert gone == [former]
    assert service.pools[0].upstreams[0].slot == 5


def test_what_is_not_usable_is_not_ready(cells):
    """It stays an upstream of the pool, with its place on the ring, and comes back as itself."""
    spec = service_spec(blue=3)
    service = make_service(spec, cells)
    pool = service.pools[0]
    before = list(pool.upstreams)
    ring = pool.ring
    down = [upstream_spec(9000, 0), upstream_spec(9001, 1, usable=False), upstream_spec(9002, 2)]
    assert service.update(blue_of(spec, *down), KEY, cells) == []
    assert pool.upstreams == before
    assert pool.ready == [before[0], before[2]]
    assert pool.ring is ring
    service.update(spec, KEY, cells)
    assert pool.ready == before


def test_a_pool_that_changes_gets_a_ring_and_tags_of_its_own(cells):
    """Numbers on the ring are places in the list of upstreams, in its order."""
    spec = service_spec(blue=2)
    service = make_service(spec, cells)
    pool = service.pools[0]
    service.update(blue_of(spec, upstream_spec(9001, 1), upstream_spec(9000, 0)), KEY, cells)
    assert pool.ring.ids == [upstream.id for upstream in pool.upstreams] == ["127.0.0.1:9001", "127.0.0.1:9000"]
    assert {tag: upstream.tag for tag, upstream in pool.by_tag.items()} == {tag: tag for tag in pool.by_tag}
    service.update(blue_of(spec), KEY, cells)
    assert (pool.upstreams, pool.ready, pool.by_tag, pool.ring.ids) == ([], [], {}, [])


def test_an_update_does_not_touch_what_a_pool_is_in_the_middle_of(cells):
    """Its drain, its counts and what is in flight are not of the spec."""
    spec = service_spec()
    service = make_service(spec, cells)
    pool = service.pools[0]
    pool.draining_since = 12.0
    pool.in_flight[1] = 4
    pool.codes[3] = 9
    service.update(blue_of(spec), KEY, cells)
    assert service.pools[0] is pool
    assert (pool.draining_since, pool.in_flight, pool.codes[3]) == (12.0, [0, 4, 0], 9)


# --- cells --------------------------------------------------------------------------------------------------------------


def fill(service):
    """Give every count of the blue pool and its upstream another number."""
    pool = service.pools[0]
    pool.in_flight = [1, 2, 3]
    pool.cut = [4, 5, 6]
    pool.bytes_in, pool.bytes_out, pool.duration_us, pool.retries, pool.unsafe = 7, 8, 9, 10, 11
    pool.buckets = [100 + index for index in range(layout.BUCKET_COUNT)]
    pool.codes = [200 + index for index in range(len(layout.CODE_LIST))]
    pool.note_session(b"a")
    pool.note_session(b"b")
    upstream = pool.upstreams[0]
    upstream.in_flight, upstream.requests, upstream.failures, upstream.connections = 12, 13, 14, 15
    return pool


def test_a_flush_stores_every_count_in_its_cell(cells):
    """Each where the layout says, in the pool's own range and nowhere else."""
    service = make_service(service_spec(slot=3), cells)
    pool = fill(service)
    pool.dirty = True
    pool.flush(cells)
    assert not pool.dirty
    base = layout.pool_base(3, 0)
    expected = {
        **{base + layout.IN_FLIGHT + index: index + 1 for index in range(3)},
        **{base + layout.CUT + index: index + 4 for index in range(3)},
        base + layout.BYTES_IN: 7,
        base + layout.BYTES_OUT: 8,
        base + layout.DURATION_US: 9,
        base + layout.RETRIES: 10,
        base + layout.UNSAFE: 11,
        base + layout.SESSIONS: 2,
        **{base + layout.BUCKETS + index: 100 + index for index in range(layout.BUCKET_COUNT)},
        **{base + layout.CODES + index: 200 + index for index in range(len(layout.CODE_LIST))},
        layout.upstream_base(0) + layout.UP_IN_FLIGHT: 12,
        layout.upstream_base(0) + layout.UP_REQUESTS: 13,
        layout.upstream_base(0) + layout.UP_FAILURES: 14,
        layout.upstream_base(0) + layout.UP_CONNECTIONS: 15,
    }
    assert {at: value for at, value in enumerate(cells.tolist()) if value} == expected


def test_a_successor_counts_on_and_begins_with_nothing_in_flight(cells):
    """Counters never fall when a worker dies; what it had in flight, open and pinned died with it."""
    spec = service_spec()
    fill(make_service(spec, cells)).flush(cells)
    successor = Service(spec)
    for pool in successor.pools:
        pool.adopt(cells)
    successor.update(spec, KEY, cells)
    pool = successor.pools[0]
    assert pool.in_flight == [0, 0, 0]
    assert pool.cut == [4, 5, 6]
    assert (pool.bytes_in, pool.bytes_out, pool.duration_us, pool.retries, pool.unsafe) == (7, 8, 9, 10, 0)
    assert pool.buckets == [100 + index for index in range(layout.BUCKET_COUNT)]
    assert pool.codes == [200 + index for index in range(len(layout.CODE_LIST))]
    upstream = pool.upstreams[0]
    assert (upstream.in_flight, upstream.requests, upstream.failures, upstream.connections) == (0, 13, 14, 0)
    # The gauges of the dead are gone from the cells at once: a drain reads them before any flush.
    base, at = layout.pool_base(0, 0), layout.upstream_base(0)
    gauges = [base + layout.IN_FLIGHT + index for index in range(3)] + [base + layout.UNSAFE, base + layout.SESSIONS]
    gauges += [at + layout.UP_IN_FLIGHT, at + layout.UP_CONNECTIONS]
    assert [cells[cell] for cell in gauges] == [0] * len(gauges)
    pool.flush(cells)
    assert cells[base + layout.CODES] == 200
    assert cells[base + layout.CUT] == 4


def test_a_rejected_request_is_counted_for_its_pool(cells):
    """By its code, and noticed by the next sweep."""
    pool = make_service(None, cells).pools[1]
    pool.count_rejected(503)
    pool.count_rejected(599)
    assert pool.dirty
    assert pool.codes[layout.code_cell(503)] == 1
    assert pool.codes[layout.code_cell(500)] == 1


# --- sessions -----------------------------------------------------------------------------------------------------------


def sessions_of(pool, cells):
    pool.flush(cells)
    return cells[layout.pool_base(0, 0) + layout.SESSIONS]


def test_sessions_are_about_for_a_minute_or_two(cells):
    """Distinct ids of this minute and the one before, each counted once."""
    pool = make_service(None, cells).pools[0]
    for session in (b"a", b"b", b"a"):
        pool.note_session(session)
    assert sessions_of(pool, cells) == 2
    pool.age_sessions()
    assert pool.dirty
    assert sessions_of(pool, cells) == 2
    pool.note_session(b"b")
    pool.note_session(b"c")
    assert sessions_of(pool, cells) == 3
    pool.age_sessions()
    assert sessions_of(pool, cells) == 2
    pool.age_sessions()
    assert sessions_of(pool, cells) == 0


def test_sessions_are_remembered_boundedly(cells):
    """Clients that keep no cookie begin one with every request: the memory has an end."""
    pool = make_service(None, cells).pools[0]
    for number in range(70_000):
        pool.note_session(number.to_bytes(8, "big"))
    assert len(pool.seen) == sessions_of(pool, cells) == 65_536


def test_what_is_shown_says_what_matters():
    """In a debugger: ids, usability and load."""
    pool = make_service().pools[0]
    assert repr(pool) == "<Pool shop/blue ready=1 in_flight=[0, 0, 0]>"
    assert repr(pool.upstreams[0]) == "<Upstream 127.0.0.1:9000 usable=True in_flight=0 idle=0>"


def test_upstreams_that_are_spoken_to_in_another_way_begin_anew() -> None:
    """Their connections are not kept any more; what they have counted is. Plain ones do not mind other certificates."""
    cells = area()
    spec = service_spec()
    plain = upstream_spec(9000, 0)
    secure = dataclasses.replace(upstream_spec(9001, 1), url="https://127.0.0.1:9001")
    service = make_service(blue_of(spec, plain, secure), cells)
    first, second = service.pools[0].upstreams
    second.requests = 7
    other = blue_of(spec, plain, secure)
    other = dataclasses.replace(
        other, pools=(dataclasses.replace(other.pools[0], tls=TlsSpec(verify=False)), other.pools[1])
    )
    assert service.update(other, KEY, cells) == [second]
    assert not second.keeps
    same, anew = service.pools[0].upstreams
    assert same is first
    assert (anew.requests, anew.secure, anew.server_name) == (7, True, "127.0.0.1")
    other = dataclasses.replace(other, pools=(dataclasses.replace(other.pools[0], send_proxy="v2"), other.pools[1]))
    assert service.update(other, KEY, cells) == [first, anew]
    assert [(upstream.usable, upstream.keeps) for upstream in service.pools[0].upstreams] == [(True, False)] * 2
