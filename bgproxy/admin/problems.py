"""Errors as the admin API says them: problem+json (RFC 9457), with a stable `type` for programs and a text for people.

`KINDS` is the whole list of what can go wrong, and `of` the one place where an exception becomes one of them.
No traceback ever reaches a user: what nobody foresaw becomes an `internal` problem with an id that is in the log.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from bgproxy.errors import (
    BgproxyError,
    Busy,
    ConfigError,
    Invalid,
    NotFound,
    NotHealthy,
    Refused,
    Stale,
    StateError,
    Unavailable,
)

log = logging.getLogger("bgproxy.admin")

CONTENT_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:bgproxy:problem:"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem: the end of its `type`, its status, and its title."""

    slug: str
    status: int
    title: str


KINDS: Final = {
    kind.slug: kind
    for kind in (
        Kind("malformed", 400, "The request cannot be read"),
        Kind("unauthorized", 401, "A token is needed"),
        Kind("forbidden", 403, "Not allowed"),
        Kind("not-found", 404, "Not found"),
        Kind("method-not-allowed", 405, "Method not allowed"),
        Kind("busy", 409, "Another change is running"),
        Kind("not-healthy", 409, "The pool is not healthy"),
        Kind("refused", 409, "Refused as things stand"),
        Kind("stale", 412, "The generation is not the current one"),
        Kind("too-large", 413, "The body is too large"),
        Kind("unsupported-media-type", 415, "The body is not JSON"),
        Kind("config", 422, "The configuration has mistakes"),
        Kind("idempotency-mismatch", 422, "The Idempotency-Key was used for another request"),
        Kind("invalid", 422, "A value is not allowed"),
        Kind("internal", 500, "Something went wrong inside bgproxy"),
        Kind("unavailable", 503, "Not available at the moment"),
        Kind("state-not-written", 507, "The state could not be written"),
    )
}

#: Exceptions of `bgproxy.errors`, the more special ones first.
_SLUGS: Final[tuple[tuple[type[BgproxyError], str], ...]] = (
    (NotHealthy, "not-healthy"),
    (Busy, "busy"),
    (Stale, "stale"),
    (Refused, "refused"),
    (NotFound, "not-found"),
    (ConfigError, "config"),
    (Invalid, "invalid"),
    (Unavailable, "unavailable"),
    (StateError, "state-not-written"),
)

_HTTP_SLUGS: Final = {
    400: "malformed",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    415: "unsupported-media-type",
    417: "malformed",
}


class Problem(BgproxyError):  # noqa: N818 - RFC 9457's word for it
    """A problem, ready to be said; raised as it is by the parts of the admin API itself."""

    def __init__(
        self, slug: str, detail: str, details: list[str] | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.slug = slug
        self.detail = detail
        self.details = details or []
        self.headers = headers or {}

    @property
    def kind(self) -> Kind:
        """Its entry in `KINDS`."""
        return KINDS[self.slug]

    def to_json(self) -> dict[str, Any]:
        """The members of RFC 9457, and `details`: one further line each."""
        kind = self.kind
        return {
            "type": TYPE_PREFIX + kind.slug,
            "title": kind.title,
            "status": kind.status,
            "detail": self.detail,
            "details": self.details,
        }

    def response(self) -> web.Response:
        """The answer that says it."""
        text = json.dumps(self.to_json())  # ASCII: a text may quote what no UTF-8 has room for
        return web.Response(status=self.kind.status, text=text, content_type=CONTENT_TYPE, headers=self.headers)


def of(error: Exception) -> Problem:
    """The problem that an exception is, whatever it is."""
    if isinstance(error, Problem):
        return error
    for cls, slug in _SLUGS:
        if isinstance(error, cls):
            return _of_ours(error, slug)
    if isinstance(error, web.HTTPException):
        return _of_aiohttp(error)
    number = secrets.token_hex(6)
    log.error("unexpected error %s in the admin API", number, exc_info=error, extra={"fields": {"id": number}})
    return Problem(
        "internal", f"This is a fault of bgproxy, not of the request; its log has the cause under id {number}."
    )


def _of_ours(error: BgproxyError, slug: str) -> Problem:
    if isinstance(error, ConfigError):
        mistakes = [str(mistake) for mistake in error.mistakes]
        count = f"{len(mistakes)} mistakes" if len(mistakes) != 1 else "1 mistake"
        return Problem(slug, f"The configuration has {count}; nothing was changed.", mistakes)
    details = list(error.details) if isinstance(error, Refused) else []
    return Problem(slug, str(error), details, {"Retry-After": "1"} if slug == "unavailable" else {})


def _of_aiohttp(error: web.HTTPException) -> Problem:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return Problem("method-not-allowed", f"This path knows {allowed}.", headers={"Allow": allowed})
    if isinstance(error, web.HTTPNotFound):
        return Problem("not-found", "No such path; /v1/openapi.json lists them.")
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return too_large()
    return Problem(_HTTP_SLUGS.get(error.status, "malformed"), error.reason)


#: Bytes that the body of a request may have.
MAX_BODY: Final = 1024 * 1024


def too_large() -> Problem:
    """The body is over `MAX_BODY`; the connection ends, since the rest of it is not read."""
    return Problem("too-large", f"A body may have {MAX_BODY} bytes.", headers={"Connection": "close"})
