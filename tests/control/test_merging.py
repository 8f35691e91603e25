"""The file and the state: who wins, when, and what is said about it."""

from __future__ import annotations

from dataclasses import replace

from bgproxy.config.schema import Config, Pool, Pools, Service
from bgproxy.control import registry
from bgproxy.control.merging import merge, pruned, take_over, with_slots
from bgproxy.control.state import ServiceRecord, State

BLUE, GREEN = Pool(version="1", upstreams=("http://127.0.0.1:1",)), Pool(version="2", upstreams=("http://127.0.0.1:2",))


def config(*, blue: Pool = BLUE, green: Pool = GREEN, **settings: object) -> Config:
    return Config(services={"shop": Service(pools=Pools(blue=blue, green=green), **settings)})


def first(**settings: object) -> State:
    return merge(config(**settings), State())[0]


def changed(state: State, **changes: object) -> State:
    """The state after green was changed at run time."""
    shop = state.services["shop"]
    green = replace(shop.pools[1], runtime=True, **changes)
    return replace(state, services={"shop": replace(shop, pools=(shop.pools[0], green))})


def test_the_first_time_the_file_says_everything() -> None:
    """Who is live, the pools; it is the first change of all."""
    state, drafts = merge(config(live="green"), State())
    shop = state.services["shop"]
    assert (shop.live, shop.previous, shop.generation, shop.switched_at) == (1, None, 1, None)
    assert (shop.pools[1].version, shop.pools[1].upstreams) == (GREEN.version, GREEN.upstreams)
    assert state.generation == 1
    assert drafts == []


def test_later_the_state_knows_who_is_live() -> None:
    """`live:` of the file is for the first time only."""
    state = first()
    assert merge(config(live="green"), state) == (state, [])


def test_a_pool_that_was_changed_at_run_time_stays_so_over_restarts() -> None:
    """The file is as it was."""
    state = changed(first(), version="3", upstreams=("http://127.0.0.1:3",))
    assert merge(config(), state) == (state, [])


def test_a_file_that_changes_a_pool_wins_and_says_so() -> None:
    """The new generation is the service's; the other pool is left alone; the event tells what was given up."""
    state = changed(first(), version="3", upstreams=("http://127.0.0.1:3",), by_hand={"127.0.0.1:3": "maint"})
    new = Pool(version="4", upstreams=("http://127.0.0.1:4",))
    merged, (draft,) = merge(config(green=new), state)
    shop = merged.services["shop"]
    assert (shop.pools[1].version, shop.pools[1].upstreams, shop.pools[1].runtime) == ("4", new.upstreams, False)
    assert shop.pools[0] == state.services["shop"].pools[0]
    assert shop.pools[1].by_hand == {}
    assert merged.generation == shop.generation == state.generation + 1
    assert (draft.type, draft.service, draft.pool) == ("file_wins", "shop", "green")
    assert draft.data["before"]["version"] == "3"
    assert merge(config(green=new), merged) == (merged, [])


def test_a_file_that_says_what_is_in_force_already_is_no_event() -> None:
    """The operator has written down what was done at run time."""
    state = changed(first(), version="3", upstreams=GREEN.upstreams)
    merged, drafts = merge(config(green=replace(GREEN, version="3")), state)
    assert drafts == []
    assert not merged.services["shop"].pools[1].runtime


def test_a_service_that_left_the_file_is_known_when_it_comes_back() -> None:
    """Without a slot meanwhile; who was live then is live again."""
    state = with_slots(first(), {"shop": 5})
    state = replace(state, services={"shop": replace(state.services["shop"], live=1, previous=0)})
    without, _ = merge(Config(services={}), state)
    assert without.services["shop"].slot is None
    again, _ = merge(config(), without)
    assert (again.services["shop"].live, again.services["shop"].previous) == (1, 0)


def test_other_settings_of_a_service_are_a_change_of_it() -> None:
    """The generation rises, though the state holds nothing of them."""
    state = first()
    merged, _ = merge(config(), state, ["shop"])
    assert merged.services["shop"].generation == merged.generation == state.generation + 1


def test_what_was_said_by_hand_goes_with_its_upstream() -> None:
    """Of ids and URLs alike; other addresses of a name that stays are kept."""
    said = {"127.0.0.1:1": "maint", "web:80~10.0.0.1:80": "draining", "http://web": "maint", "http://gone": "maint"}
    assert pruned(said, ["http://web"]) == {"web:80~10.0.0.1:80": "draining", "http://web": "maint"}


def test_a_service_takes_over_what_its_record_says() -> None:
    """And says whether its upstreams have to be looked at."""
    record: ServiceRecord = first().services["shop"]
    service = registry.Service("shop", 0, config().services["shop"])
    assert take_over(service, record)
    assert [pool.version for pool in service.pools] == ["1", "2"]
    assert not take_over(service, replace(record, generation=9))
    assert service.generation == 9
