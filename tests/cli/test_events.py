"""The verb `events`."""

from __future__ import annotations

import json

import pytest
from support.fake_admin import event

from bgproxy.cli.client import ApiError, Client
from bgproxy.cli.events import PATIENCE, follow
from bgproxy.cli.exits import UnreachableError
from bgproxy.cli.main import main


def test_what_is_remembered(admin, capsys):
    """Without --follow: all that the API still has, then the end."""
    admin.events, admin.hang_up = [event(1, "started", service=None), event(2, "upstream_up")], False
    assert main(["events"]) == 0
    assert [line.split("  ")[1] for line in capsys.readouterr().out.splitlines()] == [
        "started happened [anonymous]",
        "upstream_up happened [anonymous]",
    ]


def test_of_one_service_as_json(admin, capsys):
    """One JSON object a line, of the service that was named."""
    admin.events = [event(1, "a", service=None), event(2, "b")]
    assert main(["events", "shop", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == admin.events[1]


def test_follow_goes_on_where_it_broke_off(admin, capsys):
    """After a break the stream is asked for what came after the last event; none is shown twice."""
    admin.events = [event(1, "a")]
    client = Client.of(None)
    first = client.open
    seen = []

    def once(*args, **more):
        client.open = again
        return first(*args, **more)

    def again(*args, **more):
        # After the break: the first stream, which its thread may still be writing, has not got it.
        admin.events.append(event(2, "b"))
        return first(*args, **more)

    def show(item):
        seen.append(item["type"])
        if item["id"] == 2:
            raise KeyboardInterrupt

    client.open = once
    with pytest.raises(KeyboardInterrupt):
        follow(client, None, show)
    assert seen == ["a", "b"]
    assert admin.requests[1][2]["Last-Event-ID"] == "1"
    assert "trying to go on" in capsys.readouterr().err


def test_follow_gives_up(admin):
    """An API that stays away ends it, after a minute of tries."""
    clock = [0.0]
    admin.events = [event(1, "a")]
    client = Client.of(None)
    first = client.open

    def nap(seconds):
        clock[0] += seconds

    def once(*args, **more):
        client.open = gone
        return first(*args, **more)

    def gone(*_args, **_more):
        raise UnreachableError("away")

    client.open = once
    with pytest.raises(UnreachableError):
        follow(client, None, lambda _item: None, now=lambda: clock[0], sleep=nap)
    assert clock[0] == PATIENCE


@pytest.mark.parametrize(("status", "goes_on"), [(503, True), (401, False)])
def test_refused_while_resuming(admin, status, goes_on):
    """An API that is not ready yet is asked again; one that refuses is not."""
    client = Client.of(None)
    first = client.open
    naps = []

    def again(*args, **more):
        if not naps or not goes_on:
            client.open = again
            raise ApiError(status, "", {"detail": "no"})
        admin.events = [event(2, "b")]
        return first(*args, **more)

    def once(*args, **more):
        client.open = again
        return first(*args, **more)

    def stop(_item):
        raise KeyboardInterrupt

    client.open = once
    with pytest.raises(KeyboardInterrupt if goes_on else ApiError):
        follow(client, None, stop, sleep=naps.append)
