"""Generations as entity tags: `ETag: "7"` out, `If-Match: "7"` in (RFC 9110 section 13.1.1)."""

from __future__ import annotations

import re
from typing import Final

from aiohttp import web

from bgproxy.admin.problems import Problem
from bgproxy.errors import Stale

#: What If-Match may say, as a regular expression that JSON Schema knows too.
PATTERN: Final = r'\s*(?:W/)?(?:"[^"]*"|[0-9]+)\s*(?:,\s*(?:W/)?(?:"[^"]*"|[0-9]+)\s*)*'
_TAGS: Final = re.compile(PATTERN)
_TAG: Final = re.compile(r'(W/)?(?:"([^"]*)"|([0-9]+))')


def tag(generation: int) -> str:
    """A generation as the value of ETag."""
    return f'"{generation}"'


def wanted(request: web.Request, current: int) -> int | None:
    """The generation that If-Match asks for, or None where any will do; a number without quotes is understood too.

    Raises:
        Problem: 400 when the header is not a list of entity tags.
        Stale: 412 when `current` is not among them.
    """
    lines = request.headers.getall("If-Match", [])
    said = ",".join(lines).strip()
    if not lines or said == "*":
        return None
    if not _TAGS.fullmatch(said):
        raise Problem(
            "malformed", f"If-Match must be a generation in quotes, such as {tag(current)}, or *, not {said}."
        )
    for weak, quoted, bare in _TAG.findall(said):
        if not weak and (quoted or bare) == str(current):
            return current
    raise Stale(f"The generation is {current}, not {said}: someone changed something since; look again.")
