"""What a call of the API is: its declaration, its handler, and what happens around every one of them.

A handler is made into an `Endpoint` by `@endpoint(...)`, which asks for all that OpenAPI says of it; the application
takes nothing but endpoints, so that a route without a description cannot exist.

Around a reading call: the token's role, the query. Around a change: the role, the body (size, media type), the
Idempotency-Key, If-Match, the fields of the body, and, whatever came of it, a line in the audit log.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from aiohttp import web

from bgproxy.admin import audit, body, etag, problems
from bgproxy.admin.auth import Authority, Caller, peer_of
from bgproxy.admin.idempotency import Answer, Answers
from bgproxy.admin.problems import Problem
from bgproxy.admin.schemas import Schema
from bgproxy.config.schema import Role
from bgproxy.control.actor import Actor
from bgproxy.control.controller import Controller

#: Seconds within which the body of a request has to be here.
BODY_WITHIN: Final = 30.0

EVENT_STREAM: Final = "text/event-stream"

CONTROLLER: Final = web.AppKey("controller", Controller)
AUTHORITY: Final = web.AppKey("authority", Authority)
ANSWERS: Final = web.AppKey("answers", Answers)

Method = Literal["GET", "POST", "PUT"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """All that is declared of a call."""

    method: Method
    path: str
    name: str  # of the operation, for generated clients
    summary: str
    about: str = ""
    role: Role | None  # what it takes; None: public
    answer: dict[str, Any]  # JSON Schema of a good answer
    media_type: str = "application/json"
    other_media_types: tuple[str, ...] = ()  # that it may have by Accept
    other_answers: dict[int, str] = field(default_factory=dict)  # statuses beside 200 that have the same body
    query: body.Fields = ()
    body: body.Fields = ()
    headers: tuple[tuple[str, str, Schema], ...] = ()  # that it reads beside those of every call: name, what for, what
    tagged: bool = False  # the answer carries the generation as ETag
    slugs: tuple[str, ...] = ()  # problems of its own, beside those that every call may have

    @property
    def changes(self) -> bool:
        """Whether it changes something."""
        return self.method != "GET"


@dataclass(frozen=True, slots=True)
class Call:
    """One call under way, as its handler sees it."""

    request: web.Request
    controller: Controller
    caller: Caller
    said: dict[str, Any]  # the checked fields of the body, or of the query of a reading call

    @property
    def actor(self) -> Actor:
        """Who asks, in the controller's words."""
        return Actor(self.caller.name, self.caller.address)

    def path(self, name: str) -> str:
        """A variable part of the path, decoded."""
        return self.request.match_info[name]

    def if_match(self, current: int) -> int | None:
        """The generation that the caller decided on: `current`, or None for any; raises `Stale`."""
        return etag.wanted(self.request, current)


@dataclass(frozen=True, slots=True)
class Reply:
    """A good answer: JSON, and the generation that it is of."""

    value: Any
    generation: int | None = None
    status: int = 200

    def answer(self) -> Answer:
        """As it is sent."""
        headers = {"ETag": etag.tag(self.generation)} if self.generation is not None else {}
        return Answer(self.status, json.dumps(self.value).encode(), headers, "done")


Handler = Callable[[Call], Awaitable[Reply | web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A declared call and its handler."""

    operation: Operation
    handler: Handler

    def register(self, app: web.Application) -> None:
        """Serve it."""

        async def serve(request: web.Request) -> web.StreamResponse:
            return await (self._change(request) if self.operation.changes else self._read(request))

        if self.operation.method == "GET":
            app.router.add_get(self.operation.path, serve, allow_head=self.operation.media_type != EVENT_STREAM)
        else:
            app.router.add_route(self.operation.method, self.operation.path, serve)

    async def _read(self, request: web.Request) -> web.StreamResponse:
        authority = request.app[AUTHORITY]
        caller = authority.caller(request, strict=self.operation.role is not None)
        authority.require(caller, self.operation.role)
        said = body.parse_query(request, self.operation.query)
        result = await self.handler(Call(request, request.app[CONTROLLER], caller, said))
        return result if isinstance(result, web.StreamResponse) else _response(result.answer())

    async def _change(self, request: web.Request) -> web.Response:
        record = audit_record(request)
        authority = request.app[AUTHORITY]
        try:
            caller = authority.caller(request)
            record.who, record.role = caller.name, caller.role
            authority.require(caller, self.operation.role)
            body.parse_query(request, ())
            async with asyncio.timeout(BODY_WITHIN):
                raw = await body.read(request)
            answer = await self._once(request, caller, raw, record)
        except TimeoutError:
            answer = _refusal(Problem("malformed", f"The body was not here within {BODY_WITHIN:.0f} seconds."))
        except asyncio.CancelledError:
            record.write("interrupted", 0)
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: whatever it is becomes a problem and an audit line
            answer = _refusal(problems.of(error))
        record.write("replayed" if answer.replayed else answer.outcome, answer.status, answer.detail)
        return _response(answer)

    async def _once(self, request: web.Request, caller: Caller, raw: bytes, record: audit.Record) -> Answer:
        async def make() -> Answer:
            try:
                said = record.said = body.parse(raw, self.operation.body)
                result = await self.handler(Call(request, request.app[CONTROLLER], caller, said))
            except Exception as error:  # noqa: BLE001 - as above; here so that the answer can be kept for its key
                return _refusal(problems.of(error))
            if not isinstance(result, Reply):
                raise TypeError(f"{self.operation.name}: a change answers with a Reply")
            return result.answer()

        key = request.headers.get("Idempotency-Key")
        if key is None:
            return await make()
        # The condition is a part of what is asked: with another one it is another request.
        condition = ascii(request.headers.getall("If-Match", [])).encode()
        scope = (request.method, request.rel_url.raw_path, caller.name)
        return await request.app[ANSWERS].once(scope, key, condition + b"\n" + raw, make)


def audit_record(request: web.Request) -> audit.Record:
    """What is known of a change before anybody has looked at it."""
    return audit.Record(f"{request.method} {request.rel_url.raw_path}", time.monotonic(), address=peer_of(request))


def endpoint(operation: Operation) -> Callable[[Handler], Endpoint]:
    """Make a handler into an endpoint."""

    def declare(handler: Handler) -> Endpoint:
        return Endpoint(operation, handler)

    return declare


def _refusal(problem: Problem) -> Answer:
    response = problem.response()
    headers = dict(problem.headers) | {"Content-Type": problems.CONTENT_TYPE}
    raw = bytes(response.body or b"")  # type: ignore[arg-type]
    return Answer(problem.kind.status, raw, headers, problem.slug, problem.detail)


def _response(answer: Answer) -> web.Response:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"} | answer.headers
    if answer.replayed:
        headers["Idempotent-Replayed"] = "true"
    return web.Response(status=answer.status, body=answer.body, headers=headers)
