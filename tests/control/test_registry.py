"""The registry: what upstreams and pools are good for, and what the workers are told."""

from __future__ import annotations

import pytest

from bgproxy.config.schema import Deployment, Pools, Warm
from bgproxy.config.schema import Pool as PoolSettings
from bgproxy.config.schema import Service as Settings
from bgproxy.control.places import Place
from bgproxy.control.registry import Placed, Pool, Registry, Service, Upstream
from bgproxy.control.slots import Slots
from bgproxy.errors import Busy, NotFound, Refused
from bgproxy.model.machine import IllegalTransition
from bgproxy.model.pool import PoolEvent, PoolState
from bgproxy.model.snapshot import TlsSpec
from bgproxy.model.upstream import UpstreamEvent, UpstreamState


def place(port: int) -> Place:
    return Place(f"127.0.0.1:{port}", f"http://127.0.0.1:{port}", ("127.0.0.1", port))


def put(pool: Pool, *places: Place, slots: Slots | None = None) -> Placed:
    slots = slots or Slots(10, "upstreams")
    return pool.place(places, lambda _: slots.take(), slots.give_back)


def pool_of(*ports: int) -> Pool:
    pool = Pool("blue")
    put(pool, *map(place, ports))
    return pool


def test_an_upstream_that_is_not_checked_yet_is_used_only_where_it_must_be() -> None:
    """In a live pool requests need somewhere to go; elsewhere a new upstream is proven first."""
    upstream = Upstream(place(1), 0)
    assert upstream.usable(live=True)
    assert not upstream.usable(live=False)
    upstream.step(UpstreamEvent.FELL)
    assert not upstream.usable(live=True)
    upstream.step(UpstreamEvent.ROSE)
    assert upstream.usable(live=False)


@pytest.mark.parametrize("event", [UpstreamEvent.DRAIN, UpstreamEvent.MAINT])
def test_an_upstream_that_is_out_by_hand_is_no_trouble(event: UpstreamEvent) -> None:
    """Nothing new goes there, and a pool is healthy without it."""
    pool = pool_of(1, 2)
    pool.upstreams[0].step(UpstreamEvent.ROSE)
    pool.upstreams[1].step(event)
    assert pool.upstreams[1].by_hand
    assert not pool.upstreams[1].usable(live=True)
    assert pool.healthy


def test_an_event_that_the_table_lacks_changes_nothing() -> None:
    """A check that ends after an operator took the upstream out does not bring it back."""
    upstream = Upstream(place(1), 0)
    upstream.step(UpstreamEvent.MAINT)
    assert not upstream.step(UpstreamEvent.ROSE)
    assert upstream.state is UpstreamState.MAINT


def test_every_upstream_that_is_not_up_is_a_trouble_with_its_reason() -> None:
    """An operator reads one line for each: down, ejected, being checked, not resolved."""
    pool = pool_of(1, 2, 3)
    down, ejected, _checking = pool.upstreams
    down.step(UpstreamEvent.FELL)
    down.reason = "connection refused"
    ejected.step(UpstreamEvent.ROSE)
    ejected.ejected, ejected.reason = True, "5 failures within 10s"
    pool.unresolved = [("http://web:8000", "web: name does not resolve")]
    assert pool.troubles() == [
        "127.0.0.1:1: connection refused",
        "127.0.0.1:2: ejected: 5 failures within 10s",
        "127.0.0.1:3: still being checked",
        "http://web:8000: web: name does not resolve",
    ]
    assert not pool.healthy


def test_a_name_of_both_families_is_healthy_on_the_one_that_is_served() -> None:
    """As localhost is; but one that is down among others of its family is a trouble, and so is a name that nobody serves."""
    pool = Pool("blue")
    addresses = (("four", "127.0.0.1"), ("six", "::1"), ("second", "127.0.0.2"))
    put(pool, *(Place(f"localhost:1~{name}", "http://localhost:1", (address, 1)) for name, address in addresses[:2]))
    four, six = pool.upstreams
    six.step(UpstreamEvent.FELL)
    assert not pool.healthy
    four.step(UpstreamEvent.ROSE)
    assert pool.healthy
    put(pool, *(Place(f"localhost:1~{name}", "http://localhost:1", (address, 1)) for name, address in addresses))
    pool.upstreams[2].step(UpstreamEvent.FELL)
    assert pool.troubles() == ["localhost:1~second: down"]
    four.step(UpstreamEvent.FELL)
    assert len(pool.troubles()) == 3


def test_a_pool_without_upstreams_is_not_healthy() -> None:
    """Nothing to complain of is not enough."""
    assert not Pool("green").healthy


def test_a_part_of_the_upstreams_can_be_enough() -> None:
    """Those that are out by hand are not asked for; of none, nothing is enough."""
    pool = pool_of(1, 2, 3, 4)
    for upstream in pool.upstreams[:3]:
        upstream.step(UpstreamEvent.ROSE)
    pool.upstreams[3].step(UpstreamEvent.FELL)
    assert (pool.is_fit(75.0), pool.is_fit(76.0), pool.is_fit(100.0)) == (True, False, False)
    pool.upstreams[3].step(UpstreamEvent.MAINT)
    assert pool.is_fit(100.0)
    assert not Pool("green").is_fit(0.0)


def test_an_idle_pool_becomes_a_standby_when_it_is_healthy_and_back() -> None:
    """The state of a pool that is not live follows its health."""
    pool = pool_of(1)
    pool.refresh()
    assert pool.state is PoolState.IDLE
    pool.upstreams[0].step(UpstreamEvent.ROSE)
    pool.refresh()
    assert pool.state is PoolState.STANDBY
    pool.upstreams[0].step(UpstreamEvent.FELL)
    pool.refresh()
    assert pool.state is PoolState.IDLE


def test_an_illegal_step_of_a_pool_raises_and_changes_nothing() -> None:
    """An idle pool cannot have been switched away from."""
    pool = Pool("blue")
    with pytest.raises(IllegalTransition):
        pool.step(PoolEvent.SWITCHED_AWAY)
    assert pool.state is PoolState.IDLE


def test_upstreams_that_stay_keep_identity_slot_and_state() -> None:
    """A new list of upstreams touches those that are in both as little as can be."""
    slots = Slots(10, "upstreams")
    pool = Pool("blue")
    put(pool, place(1), place(2), slots=slots)
    kept = pool.upstreams[1]
    kept.step(UpstreamEvent.ROSE)
    new, gone = put(pool, place(3), place(2), slots=slots)
    assert [upstream.id for upstream in new] == ["127.0.0.1:3"]
    assert [upstream.id for upstream in gone] == ["127.0.0.1:1"]
    assert pool.upstreams[1] is kept
    assert kept.state is UpstreamState.UP
    assert [upstream.slot for upstream in pool.upstreams] == [2, 1]


def test_without_slots_nothing_of_a_pool_changes() -> None:
    """The refusal leaves the pool and the slots as they were."""
    slots = Slots(2, "upstreams")
    pool = Pool("blue")
    put(pool, place(1), slots=slots)
    with pytest.raises(Refused):
        put(pool, place(2), place(3), slots=slots)
    assert [upstream.id for upstream in pool.upstreams] == ["127.0.0.1:1"]
    assert slots.free == 1


def test_an_upstream_that_comes_back_is_still_out_by_hand() -> None:
    """What an operator said of an id holds, though a name lost that address for a while."""
    pool = Pool("blue")
    pool.by_hand = {"127.0.0.1:1": "maint"}
    put(pool, place(1))
    assert pool.upstreams[0].state is UpstreamState.MAINT


def test_what_is_said_of_a_url_holds_for_its_addresses_unless_one_is_named() -> None:
    """A name in maint, and one of its addresses in another state."""
    pool = Pool("blue")
    pool.by_hand = {"http://web": "maint", "web:80~10.0.0.2:80": "draining"}
    put(pool, *(Place(f"web:80~10.0.0.{n}:80", "http://web", (f"10.0.0.{n}", 80)) for n in (1, 2)))
    assert [upstream.state for upstream in pool.upstreams] == [UpstreamState.MAINT, UpstreamState.DRAINING]


def test_one_change_of_a_service_at_a_time() -> None:
    """The second is refused, of several services as a whole, until the first has ended."""
    registry = Registry()
    shop, api = (Service(name, slot, Settings(pools=Pools())) for slot, name in enumerate(("shop", "api")))
    registry.claim([shop], "a switch")
    with pytest.raises(Busy, match="shop: a switch is under way"):
        registry.claim([api, shop], "another")
    assert not api.changing
    registry.release([shop])
    registry.claim([api, shop], "another")


def test_upstreams_are_found_by_id_url_and_name() -> None:
    """All addresses of a name answer to its URL."""
    pool = Pool("blue")
    named = [Place(f"web:80~10.0.0.{n}:80", "http://web", (f"10.0.0.{n}", 80)) for n in (1, 2)]
    put(pool, *named)
    assert pool.find("http://web") == pool.upstreams
    assert pool.find("web:80") == pool.upstreams
    assert pool.find("web:80~10.0.0.2:80") == [pool.upstreams[1]]
    assert pool.find("web") == []


def test_a_pool_that_is_coming_may_use_what_is_not_checked_yet() -> None:
    """The workers hear of it before the commit: not one request finds the new live pool empty."""
    service = Service("shop", 0, Settings(pools=Pools()))
    put(service.pools[1], place(1))
    assert not service.spec().pools[1].upstreams[0].usable
    service.coming = 1
    assert service.spec().pools[1].upstreams[0].usable


def test_an_unknown_service_is_named_with_those_that_are_known() -> None:
    """A misspelt name is easily corrected."""
    registry = Registry()
    registry.services["shop"] = Service("shop", 0, Settings(pools=Pools()))
    with pytest.raises(NotFound, match="'shopp'; known: shop"):
        registry.find("shopp")


def test_the_same_address_with_tls_is_another_upstream():
    """What was known of it without TLS says nothing: it is new, with a slot of its own, and is checked anew."""
    pool = Pool("blue")
    slots = iter((1, 2))
    back = []
    plain = Place("a:443", "http://a:443", ("10.0.0.1", 443))
    pool.place([plain], lambda _: next(slots), back.append)
    former = pool.upstreams[0]
    placed = pool.place([Place("a:443", "https://a", ("10.0.0.1", 443))], lambda _: next(slots), back.append)
    assert (placed.gone, back) == ([former], [1])
    assert (pool.upstreams, pool.upstreams[0].slot) == (placed.new, 2)


def test_another_way_to_speak_to_upstreams_is_noticed():
    """The pools for which it changes are told; the workers get it with the pool."""
    service = Service("shop", 0, Settings(pools=Pools(green=PoolSettings(send_proxy="v1"))))
    tls = TlsSpec(server_name="a.test")
    assert service.equip((tls, TlsSpec())) == list(service.pools)
    assert service.equip((tls, TlsSpec())) == []
    blue, green = service.spec().pools
    assert (blue.tls, green.send_proxy) == (tls, "v1")


@pytest.mark.parametrize(
    ("warm", "tcp", "noted"),
    [(None, False, False), (Warm(), False, True), (Warm(paths=("/",)), False, False), (Warm(), True, False)],
)
def test_what_is_asked_for_is_noted_only_for_a_warm_up_that_replays_it(
    warm: Warm | None, *, tcp: bool, noted: bool
) -> None:
    """It costs every request a little; and a service of streams has no requests."""
    service = Service(
        "shop",
        0,
        Settings(pools=Pools(blue=PoolSettings(), green=PoolSettings()), deployment=Deployment(warm=warm)),
        tcp=tcp,
    )
    assert service.spec().note_recent is noted
    assert service.spec().mirror is None
