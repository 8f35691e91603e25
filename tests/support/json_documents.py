"""JSON documents and paths into them for hypothesis, and a second reader of such paths, which is nothing like the first."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import strategies as st

#: Names that documents and paths share, so that they meet.
NAMES = st.sampled_from(["a", "b", "id", "", "0", "a b", "ä", "it's", 'q"', "\\", "x.y", "\u2028", "😀"])
NUMBERS = st.one_of(st.integers(-(10**20), 10**20), st.floats(allow_nan=False, allow_infinity=False))
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), NUMBERS, st.text("ab\n\x7fé😀", max_size=4))
DOCUMENTS = st.recursive(
    LEAVES, lambda below: st.lists(below, max_size=4) | st.dictionaries(NAMES, below, max_size=4), max_leaves=20
)

Step = str | int | None
Place = tuple[str | int, ...]
STEPS = st.lists(st.one_of(NAMES, st.integers(-5, 5), st.none()), max_size=5).map(tuple)


@st.composite
def written(draw: st.DrawFn, steps: tuple[Step, ...]) -> str:
    """A way to write a path of these steps (RFC 9535)."""
    text = "$"
    for step in steps:
        blank = draw(st.sampled_from(["", "", " ", "\t\n\r "]))
        if step is None and draw(st.booleans()):
            text += blank + ".*"
        elif isinstance(step, str) and re.fullmatch(r"[^\W\d]\w*|[😀]", step) and draw(st.booleans()):
            text += blank + "." + step
        else:
            text += blank + "[" + blank + (draw(_quoted(step)) if isinstance(step, str) else _plain(step)) + "]"
    return text


def _plain(step: int | None) -> str:
    return "*" if step is None else str(step)


@st.composite
def _quoted(draw: st.DrawFn, name: str) -> str:
    mark = draw(st.sampled_from("'\""))
    out = ""
    for char in name:
        if draw(st.integers(0, 3)) == 0:
            units = char.encode("utf-16-be")
            out += "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))
        elif char in (mark, "\\"):
            out += "\\" + char
        elif ord(char) < 0x20:
            out += json.dumps(char)[1:-1]
        else:
            out += char
    return mark + out + mark


def places(document: Any) -> list[tuple[Place, Any]]:
    """Every place of a document, those above before those below."""
    found: list[tuple[Place, Any]] = [((), document)]
    for place, value in found:
        if isinstance(value, dict):
            found += [((*place, key), child) for key, child in value.items()]
        elif isinstance(value, list):
            found += [((*place, index), child) for index, child in enumerate(value)]
    return found


def leads(steps: tuple[Step, ...], place: Place, document: Any) -> bool:
    """Whether a path leads to a place: key by key, negative indexes from the end of the list that is there."""
    if len(steps) != len(place):
        return False
    for step, key in zip(steps, place, strict=True):
        size = len(document)
        if step is not None and not (
            step == key if isinstance(step, str) or isinstance(key, str) else step in (key, key - size)
        ):
            return False
        document = document[key]
    return True


def ignored(paths: list[tuple[Step, ...]], place: Place, document: Any) -> bool:
    """Whether one of the paths leads to a place, or to one above it."""
    return any(leads(steps, place[:length], document) for steps in paths for length in range(len(place) + 1))


def normal(place: Place) -> str:
    """A place as differences name it."""
    return "$" + "".join(
        f"[{key}]" if isinstance(key, int) else f".{key}" if key.isidentifier() else f"[{key!r}]" for key in place
    )


def replaced(document: Any, place: Place, value: Any) -> Any:
    """The document with another value at a place."""
    if not place:
        return value
    first, *rest = place
    if isinstance(document, dict):
        return document | {first: replaced(document[first], tuple(rest), value)}
    return [replaced(child, tuple(rest), value) if index == first else child for index, child in enumerate(document)]


def without(document: Any, place: Place) -> Any:
    """The document without the member at a place of an object."""
    *above, last = place
    if above:
        first, *rest = place
        if isinstance(document, dict):
            return document | {first: without(document[first], tuple(rest))}
        return [without(child, tuple(rest)) if index == first else child for index, child in enumerate(document)]
    return {key: child for key, child in document.items() if key != last}
