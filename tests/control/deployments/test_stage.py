"""What a stage sees of its deployment."""

from __future__ import annotations

import json

import pytest
from support.deployments import JumpyClock, make_run

from bgproxy.config.schema import Match, Preview
from bgproxy.control.deployments.stage import WallClock
from bgproxy.model.deployment import Result


async def test_what_hooks_get():
    """All that a command needs to know, as JSON."""
    run = make_run("http://127.0.0.1:9002", match=Match(hosts=("*.shop.example", "shop.example")))
    run.preview_urls = lambda: ["http://127.0.0.1:8080", "https://127.0.0.1:8443"]
    said = json.loads(json.dumps(run.described()))
    assert said == {
        "id": 7,
        "service": "shop",
        "state": "verifying",
        "target": "green",
        "old": "blue",
        "live": "blue",
        "version": "2.0",
        "upstreams": ["http://127.0.0.1:9002"],
        "strategy": "all-at-once",
        "reason": "a test",
        "actor": {"name": "alice", "address": "10.0.0.1"},
        "preview_url": "http://127.0.0.1:8080",
        "preview_host": "shop.example",
        "preview_header": "X-BGProxy-Pool: green",
    }


@pytest.mark.parametrize("how", [{"preview": Preview(header="")}, {"tcp": True}])
async def test_where_no_header_leads_to_the_pool_none_is_given(how):
    """A command would send a line without a name."""
    assert make_run("http://127.0.0.1:9002", **how).described()["preview_header"] == ""


@pytest.mark.parametrize(("passed", "left"), [(0.0, 60.0), (45.0, 15.0), (90.0, 0.0), (-30.0, 60.0)])
async def test_what_is_left_of_a_time(passed, left):
    """Since the step into the state, and never more than the whole: somebody may have set the clock back."""
    clock = JumpyClock()
    run = make_run("http://127.0.0.1:9002", clock=clock)
    clock.ahead = passed
    assert run.left_of(60.0) == left


async def test_the_pools_are_those_of_its_service():
    """Whichever is live by now."""
    run = make_run("http://127.0.0.1:9002", old=("http://127.0.0.1:9001",))
    run.service.live = 1
    assert (run.idle.name, run.old.name, run.target) == ("green", "blue", 1)


async def test_what_is_kept_and_shown_is_told():
    """A watcher hears of each."""
    run = make_run("http://127.0.0.1:9002")
    run.keep(Result(stage="verifying", name="cart", ok=True))
    run.show("half of it", 0.5, requests=10)
    assert run.record.results[0].name == "cart"
    assert (run.progress.share, run.progress.text, run.progress.figures) == (0.5, "half of it", {"requests": 10})
    assert run.tell.lines == ["half of it"]


async def test_what_is_remembered_is_saved_at_once():
    """With what was remembered before."""
    saved = []
    run = make_run("http://127.0.0.1:9002", memory={"a": 1})

    async def save(run):
        saved.append(dict(run.record.memory))

    run._remember = save
    await run.remember(b=2)
    assert saved == [{"a": 1, "b": 2}]


async def test_the_real_clock_goes():
    """By so much as it was asked to wait, at least."""
    clock = WallClock()
    before, at = clock.now(), clock.time()
    await clock.sleep(0.01)
    assert clock.now() - before >= 0.009
    assert abs(clock.time() - at) < 10
