"""The verb `history`, and how an event is said in one line."""

from __future__ import annotations

import json

from support.fake_admin import deployment, event

from bgproxy.cli.history import event_line
from bgproxy.cli.main import main


def test_lines(admin, capsys):
    """When, what, by whom, why; the filter and the limit are the API's."""
    admin.events = [event(3, "switched", message="shop: blue -> green", reason="release\n2.0")]
    assert main(["history", "shop", "--limit", "5"]) == 0
    assert capsys.readouterr().out == "2024-01-01T00:00:00.000Z  shop: blue -> green [anonymous] (release?2.0)\n"
    assert admin.requests[0][1] == "/v1/history?service=shop&limit=5"


def test_empty(admin, capsys):
    """An empty history is said, not shown as nothing."""
    assert main(["history"]) == 0
    assert capsys.readouterr().out == "nothing was changed so far\n"


def test_json(admin, capsys):
    """--json prints the answer."""
    assert main(["history", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"events": []}


def test_events_of_few_words():
    """What an event lacks is left out."""
    assert event_line({"at": "t", "type": "started"}) == "t  started"


def test_a_reason_that_is_in_the_message_is_not_said_twice():
    """The events of deployments have it in both."""
    item = event(3, "deployment", message="shop: deployment 3 failed: down.", reason="down")
    assert event_line(item) == "2024-01-01T00:00:00.000Z  shop: deployment 3 failed: down. [anonymous]"


def test_one_deployment(admin, capsys):
    """Stage by stage, or as the API answers."""
    told = deployment("verifying", "failed", outcome="down")
    admin.script["GET", "/v1/deployments/3"] = lambda: (200, told)
    assert main(["history", "--deployment", "3"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "shop: deployment 3 failed before the switch after 2.0 s: down"
    assert main(["history", "--deployment", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == told
    assert main(["history", "--deployment", "4"]) == 2


def test_the_deployments_of_a_service(admin, capsys):
    """A line each: how it ended, after how long and why, which version, by whom and what for."""
    told = [
        deployment("verifying", "failed", outcome="down", reason="release\n2.0"),
        deployment("baking", id=4, version=""),
    ]
    admin.script["GET", "/v1/services/shop/deployments"] = lambda: (200, {"deployments": told})
    assert main(["history", "shop", "--deployments", "--limit", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{told[0]['created_at']}  shop: deployment 3 failed before the switch after 2.0 s: down [green 2.0, by alice] (release?2.0)",
        "2024-01-01T00:00:00.000Z  shop: deployment 4 is baking [green, by alice]",
    ]
    assert main(["history", "shop", "--deployments", "--limit", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"deployments": told}


def test_the_deployments_of_all_services(admin, capsys):
    """In the order in which they were begun; the limit is one for all."""
    services = {
        "shop": [deployment("succeeded", id=number) for number in (3, 5)],
        "api": [deployment("succeeded", id=4)],
    }
    admin.script["GET", "/v1/services"] = lambda: (
        200,
        {"generation": 1, "services": [{"service": n} for n in services]},
    )
    for name, told in services.items():
        admin.script["GET", f"/v1/services/{name}/deployments"] = lambda told=told: (200, {"deployments": told})
    assert main(["history", "--deployments", "--limit", "2", "--json"]) == 0
    assert [one["id"] for one in json.loads(capsys.readouterr().out)["deployments"]] == [4, 5]
    services.clear()
    assert main(["history", "--deployments"]) == 0
    assert capsys.readouterr().out == "nothing was deployed so far\n"
