"""GET /v1/events: what happens, as it happens: server-sent events, resumable by Last-Event-ID.

The stream begins with what happened since the id that was asked for, as far back as the log goes; a client that asks
for none gets what comes from now on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from aiohttp import web

from bgproxy.admin import problems
from bgproxy.admin.endpoint import AUTHORITY, EVENT_STREAM, Call, Operation, endpoint
from bgproxy.admin.history import SERVICE
from bgproxy.admin.problems import Problem
from bgproxy.admin.schemas import STRING

#: Seconds of silence after which a comment shows that the connection lives; and that a reader may take for a write.
SILENCE: Final = 15.0
WRITE_WITHIN: Final = 30.0
#: Streams at a time.
MOST: Final = 100

_HEADERS: Final = {
    "Content-Type": EVENT_STREAM,
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # a proxy before us must not gather them
}
_HELLO: Final = b"retry: 1000\n: bgproxy events\n\n"
_GAP: Final = b": the log does not reach back to Last-Event-ID: what is between it and the next id is lost\n\n"
_SIGN_OF_LIFE: Final = b": still here\n\n"


class Streams:
    """The streams that are open: how many, and how they end when the server stops."""

    def __init__(self, *, silence: float = SILENCE, most: int = MOST) -> None:
        self.silence = silence
        self._most = most
        self._open = 0
        self._ending = asyncio.Event()

    def end(self) -> None:
        """End all of them, and let none begin."""
        self._ending.set()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Room for one more; raises `Problem` (503) when there is none."""
        if self._open >= self._most or self._ending.is_set():
            raise Problem("unavailable", f"{self._open} event streams are open already.", headers={"Retry-After": "5"})
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def pump(
        self,
        response: web.StreamResponse,
        events: AsyncIterator[dict[str, Any]],
        service: str | None,
        *,
        may: Callable[[], bool] = lambda: True,
        first: bytes = _HELLO,
    ) -> None:
        """Write `first`, and `events` until either side goes, or `may` says that the reader may have no more.

        A reader that takes nothing for too long is let go.
        """
        ending = asyncio.create_task(self._ending.wait(), name="events: end")
        following = asyncio.create_task(_next(events), name="events: next")
        try:
            async with asyncio.timeout(WRITE_WITHIN):
                await response.write(first)
            while True:
                done, _ = await asyncio.wait(
                    {ending, following}, timeout=self.silence, return_when=asyncio.FIRST_COMPLETED
                )
                if ending in done or not may():
                    break
                text = _SIGN_OF_LIFE
                if following in done:
                    event = following.result()
                    if event is None:
                        break
                    following = asyncio.create_task(_next(events), name="events: next")
                    if service is not None and event["service"] != service:
                        continue
                    text = frame(event)
                async with asyncio.timeout(WRITE_WITHIN):
                    await response.write(text)
        except (ConnectionError, TimeoutError):
            pass  # the reader is gone, or as good as gone
        except Exception as error:  # noqa: BLE001 - the answer has begun: it can only end, and the log says why
            problems.of(error)
        finally:
            ending.cancel()
            following.cancel()
            await asyncio.gather(ending, following, return_exceptions=True)


def frame(event: dict[str, Any]) -> bytes:
    """An event as it goes over the wire."""
    return f"id: {event['id']}\nevent: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


async def _next(events: AsyncIterator[dict[str, Any]]) -> dict[str, Any] | None:
    return await anext(events, None)


STREAMS: Final = web.AppKey("streams", Streams)


@endpoint(
    Operation(
        method="GET",
        path="/v1/events",
        name="followEvents",
        summary="Events as they happen (server-sent events)",
        about="`id` is the event's number, `event` its type, `data` the event as JSON. A comment comes every 15 seconds.",
        role="viewer",
        answer={"type": "string", "description": "text/event-stream; each `data` is an Event"},
        media_type=EVENT_STREAM,
        query=(SERVICE,),
        headers=(
            ("Last-Event-ID", "Begin with what happened after this event.", STRING | {"pattern": "^(?:[0-9]{1,18})?$"}),
        ),
        slugs=("not-found", "unavailable"),
    )
)
async def follow_events(call: Call) -> web.StreamResponse:
    """Follow, until either side has enough."""
    last = _last_id(call.request)
    service = call.said.get("service")
    if service is not None:
        call.controller.generation(service)  # raises for an unknown one
    streams, authority = call.request.app[STREAMS], call.request.app[AUTHORITY]

    def may() -> bool:
        """A reload may have taken the token away."""
        try:
            return authority.caller(call.request).may("viewer")
        except Problem:
            return False

    with streams.one():
        response = web.StreamResponse(headers=_HEADERS)
        async with contextlib.aclosing(call.controller.events.subscribe(last)) as events:
            await response.prepare(call.request)
            broken = last is not None and call.controller.events.since(last) is None
            await streams.pump(response, events, service, may=may, first=_HELLO + _GAP if broken else _HELLO)
    return response


def _last_id(request: web.Request) -> int | None:
    said = request.headers.get("Last-Event-ID", "").strip()
    if not said:
        return None
    if not (said.isascii() and said.isdecimal() and len(said) <= 18):
        raise Problem("malformed", "Last-Event-ID must be the id of an event, a whole number.")
    return int(said)


ENDPOINTS = (follow_events,)
