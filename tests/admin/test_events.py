"""GET /v1/events: server-sent events."""

from __future__ import annotations

import asyncio
import json

import pytest
from support.fake_controller import FakeController, config

from bgproxy.admin.app import make_app
from bgproxy.admin.events import STREAMS, Streams, frame
from bgproxy.config.schema import Token

DEADLINE = 5.0


async def read_frame(answer) -> dict[str, str]:
    """The fields of the next frame; a comment's text is under ''."""
    fields = {}
    async with asyncio.timeout(DEADLINE):
        while (line := (await answer.content.readline()).decode()) not in ("\n", ""):
            name, _, value = line.rstrip("\n").partition(": " if not line.startswith(":") else ":")
            fields[name] = value.strip()
    return fields


async def read_event(answer) -> dict[str, str]:
    """The next frame that is an event."""
    while "data" not in (found := await read_frame(answer)):
        pass
    return found


async def test_events_come_as_they_happen(api, controller):
    """`id`, `event` and `data`, of which the data is the event as JSON in one line."""
    controller.events.add("started", None)
    async with api.get("/v1/events") as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-store"
        assert (await read_frame(answer))["retry"] == "1000"
        controller.events.add("switched", "shop", "two\nlines")
        found = await read_event(answer)
    assert (found["id"], found["event"]) == ("2", "switched")
    assert json.loads(found["data"]) == controller.events.list[1]


async def test_a_stream_goes_on_where_it_was_broken_off(api, controller):
    """With Last-Event-ID, what happened in between comes first."""
    for service in ("shop", "api", "shop"):
        controller.events.add("switched", service)
    async with api.get("/v1/events", headers={"Last-Event-ID": "1"}) as answer:
        assert [(await read_event(answer))["id"] for _ in range(2)] == ["2", "3"]


async def test_a_gap_is_said(api, controller):
    """Where the log does not reach back so far, a comment says so before what there is."""
    for service in ("shop", "api", "shop"):
        controller.events.add("switched", service)
    controller.events.forgotten = 2
    for last, comments in (("1", "is lost"), ("2", None)):
        async with api.get("/v1/events", headers={"Last-Event-ID": last}) as answer:
            assert "retry" in await read_frame(answer)
            if comments:
                assert comments in (await read_frame(answer))[""]
            assert "data" in await read_frame(answer)


async def test_events_of_one_service(api, controller):
    """The filter passes nothing else."""
    for service in ("shop", "api", None, "shop"):
        controller.events.add("switched", service)
    async with api.get("/v1/events?service=shop", headers={"Last-Event-ID": "0"}) as answer:
        assert [(await read_event(answer))["id"] for _ in range(2)] == ["1", "4"]


async def test_an_unknown_service_is_404(api):
    """Rather than a stream on which nothing ever comes."""
    async with api.get("/v1/events?service=shoop") as answer:
        assert answer.status == 404


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "9" * 30])
async def test_what_is_no_event_id_is_400(api, value):
    """Ids are whole numbers."""
    async with api.get("/v1/events", headers={"Last-Event-ID": value}) as answer:
        assert answer.status == 400


async def small(aiohttp_client, **limits):
    controller = FakeController(config())
    app = make_app(controller, controller.config)
    app[STREAMS] = Streams(**limits)
    return controller, await aiohttp_client(app)


async def test_silence_is_broken_by_a_comment(aiohttp_client):
    """So that both sides, and what stands between them, know that the connection lives."""
    _, api = await small(aiohttp_client, silence=0.01)
    async with api.get("/v1/events") as answer:
        await read_frame(answer)
        assert await read_frame(answer) == {"": "still here"}


async def test_the_number_of_streams_is_bounded(aiohttp_client):
    """One too many is told to come back."""
    _, api = await small(aiohttp_client, most=1)
    async with api.get("/v1/events"), api.get("/v1/events") as second:
        assert second.status == 503
        assert second.headers["Retry-After"] == "5"


async def test_a_client_that_leaves_is_noticed(aiohttp_client):
    """Its subscription ends, and there is room for another."""
    controller, api = await small(aiohttp_client, silence=0.01, most=1)
    async with api.get("/v1/events") as answer:
        await read_frame(answer)
        assert controller.events.followers == 1
    async with asyncio.timeout(DEADLINE):
        while controller.events.followers:
            await asyncio.sleep(0.01)
    async with api.get("/v1/events") as answer:
        assert answer.status == 200


async def test_streams_end_when_the_server_does(aiohttp_client):
    """A stop waits for no stream; the client sees an orderly end."""
    controller, api = await small(aiohttp_client)
    async with api.get("/v1/events") as answer:
        await read_frame(answer)
        api.app[STREAMS].end()
        async with asyncio.timeout(DEADLINE):
            assert await answer.content.read() == b""
    assert controller.events.followers == 0


async def test_a_subscription_that_fails_ends_the_stream(api, controller, monkeypatch, caplog):
    """Never with a traceback to the reader; the log has it."""

    async def broken(_last):
        raise RuntimeError("the secret cause")
        yield

    monkeypatch.setattr(controller.events, "subscribe", broken)
    async with api.get("/v1/events") as answer:
        text = await answer.text()
    assert "secret" not in text
    assert "the secret cause" in caplog.text


async def test_who_loses_the_token_loses_the_stream(aiohttp_client, monkeypatch):
    """A reload that takes a token away ends what was begun with it."""
    monkeypatch.setenv("MINE", "m" * 20)
    monkeypatch.setenv("OTHER", "o" * 20)
    controller = FakeController(config(tokens=(Token(name="mine", role="viewer", token_env="MINE"),)))
    api = await aiohttp_client(make_app(controller, controller.config))
    async with api.get("/v1/events", headers={"Authorization": "Bearer " + "m" * 20}) as answer:
        await read_frame(answer)
        controller.events.add("switched", "shop")
        assert (await read_event(answer))["id"] == "1"
        controller.config = config(tokens=(Token(name="other", role="viewer", token_env="OTHER"),))
        controller.events.add("switched", "shop")
        async with asyncio.timeout(DEADLINE):
            assert await answer.content.read() == b""


def test_a_frame_is_one_line_of_data():
    """Line ends in a text stay encoded, or they would end the field."""
    text = frame({"id": 7, "type": "switched", "message": "a\r\nb\u2028c"})
    assert text == b'id: 7\nevent: switched\ndata: {"id": 7, "type": "switched", "message": "a\\r\\nb\\u2028c"}\n\n'
