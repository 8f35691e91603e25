"""Records of the state, to JSON and back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bgproxy.config import schema
from bgproxy.control.state import (
    PoolRecord,
    ServiceRecord,
    State,
    StateFormatError,
    Texts,
    digest_of,
    from_file,
    from_json,
    to_json,
)
from bgproxy.model.deployment import DeploymentRecord, DeploymentState, Result, Step

POOL = PoolRecord("d1", "1.0", ("http://127.0.0.1:9001", "unix:///run/ä.sock"), True, {"127.0.0.1:9001": "maint"})
RECORD = ServiceRecord(3, 1, 0, 12, 1_800_000_000.25, (POOL, PoolRecord("d2", "", ())))
DEPLOYMENT = DeploymentRecord(
    id=7,
    service="shop",
    target="green",
    version="2.0",
    upstreams=("http://127.0.0.1:9002",),
    strategy="canary",
    reason="ticket 12",
    actor={"name": "alice", "address": "10.0.0.1"},
    state=DeploymentState.BAKING,
    steps=(Step(state="queued", at=1_800_000_000.5, by="alice", why=""),),
    results=(
        Result(stage="verifying", name="cart", ok=False, expected="200", found="500", seconds=0.25, details=("a",)),
    ),
    memory={"before": {"p99": 0.1}},
)
STATE = State(
    generation=12,
    last_event=1_000_000,
    services={"shop": RECORD, "gone": replace(RECORD, slot=None, previous=None, switched_at=None)},
    history=({"id": 4, "type": "switched", "message": "…"},),
    deployments={7: DEPLOYMENT, 6: replace(DEPLOYMENT, id=6, upstreams=None, state=DeploymentState.FAILED)},
    last_deployment=7,
    upstream_slots={"shop blue 127.0.0.1:9001": 7},
    addresses={"web": ("172.18.0.3", "::1")},
)


def test_a_state_survives_its_text():
    """Every field, also those that may be absent."""
    assert from_json(to_json(STATE)) == STATE
    assert from_json(to_json(State())) == State()


def test_a_state_from_before_there_were_deployments_is_one():
    """An upgrade finds the file of the version before."""
    told = json.loads(to_json(STATE))
    del told["deployments"], told["last_deployment"]
    assert from_json(json.dumps(told)) == replace(STATE, deployments={}, last_deployment=0)


def test_a_line_tells_of_one_service_or_one_change():
    """For an operator's eyes, and for grep."""
    lines = to_json(STATE).splitlines()
    (shop,) = [line for line in lines if line.startswith('  "shop": {"slot": 3, "live": "green", ')]
    assert shop.endswith("}},")
    assert '  {"id": 4, "type": "switched", "message": "\\u2026"}' in lines


def test_remembered_lines_make_the_same_text():
    """After any change; and what is in the state no more is not kept."""
    texts = Texts()
    event = {"id": 5, "type": "rolled_back"}
    states = [
        STATE,
        replace(STATE, services={**STATE.services, "shop": replace(RECORD, live=0)}, history=(*STATE.history, event)),
        replace(STATE, services={"shop": RECORD}, history=(event,)),
        State(),
    ]
    for state in [*states, *reversed(states)]:
        assert to_json(state, texts) == to_json(state)
    assert len(texts._known) == len(STATE.services) + len(STATE.history) + len(STATE.deployments)


def test_a_line_that_is_known_is_not_made_again():
    """The next text costs what is new in it: with a long history, and many services, all the rest would take milliseconds."""
    texts = Texts()
    before = texts.lines(STATE)
    after = texts.lines(replace(STATE, history=(*STATE.history, {"id": 5})))
    assert all(old is new for old, new in zip(before[0] + before[1], after[0] + after[1][:-1], strict=True))


def test_the_digest_follows_the_definition_in_the_file():
    """Version, upstreams and their order; equal for equal ones."""
    pool = schema.Pool(version="1", upstreams=("http://a", "http://b"))
    assert digest_of(pool) == digest_of(schema.Pool(version="1", upstreams=("http://a", "http://b")))
    others = [replace(pool, version="2"), replace(pool, upstreams=("http://b", "http://a")), schema.Pool()]
    assert len({digest_of(other) for other in [pool, *others]}) == 4


def test_a_pool_taken_from_the_file_is_not_a_runtime_change():
    """But what was set by hand may stay."""
    pool = schema.Pool(version="1", upstreams=("http://a",))
    assert from_file(pool, {"a:80": "maint"}) == PoolRecord(
        digest_of(pool), "1", ("http://a",), False, {"a:80": "maint"}
    )


def _broken(path: str, value: object) -> str:
    """The text of STATE with one member replaced."""
    whole = json.loads(to_json(STATE))
    at = whole
    *parts, last = path.split("/")
    for part in parts:
        at = at[part]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return json.dumps(whole)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("generation", -1, "generation is not a whole number"),
        ("generation", True, "generation is not a whole number"),
        ("last_event", 1.0, "last_event is not a whole number"),
        ("last_event", ..., "last_event is missing"),
        ("services", [], "services is not an object"),
        ("services/shop", None, "services.shop is not an object"),
        ("services/shop/slot", "3", "services.shop.slot is not a whole number"),
        ("services/shop/live", "red", "services.shop.live is none of blue, green"),
        ("services/shop/live", ["blue"], "services.shop.live is none of blue, green"),
        ("services/shop/previous", 0, "services.shop.previous is none of blue, green"),
        ("services/shop/switched_at", "now", "services.shop.switched_at is not a number"),
        ("services/shop/pools/green", ..., "services.shop.pools.green is missing"),
        ("services/shop/pools/blue/upstreams", "http://a", "services.shop.pools.blue.upstreams is not a list"),
        ("services/shop/pools/blue/upstreams", [1], "services.shop.pools.blue.upstreams is not a list of texts"),
        ("services/shop/pools/blue/version", 1, "services.shop.pools.blue.version is not a text"),
        ("services/shop/pools/blue/runtime", 0, "services.shop.pools.blue.runtime is neither true nor false"),
        (
            "services/shop/pools/blue/by_hand",
            {"x": "up"},
            "services.shop.pools.blue.by_hand.x is none of draining, maint",
        ),
        ("history", {}, "history is not a list"),
        ("history", [{"id": "x"}], r"history\[0\].id is not a whole number"),
        ("upstream_slots", {"x": None}, "upstream_slots.x is not a whole number"),
        ("addresses", {"x": [None]}, "addresses.x is not a list of texts"),
    ],
)
def test_what_is_no_state_is_refused_by_its_place(path, value, message):
    """Nothing is guessed and nothing is defaulted: a member that is wrong is named."""
    with pytest.raises(StateFormatError, match=message):
        from_json(_broken(path, value))


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "[" * 100_000])
def test_what_is_not_even_an_object_is_refused(text):
    """Whatever it is."""
    with pytest.raises(StateFormatError):
        from_json(text)
