"""The verb `history`, and how an event is said in one line."""

from __future__ import annotations

import json

from support.fake_admin import event

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
