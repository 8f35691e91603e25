"""The page of `status`."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from support.fake_admin import drain, pool, service, upstream

from bgproxy.cli.overview import page, section
from bgproxy.cli.terminal import Paint

NOW = datetime(2024, 1, 1, 0, 2, 5, tzinfo=UTC)
PLAIN = Paint(on=False)


def status(*services, **more):
    return {
        "program": "bgproxy",
        "version": "0.1.0",
        "build": "compiled",
        "started_at": "2024-01-01T00:00:00.000Z",
        "workers": [{"state": "serving"}, {"state": "serving"}],
        "listeners": ["127.0.0.1:8080"],
        "certificates": [],
        "services": list(services),
        **more,
    }


def test_whole_page():
    """Program, service, pools and upstreams, aligned."""
    shop = service(
        switched_at="2024-01-01T00:02:00.000Z",
        previous="green",
        match={"hosts": ["shop.example"], "path": "/cart"},
        sessions={"mode": "cookie", "on_switch": "finish"},
    )
    assert page(status(shop), PLAIN, NOW) == [
        "bgproxy 0.1.0 (compiled) · up 2m 5s · 2 workers serving · listens on 127.0.0.1:8080",
        "",
        "shop: blue is live (generation 7; switched 5.0 s ago; before: green; shop.example, /cart; sessions by cookie, finish)",
        "  POOL   VERSION  STATE    REQUESTS  STREAMS  WEBSOCKETS  SESSIONS  UP",
        "  blue   1.0      live            0        0           0         0  1 of 1",
        "  green  2.0      standby         0        0           0         0  1 of 1",
        "  blue   127.0.0.1:9001  up  for 2m 5s  0 in flight, checked in 1.2 ms",
        "  green  127.0.0.1:9002  up  for 2m 5s  0 in flight, checked in 1.2 ms",
    ]


def test_drain_says_what_it_waits_for():
    """A draining pool has a line of its own, with the time until the rest is cut."""
    blue = pool("draining", drain=drain(requests=1) | {"sessions_until_in": 1790.0})
    lines = section(service(live="green", blue=blue), PLAIN, NOW)
    assert "  blue drains: waits for 1 request (cut in 29 s), sessions stay for 29m 50s at the most" in lines


def test_reasons_of_what_is_not_up():
    """Upstreams that are down, ejected or unresolved show why; a worker that does not serve is counted."""
    green = pool(
        "idle",
        upstreams=[
            upstream("127.0.0.1:9002", state="down", reason="connection \x1brefused", check_ms=None),
            upstream("127.0.0.1:9003", ejected=True, reason="5 failures within 10s"),
        ],
        unresolved=[{"url": "http://web:8000", "reason": "web: name does not resolve"}],
    )
    shown = status(service(green=green), workers=[{"state": "serving"}, {"state": "lost"}])
    text = "\n".join(page(shown, PLAIN, NOW))
    assert "2 workers, 1 serving" in text
    assert "0 of 3" in text
    assert "green  127.0.0.1:9002   down     for 2m 5s  connection ?refused" in text
    assert "green  127.0.0.1:9003   ejected  for 2m 5s  5 failures within 10s" in text
    assert "web: name does not resolve" in text


def test_colour_does_not_shift_columns():
    """The coloured page is the plain one with colours in it."""
    import re

    shown = status(service())
    coloured = page(shown, Paint(on=True), NOW)
    assert any("\x1b[" in line for line in coloured)
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in coloured] == page(shown, PLAIN, NOW)


def test_a_deployment_under_way_and_a_canary():
    """Below the pools: how far it is, who must type what, and how many clients it has."""
    under_way = {
        "id": 3,
        "state": "awaiting_approval",
        "target": "green",
        "version": "2\x1b",
        "text": "waits",
        "share": 0.4,
        "waits": True,
    }
    lines = section(service(deployment=under_way, share=10), PLAIN, NOW)
    at = lines.index("  deployment 3 of green 2? is awaiting approval, 40%: waits")
    assert lines[at + 1 : at + 3] == [
        "    `bgproxy approve 3` lets it go on, `bgproxy abort 3` ends it",
        "  canary: 10% of the clients go to green",
    ]
    bare = under_way | {"state": "baking", "version": "", "text": "", "share": None, "waits": False}
    assert "  deployment 3 of green is baking" in section(service(deployment=bare), PLAIN, NOW)


@pytest.mark.parametrize(
    ("state", "outcome", "says"),
    [
        ("rolled_back", "green: 5% failed", "deployment 3 of green 2? was rolled back 5.0 s ago: green: 5% failed"),
        ("aborted", "", "deployment 3 of green 2? was aborted 5.0 s ago"),
        ("succeeded", "green is live", "deployment 3 of green 2? succeeded 5.0 s ago"),
        (
            "succeeded",
            "green is live, but retire: status 3",
            "deployment 3 of green 2? succeeded 5.0 s ago: green is live, but retire: status 3",
        ),
    ],
)
def test_what_became_of_the_last_deployment(state, outcome, says):
    """Whoever looks later reads what its terminal showed; while another one runs, that is of more interest."""
    ended_at = "2024-01-01T00:02:00.000Z"
    last = {"id": 3, "state": state, "target": "green", "version": "2\x1b", "ended_at": ended_at, "outcome": outcome}
    assert f"  {says}" in section(service(last_deployment=last), PLAIN, NOW)
    running = {"id": 4, "state": "baking", "target": "blue", "version": "", "text": "", "share": None, "waits": False}
    lines = section(service(last_deployment=last, deployment=running), PLAIN, NOW)
    assert not any("deployment 3" in line for line in lines)
