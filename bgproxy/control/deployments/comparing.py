"""Whether two answers to one request are the same: status, chosen header fields, body. Pure: it is given both and says what differs.

Bodies are compared as JSON where both are JSON, without the places that are to be ignored, and byte by byte otherwise; a content
coding (gzip, deflate) is taken off before, as far as its data stays within `MOST_DECODED`. Validators are each pool's own: where one
says 304 to a conditional request and the other 200, nothing differs.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from bgproxy.config.jsonpath import Path, remove
from bgproxy.control.deployments.words import brief

#: Bytes of a body without its content coding that are compared.
MOST_DECODED: Final = 4 * 1024 * 1024

#: Differences of one pair of answers that are told.
MOST_TOLD: Final = 3

#: What is compared is no secret to the operator, but these are the users'.
_SECRET: Final = frozenset(
    {"authentication-info", "authorization", "cookie", "proxy-authorization", "set-cookie", "www-authenticate"}
)
_NOT_SHOWN: Final = "(a value that is not shown)"
_NONE: Final = "(none)"

#: What a document has where it has nothing; JSON has no such value.
_MISSING: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One of the two answers."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""  # with its content coding
    complete: bool = True  # False: the body is not all there, and is not compared

    def header(self, name: str) -> str | None:
        """The value of a field (lower case), those of one that came more than once with ", " between; None without."""
        values = [value for field, value in self.headers if field.lower() == name]
        return ", ".join(values) if values else None


@dataclass(frozen=True, slots=True)
class Rules:
    """What is compared."""

    headers: tuple[str, ...]  # lower case
    ignored: tuple[Path, ...]  # places in JSON


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs, and both values as an operator may see them."""

    what: str
    live: str
    idle: str

    def __str__(self) -> str:
        """All of it in a line."""
        return f"{self.what}: {self.live} / {self.idle}"


def differences(live: Reply, idle: Reply, rules: Rules) -> list[Difference]:
    """What differs, at most `MOST_TOLD` of it; empty if the answers are the same."""
    if live.status != idle.status:
        if {live.status, idle.status} == {HTTPStatus.OK, HTTPStatus.NOT_MODIFIED}:
            return []
        return [Difference("status", str(live.status), str(idle.status))]
    found = []
    for name in rules.headers:
        ours, theirs = live.header(name), idle.header(name)
        if ours != theirs:
            found.append(Difference(name, _shown(name, ours), _shown(name, theirs)))
    if live.complete:
        found += _bodies(live, idle, rules)
    return found[:MOST_TOLD]


def _shown(name: str, value: str | None) -> str:
    if value is None:
        return _NONE
    return _NOT_SHOWN if name in _SECRET else brief(value)


# --- bodies ---------------------------------------------------------------------------------------------------------


def _bodies(live: Reply, idle: Reply, rules: Rules) -> list[Difference]:
    if not idle.complete:
        return [Difference("body", f"{len(live.body)} bytes", f"more than {len(idle.body)} bytes")]
    if live.body == idle.body:
        return []
    ours, theirs = _plain(live), _plain(idle)
    if ours is None or theirs is None:  # as they came, then: a coding that is not known here, or too much data in it
        ours, theirs = live.body, idle.body
    elif _is_json(live) and _is_json(idle):
        documents = _document(ours), _document(theirs)
        if _MISSING not in documents:
            return _documents(*documents, rules)
    if ours == theirs:
        return []
    return [Difference("body", _digest(ours), _digest(theirs))]


def _plain(reply: Reply) -> bytes | None:
    """The body without its content coding; None where that cannot be had."""
    codings = [coding.strip().lower() for coding in (reply.header("content-encoding") or "").split(",")]
    codings = [coding for coding in codings if coding not in ("", "identity")]
    if not codings:
        return reply.body
    return decoded(reply.body, codings[0]) if len(codings) == 1 else None


def decoded(body: bytes, coding: str, most: int = MOST_DECODED) -> bytes | None:
    """What was coded (RFC 9110 section 8.4.1); None: an unknown coding, broken data, or more than `most` bytes of it."""
    if coding in ("gzip", "x-gzip"):
        windows = [zlib.MAX_WBITS | 16]
    elif coding == "deflate":
        windows = [zlib.MAX_WBITS, -zlib.MAX_WBITS]  # some send it without its zlib wrapping
    else:
        return None
    for window in windows:
        try:
            return _inflated(body, window, most)
        except zlib.error:
            continue
    return None


def _inflated(body: bytes, window: int, most: int) -> bytes | None:
    out = b""
    while body:  # gzip may come in several members (RFC 1952 section 2.2)
        inflater = zlib.decompressobj(window)
        out += inflater.decompress(body, most + 1 - len(out))
        if len(out) > most or not inflater.eof:
            return None
        body = inflater.unused_data
    return out


def _is_json(reply: Reply) -> bool:
    kind = (reply.header("content-type") or "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _document(body: bytes) -> Any:
    """The document; `_MISSING` where it is none that can be read here."""
    try:
        return json.loads(body, parse_constant=str)
    except (ValueError, RecursionError):
        return _MISSING


def _digest(body: bytes) -> str:
    return f"{len(body)} bytes, SHA-256 {hashlib.sha256(body).hexdigest()[:16]}…"


# --- documents ------------------------------------------------------------------------------------------------------


def _documents(live: Any, idle: Any, rules: Rules) -> list[Difference]:
    found = []
    for path, ours, theirs in _walk(remove(rules.ignored, live), remove(rules.ignored, idle)):
        found.append(Difference(path, _value(ours), _value(theirs)))
        if len(found) == MOST_TOLD:
            break
    return found


def _walk(live: Any, idle: Any) -> Iterator[tuple[str, Any, Any]]:
    """Each place where two documents differ, in the order of the live one. Without recursion: they may be deep."""
    left: list[tuple[tuple[str | int, ...], Any, Any]] = [((), live, idle)]
    while left:
        place, ours, theirs = left.pop()
        if isinstance(ours, dict) and isinstance(theirs, dict):
            keys = [*ours, *(key for key in theirs if key not in ours)]
            left += [((*place, key), ours.get(key, _MISSING), theirs.get(key, _MISSING)) for key in reversed(keys)]
        elif isinstance(ours, list) and isinstance(theirs, list):
            longest = max(len(ours), len(theirs))
            left += [((*place, at), _at(ours, at), _at(theirs, at)) for at in reversed(range(longest))]
        elif isinstance(ours, bool) is not isinstance(theirs, bool) or ours != theirs:  # to Python, true is 1
            yield _path(place), ours, theirs


def _at(values: list[Any], at: int) -> Any:
    return values[at] if at < len(values) else _MISSING


def _path(place: tuple[str | int, ...]) -> str:
    steps = []
    for key in place:
        if isinstance(key, int):
            steps.append(f"[{key}]")
        elif key.isidentifier():
            steps.append(f".{key}")
        else:
            steps.append(f"[{key!r}]")
    return brief("".join(["$", *steps]))


def _value(value: Any) -> str:
    if value is _MISSING:
        return _NONE
    try:
        return brief(json.dumps(value, ensure_ascii=False))
    except RecursionError:
        return "(a deep document)"
