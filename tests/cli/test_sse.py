"""The reader of server-sent events."""

from __future__ import annotations

import pytest
from support.fake_admin import event

from bgproxy.cli.client import Client
from bgproxy.cli.exits import UnreachableError
from bgproxy.cli.sse import EventStream


def test_events_in_order_and_where_to_go_on(admin):
    """Every event, comments left out; `last_id` is the last one's."""
    admin.events = [event(3, "a"), event(5, "b")]
    with EventStream(Client.of(None)) as stream:
        assert [item["type"] for item in stream] == ["a", "b"]
        assert stream.last_id == 5
    assert "Last-Event-ID" not in admin.requests[0][2]


def test_resumes_after_an_id(admin):
    """What came before is not asked for again."""
    admin.events = [event(3, "a"), event(5, "b")]
    with EventStream(Client.of(None), 3) as stream:
        assert [item["type"] for item in stream] == ["b"]


def test_ends_after_silence(admin):
    """A connection on which nothing comes is given up after the time that was said."""
    admin.events, admin.hang_up = [event(3, "a")], False
    with EventStream(Client.of(None), silence=0.1) as stream:
        assert [item["id"] for item in stream] == [3]
    stream.close()


def test_rubbish_is_passed_over(admin):
    """A block that is no JSON object, and a stream that ends in the middle of one, do no harm."""
    with EventStream(Client.of(None)) as stream:
        lines = [
            b"data: [1]\n",
            b"\n",
            b"data: {\n",
            b"\n",
            b"id: x\n",
            b'data: {"id":\n',
            b"data: 1}\n",
            b"\n",
            b'data: {"id": 2}',
        ]
        stream._response.readline = iter([*lines, b""]).__next__
        assert list(stream) == [{"id": 1}]
        assert stream.last_id is None


def test_an_api_without_events(admin):
    """Something that answers with a page instead is not bgproxy."""
    client = Client.of(None)
    client.open = lambda *args, **more: Client.open(client, "GET", "/v1/status", **more)
    with pytest.raises(UnreachableError, match="has no events"):
        EventStream(client)
