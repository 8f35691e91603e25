"""Places in a JSON document: ``$.items[0].id``, ``$.items[*].id``, ``$['a name']``.

The part of RFC 9535 that names one thing after another: names, indexes (from the end too) and the wildcard, in the dotted and
in the bracketed way. What selects by a condition or at any depth (``..``, slices, filters, several selectors in one bracket) is
refused with a word on what there is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

#: Far deeper than what is written by hand; it also bounds how deep `remove` goes.
MAX_STEPS: Final = 64

#: RFC 9535 section 2.1: I-JSON numbers (RFC 7493), so that every reader means the same.
_MAX_INDEX: Final = 2**53 - 1

#: What stands for every member of an object and every element of an array.
_EVERY: Final = None

_BLANK: Final = re.compile(r"[ \t\n\r]*")
_NAME: Final = re.compile(r"[A-Za-z_\u0080-\ud7ff\ue000-\U0010ffff][0-9A-Za-z_\u0080-\ud7ff\ue000-\U0010ffff]*")
_INDEX: Final = re.compile(r"0|-?[1-9][0-9]*", re.ASCII)
_QUOTED: Final = re.compile(r"""'(?:[^'\\\x00-\x1f]|\\.)*'|"(?:[^"\\\x00-\x1f]|\\.)*\"""")
_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})(?:\\u([0-9A-Fa-f]{4}))?|(.))")
_ESCAPED: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "/": "/", "\\": "\\"}

#: What the whole of RFC 9535 has and this part has not, by how it begins within brackets or after a dot.
_BEYOND: Final = {"?": "filters", ":": "slices", ",": "several selectors in one bracket", ".": "'..'"}


@dataclass(frozen=True, slots=True)
class Path:
    """A path: its steps from the root, each a name, an index, or None for every one."""

    text: str
    steps: tuple[str | int | None, ...]

    def __str__(self) -> str:
        """As it was written."""
        return self.text


def parse(text: str) -> Path:
    """The path that `text` writes.

    Raises:
        ValueError: what is wrong, and how to write it.
    """
    text = text.strip(" \t\n\r")
    if not text.startswith("$"):
        raise ValueError(f"{text!r} does not begin with $: write {_suggested(text)}")
    steps: list[str | int | None] = []
    at = 1
    while at < len(text):
        at = _end(_BLANK, text, at)
        step, at = _bracketed(text, at) if text[at] == "[" else _dotted(text, at)
        steps.append(step)
        if len(steps) > MAX_STEPS:
            raise ValueError(f"{text[:40]!r}… has more than {MAX_STEPS} steps")
    return Path(text, tuple(steps))


def find(path: Path, document: Any) -> list[Any]:
    """All values of `document` (as `json.loads` gives it) that `path` leads to, in its order; empty: there is none."""
    return [value for _, value in _walk(path, document)]


def remove(paths: Iterable[Path], document: Any) -> Any:
    """`document` without what any of `paths` leads to; None where that is all of it.

    All of them are looked for before anything goes, so that ``$.a[0]`` and ``$.a[1]`` are the two that they were. The document
    itself is left as it is; what is the same in both may be shared between them.
    """
    doomed: dict[str | int, Any] = {}  # by key what goes below it; an empty one: it goes itself
    for path in paths:
        for place, _ in _walk(path, document):
            if not place:
                return None
            _doom(doomed, place)
    return _pruned(document, doomed)


# --- finding --------------------------------------------------------------------------------------------------------


def _walk(path: Path, document: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Each place that the path leads to, as keys and indexes from the root, and what stands there."""
    found: list[tuple[tuple[str | int, ...], Any]] = [((), document)]
    for step in path.steps:
        found = [((*place, key), child) for place, value in found for key, child in _children(value, step)]
    yield from found


def _children(value: Any, step: str | int | None) -> Iterable[tuple[str | int, Any]]:
    if isinstance(value, dict):
        if step is _EVERY:
            return value.items()
        return [(step, value[step])] if isinstance(step, str) and step in value else ()
    if isinstance(value, list):
        if step is _EVERY:
            return enumerate(value)
        if isinstance(step, int) and -len(value) <= step < len(value):
            return [(step % len(value), value[step])]
    return ()


def _doom(doomed: dict[str | int, Any], place: tuple[str | int, ...]) -> None:
    """Add a place, unless something above it goes already."""
    *above, last = place
    for key in above:
        known = doomed.get(key)
        if known is not None and not known:
            return
        doomed = doomed.setdefault(key, {})
    doomed[last] = {}


def _pruned(value: Any, doomed: dict[str | int, Any]) -> Any:
    """A copy without what is doomed; as deep as the paths are, no deeper."""
    if not doomed:
        return value
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    kept = [
        (key, _pruned(child, doomed[key]) if key in doomed else child) for key, child in pairs if doomed.get(key) != {}
    ]
    return dict(kept) if isinstance(value, dict) else [child for _, child in kept]


# --- reading --------------------------------------------------------------------------------------------------------


def _dotted(text: str, at: int) -> tuple[str | None, int]:
    """The step that begins at `at` with a dot, and where it ends."""
    if text[at] != ".":
        raise ValueError(f"{text!r} has {text[at]!r} where a step begins: {_advice(text, at)}")
    at += 1
    if text.startswith("*", at):
        return _EVERY, at + 1
    if text.startswith(".", at):
        raise _beyond(text, ".")
    match = _NAME.match(text, at)
    if match is None:
        found = f"{text[at]!r}" if at < len(text) else "nothing"
        raise ValueError(f"{text!r} has {found} after a dot: write a name there, such as $.total, or $['any name']")
    return match[0], match.end()


def _bracketed(text: str, at: int) -> tuple[str | int | None, int]:
    """The step that begins at `at` with a bracket, and where it ends."""
    at = _end(_BLANK, text, at + 1)
    step: str | int | None
    if text.startswith("*", at):
        step, end = _EVERY, at + 1
    elif quoted := _QUOTED.match(text, at):
        step, end = _unquoted(text, quoted[0]), quoted.end()
    elif index := _INDEX.match(text, at):
        step, end = int(index[0]), index.end()
        if abs(step) > _MAX_INDEX:
            raise ValueError(f"{text!r} has an index that is too large: {index[0]}")
    elif text[at : at + 1] in _BEYOND:
        raise _beyond(text, text[at])
    else:
        raise ValueError(f"{text!r} has no step in its brackets: write [0], [*] or ['name']")
    end = _end(_BLANK, text, end)
    if text.startswith("]", end):
        return step, end + 1
    if text[end : end + 1] in _BEYOND:
        raise _beyond(text, text[end])
    raise ValueError(f"{text!r} has a bracket that is not closed: write [0], [*] or ['name']")


def _unquoted(text: str, quoted: str) -> str:
    """What stands between quotation marks, its escapes read (RFC 9535 section 2.3.1.1)."""

    def read(match: re.Match[str]) -> str:
        first, second, letter = match.groups()
        if letter is not None:
            if letter != quoted[0] and letter not in _ESCAPED:
                raise ValueError(f"{text!r} has an unknown escape: \\{letter}")
            return _ESCAPED.get(letter, letter)
        high, low = int(first, 16), int(second, 16) if second else 0
        if 0xD800 <= high < 0xDC00 <= low < 0xE000:
            return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
        if 0xD800 <= high < 0xE000 or 0xD800 <= low < 0xE000:
            raise ValueError(f"{text!r} has half of a surrogate pair: {match[0]}")
        return chr(high) + (chr(low) if second else "")

    return _ESCAPE.sub(read, quoted[1:-1])


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match is not None else at


# --- words ----------------------------------------------------------------------------------------------------------


def _beyond(text: str, sign: str) -> ValueError:
    return ValueError(f"{text!r}: {_BEYOND[sign]} are not understood here; names, [0], [-1] and [*] are")


def _advice(text: str, at: int) -> str:
    name = _NAME.match(text, at)
    if name is not None:
        return f"write .{name[0]}"
    rest = re.match(r"[^.\[\]]*", text[at:])
    before = re.search(r"[^.\[\]]*$", text[:at])
    whole = (before[0] if before else "") + (rest[0] if rest else "")
    return f"write ['{whole}'], since a name after a dot has letters, digits and _ only"


def _suggested(text: str) -> str:
    return f"${text}" if text.startswith((".", "[")) else f"$.{text}" if _NAME.match(text) else "$.total"
