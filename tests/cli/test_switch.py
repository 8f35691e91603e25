"""The verb `switch` against an admin API on a real socket."""

from __future__ import annotations

import json

import pytest
from support.fake_admin import FakeAdmin, drain, event, pool, problem, service

from bgproxy.cli.main import main

SWITCHED = {"live": "green", "previous": "blue", "generation": 8, "switched_in_ms": 3.14, "drained": None}


def across(admin: FakeAdmin, name: str = "shop", **old: object) -> dict:
    """Make a service look as after a switch, and give the API's answer to it."""
    admin.services[name] = service(name, live="green", blue=pool("standby", **old), green=pool("live"))
    return {"service": name, **SWITCHED}


def test_says_at_once_then_what_was_drained(admin, capsys):
    """The switch is announced first; the end of the drain says what ended by itself and what was cut."""

    def switch():
        answer = across(admin)
        states = [
            pool(
                "draining",
                in_flight={"requests": 2, "streams": 0, "websockets": 1},
                drain=drain(requests=2, websockets=1),
            )
        ]
        admin.script["GET", "/v1/services/shop"] = lambda: (
            200,
            admin.services["shop"] | ({"pools": {"blue": states.pop(), "green": pool("live")}} if states else {}),
        )
        data = {"requests": 2, "streams": 0, "websockets": 0, "cut": {"requests": 0, "streams": 0, "websockets": 1}}
        admin.events = [
            event(3, "drained", data={"requests": 9}),
            event(4, "switched", pool="green"),
            event(5, "drained", pool="green"),
            event(6, "drained", data={**data, "seconds": 1.25, "complete": True}),
        ]
        return 200, answer

    admin.script["POST", "/v1/services/shop/switch"] = switch
    assert main(["switch", "--reason", "release 2.0"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "shop: blue -> green, live now (generation 8, 3.1 ms)",
        "shop: blue drains, waits for 2 requests, 1 websocket (cut in 4m 59s)",
        "shop: blue is drained after 1.2 s: 2 requests finished, cut at the deadline: 1 websocket",
    ]
    sent = next(body for method, _, _, body in admin.requests if method == "POST")
    assert sent == {"force": False, "reason": "release 2.0", "wait": "switched"}


def test_no_wait_returns_after_the_first_answer(admin, capsys):
    """With --no-wait nothing is asked after the switch."""
    admin.script["POST", "/v1/services/shop/switch"] = lambda: (200, across(admin))
    assert main(["switch", "shop", "green", "--no-wait"]) == 0
    assert capsys.readouterr().out == "shop: blue -> green, live now (generation 8, 3.1 ms)\n"
    assert [request[0] for request in admin.requests] == ["POST"]
    assert admin.requests[0][3]["to"] == "green"


def test_several_services_go_in_one_request(admin, capsys):
    """`switch shop=green api=green` is one call of /v1/switch, announced and followed service by service."""
    admin.script["POST", "/v1/switch"] = lambda: (
        200,
        {"generation": 9, "services": [across(admin), across(admin, "api")]},
    )
    assert main(["switch", "shop=green", "api=green"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == [
        "shop: blue -> green, live now (generation 8, 3.1 ms)",
        "api: blue -> green, live now (generation 8, 3.1 ms)",
    ]
    assert sorted(out[2:]) == ["api: blue is drained", "shop: blue is drained"]
    assert admin.requests[0][3]["services"] == {"shop": "green", "api": "green"}


def test_refused_switch_gives_the_reasons_and_the_remedy(admin, capsys):
    """An unhealthy pool: exit 4, one line an upstream, and the command that does it all the same."""
    admin.script["POST", "/v1/services/shop/switch"] = lambda: problem(
        409, "not-healthy", "green of shop is not healthy", "127.0.0.1:9002: connection refused"
    )
    assert main(["switch", "shop", "green"]) == 4
    assert capsys.readouterr().err.splitlines() == [
        "bgproxy: green of shop is not healthy",
        "  127.0.0.1:9002: connection refused",
        "nothing was changed; to do it all the same: bgproxy switch shop green --force",
    ]


def test_stale_generation_is_refused(admin, capsys):
    """--if-generation becomes If-Match; 412 ends with 4."""
    admin.script["POST", "/v1/services/shop/switch"] = lambda: problem(412, "stale", "The generation is 9, not 7")
    assert main(["switch", "shop", "--if-generation", "7"]) == 4
    assert admin.requests[0][2]["If-Match"] == '"7"'
    assert "The generation is 9" in capsys.readouterr().err


def test_rolled_back_meanwhile_is_said(admin, capsys):
    """A pool that became live again while it drained is no success."""
    admin.script["POST", "/v1/services/shop/switch"] = lambda: (200, {"service": "shop", **SWITCHED})
    assert main(["switch", "shop"]) == 1
    assert capsys.readouterr().out.splitlines()[1] == "shop: blue is live again (generation 7)"


def test_already_live_is_said(admin, capsys):
    """A switch to where the traffic is already changes nothing and is a success."""
    admin.script["POST", "/v1/services/shop/switch"] = lambda: (200, across(admin) | {"switched_in_ms": 0})
    assert main(["switch", "shop", "green", "--no-wait"]) == 0
    assert "green is live already" in capsys.readouterr().out


def test_json_is_the_answer_unchanged(admin, capsys):
    """--json waits for the drain in the API and prints what it said."""
    admin.script["POST", "/v1/services/shop/switch"] = lambda: (200, across(admin))
    assert main(["switch", "shop", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"service": "shop", **SWITCHED}
    assert [request[0] for request in admin.requests] == ["POST"]
    assert admin.requests[0][3]["wait"] == "drained"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["shop", "red"], "a pool is blue or green, not 'red'"),
        (["shop", "green", "now"], "not 3 words"),
        (["shop=red"], "'shop=red'"),
        (["shop=green", "shop=blue"], "'shop' is named twice"),
        (["shop=green", "api"], "'api'"),
        (["--forse"], "--forse"),
    ],
)
def test_wrong_usage(admin, capsys, words, says):
    """Wrong words: exit 2, said before anything is asked of the API."""
    assert main(["switch", *words]) == 2
    assert says in capsys.readouterr().err
    assert admin.requests == []
