"""Whether two answers to one request are the same: status, chosen header fields, body. Pure: it is given both and says what differs.

Bodies are compared as JSON where both are JSON, without the places that are to be ignored, and byte by byte otherwise; a content
coding (gzip, deflate) is taken off before, as far as its data stays within `MOST_DECODED`. Validators are each pool's own: where one
says 304 to a conditional request and the other 200, nothing differs.

The idle pool may answer with anything. How long it takes to compare depends on the live answer's size and on `MOST_DECODED`, and
neither makes more than a few small objects for a value: documents are walked side by side, and no further than to `MOST_TOLD` differences.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from itertools import zip_longest
from typing import Any, Final

from bgproxy.config.jsonpath import Path, Steps, follow
from bgproxy.config.schema import MiB
from bgproxy.control.deployments.words import brief

#: Bytes of a body without its content coding that are compared, and members of a gzip file that are read.
MOST_DECODED: Final = 1 * MiB
_MOST_MEMBERS: Final = 100

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
    try:
        ours = _plain(live)
    except TooMuch:
        return []  # as with a body that is too large without a coding
    try:
        theirs = _plain(idle)
    except TooMuch:
        return [Difference("body", f"{len(live.body)} bytes", f"more than {MOST_DECODED} bytes without its coding")]
    if ours is None or theirs is None:  # as they came, then: a coding that is not known here
        ours, theirs = live.body, idle.body
    elif _is_json(live) and _is_json(idle):
        documents = _document(ours), _document(theirs)
        if _MISSING not in documents:
            return _documents(*documents, rules)
    if ours == theirs:
        return []
    return [Difference("body", _digest(ours), _digest(theirs))]


class TooMuch(Exception):  # noqa: N818 - says what it is
    """There is more in a body than is looked at."""


def _plain(reply: Reply) -> bytes | None:
    """The body without its content coding; None where that cannot be had. Raises `TooMuch`."""
    codings = [coding.strip().lower() for coding in (reply.header("content-encoding") or "").split(",")]
    codings = [coding for coding in codings if coding not in ("", "identity")]
    if not codings:
        return reply.body
    return decoded(reply.body, codings[0]) if len(codings) == 1 else None


def decoded(body: bytes, coding: str, most: int = MOST_DECODED) -> bytes | None:
    """What was coded (RFC 9110 section 8.4.1); None: an unknown coding, or broken data. Raises `TooMuch`: it is more than `most`."""
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
    for _ in range(_MOST_MEMBERS):  # gzip may come in several members (RFC 1952 section 2.2)
        inflater = zlib.decompressobj(window)
        out += inflater.decompress(body, most + 1 - len(out))
        if len(out) > most:
            raise TooMuch
        if not inflater.eof:
            return None
        body = inflater.unused_data
        if not body:
            return out
    raise TooMuch


def _is_json(reply: Reply) -> bool:
    kind = (reply.header("content-type") or "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _document(body: bytes) -> Any:
    """The document; `_MISSING` where it is none that can be read here. Of a name that comes twice, the last value counts."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return _MISSING


def _digest(body: bytes) -> str:
    return f"{len(body)} bytes, SHA-256 {hashlib.sha256(body).hexdigest()[:16]}…"


# --- documents ------------------------------------------------------------------------------------------------------


#: Writes a document in one way, quickly: what reads the same is the same. It bears to be asked of a document that came from JSON only.
_writer: Final = json.JSONEncoder(sort_keys=True, check_circular=False, separators=(",", ":"))

#: A place in a document: the place above it, and the key or index there; None is the root.
_Place = tuple[Any, str | int] | None

#: Both values at a place, and of the ignored paths what leads further from there, in either document.
_Pair = tuple[_Place, Any, Any, tuple[Steps, ...], tuple[Steps, ...]]


def _documents(live: Any, idle: Any, rules: Rules) -> list[Difference]:
    found = []
    for path, ours, theirs in _walk(live, idle, tuple([path.steps for path in rules.ignored])):
        found.append(Difference(path, _value(ours), _value(theirs)))
        if len(found) == MOST_TOLD:
            break
    return found


def _walk(live: Any, idle: Any, ignored: tuple[Steps, ...]) -> Iterator[tuple[str, Any, Any]]:
    """Each place where two documents differ, in the order of the live one. Without recursion: they may be deep."""
    if () in ignored:
        return
    left: list[Iterator[_Pair]] = [iter([(None, live, idle, ignored, ignored)])]
    unlike = (
        -1
    )  # how deep it is where two values are known to be written in two ways: what is in them is looked at one by one
    while left:
        for pair in left[-1]:
            place, ours, theirs, further, too = pair
            kind = type(ours)
            if kind is type(theirs) and (kind is dict or kind is list):
                if unlike < 0 and not further and not too:
                    if _same(ours, theirs):
                        continue
                    unlike = len(left)
                left.append(_members(*pair) if kind is dict else _elements(*pair))
                break
            if _differ(ours, theirs):
                yield _path(place), ours, theirs
        else:
            left.pop()
            if len(left) <= unlike:
                unlike = -1


def _same(ours: Any, theirs: Any) -> bool:
    """Whether two values are surely the same; numbers that are written in two ways may be."""
    try:
        return len(ours) == len(theirs) and _writer.encode(ours) == _writer.encode(theirs)
    except RecursionError:
        return False


def _differ(ours: Any, theirs: Any) -> bool:
    """Whether two values differ that are not both objects or arrays."""
    if isinstance(ours, bool) is not isinstance(theirs, bool):
        return True  # to Python, true is 1
    return bool(ours != theirs) and not (_is_nan(ours) and _is_nan(theirs))


def _is_nan(value: Any) -> bool:
    """JSON has no such number, and many write it."""
    return isinstance(value, float) and math.isnan(value)


def _members(
    place: _Place, ours: dict[str, Any], theirs: dict[str, Any], ignored: tuple[Steps, ...], too: tuple[Steps, ...]
) -> Iterator[_Pair]:
    """The members of two objects."""
    for key, further in _kept(ours, len(ours), ignored):
        further_too = follow(too, key) if too else ()
        yield (
            (place, key),
            ours[key],
            _MISSING if () in further_too else theirs.get(key, _MISSING),
            further,
            further_too,
        )
    for key, further_too in _kept(theirs, len(theirs), too):
        if key not in ours or (ignored and () in follow(ignored, key)):
            yield (place, key), _MISSING, theirs[key], (), further_too


def _elements(
    place: _Place, ours: list[Any], theirs: list[Any], ignored: tuple[Steps, ...], too: tuple[Steps, ...]
) -> Iterator[_Pair]:
    """The elements of two arrays that are not ignored, side by side; a place is the live one's, as far as that goes."""
    nothing = (-1, ())
    both = zip_longest(
        _kept(range(len(ours)), len(ours), ignored), _kept(range(len(theirs)), len(theirs), too), fillvalue=nothing
    )
    for (at, further), (other, further_too) in both:
        mine = ours[at] if at >= 0 else _MISSING
        its = theirs[other] if other >= 0 else _MISSING
        yield (place, at if at >= 0 else other), mine, its, further, further_too


def _kept(keys: Iterable[Any], size: int, ignored: tuple[Steps, ...]) -> Iterator[tuple[Any, tuple[Steps, ...]]]:
    """The keys or indexes that no path leads to, and of the paths what leads further."""
    if not ignored:
        for key in keys:
            yield key, ()
        return
    steps = {steps[0] for steps in ignored}
    steps |= {step + size for step in steps if isinstance(step, int) and step < 0}
    for key in keys:
        if None in steps or key in steps:
            further = follow(ignored, key, size)
            if () not in further:
                yield key, further
        else:
            yield key, ()


def _path(place: _Place) -> str:
    steps: list[str] = []
    while place is not None:
        place, key = place
        if isinstance(key, int):
            steps.append(f"[{key}]")
        elif key.isidentifier():
            steps.append(f".{key}")
        else:
            steps.append(f"[{key!r}]")
    return brief("".join(["$", *reversed(steps)]))


def _value(value: Any) -> str:
    if value is _MISSING:
        return _NONE
    try:
        return brief(json.dumps(value, ensure_ascii=False))
    except RecursionError:
        return "(a deep document)"
