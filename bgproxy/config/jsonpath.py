"""Places in a JSON document: ``$.items[0].id``, ``$.items[*].id``, ``$['a name']``.

The part of RFC 9535 that names one thing after another: names, indexes (from the end too) and the wildcard, in the dotted and
in the bracketed way. What selects by a condition or at any depth (``..``, slices, filters, several selectors in one bracket) is
refused with a word on what there is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

#: Far deeper than what is written by hand.
MAX_STEPS: Final = 64

#: RFC 9535 section 2.1: I-JSON numbers (RFC 7493), so that every reader means the same.
_MAX_INDEX: Final = 2**53 - 1
_MAX_DIGITS: Final = 16

#: Characters of a path that are shown where it is wrong.
_MOST_SHOWN: Final = 80

#: What stands for every member of an object and every element of an array.
_EVERY: Final = None

_BLANK: Final = re.compile(r"[ \t\n\r]*")
_NAME: Final = re.compile(r"[A-Za-z_\u0080-\ud7ff\ue000-\U0010ffff][0-9A-Za-z_\u0080-\ud7ff\ue000-\U0010ffff]*")
_INDEX: Final = re.compile(r"0|-?[1-9][0-9]*", re.ASCII)
_QUOTED: Final = re.compile(r"""'(?:[^'\\\x00-\x1f]|\\.)*'|"(?:[^"\\\x00-\x1f]|\\.)*\"""")
#: A pair of surrogates, any four digits, or a letter.
_ESCAPE: Final = re.compile(r"\\(?:u([Dd][89ABab][0-9A-Fa-f]{2})\\u([Dd][C-Fc-f][0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|(.))")
_ESCAPED: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "/": "/", "\\": "\\"}

#: What the whole of RFC 9535 has and this part has not, by how it begins within brackets or after a dot.
_BEYOND: Final = {"?": "filters", ":": "slices", ",": "several selectors in one bracket", ".": "'..'"}


#: A name, an index, or None for every one.
Step = str | int | None
Steps = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Path:
    """A path: its steps from the root."""

    text: str
    steps: Steps

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
        raise ValueError(f"{_shown(text)} does not begin with $: write {_suggested(text)}")
    steps: list[Step] = []
    at = 1
    while at < len(text):
        at = _end(_BLANK, text, at)
        try:
            step, at = _bracketed(text, at) if text[at] == "[" else _dotted(text, at)
        except ValueError as error:
            raise ValueError(f"{error} (in the step at character {at + 1})") from None
        steps.append(step)
        if len(steps) > MAX_STEPS:
            raise ValueError(f"{_shown(text)} has more than {MAX_STEPS} steps")
    return Path(text, tuple(steps))


def find(path: Path, document: Any) -> list[Any]:
    """All values of `document` (as `json.loads` gives it) that `path` leads to, in its order; empty: there is none."""
    found = [document]
    for step in path.steps:
        found = [child for value in found for child in _children(value, step)]
    return found


def follow(paths: Iterable[Steps], key: str | int, size: int = 0) -> tuple[Steps, ...]:
    """What is left to go of those of `paths` that lead through one child of a value; an empty one leads to the child itself.

    The child is named by its key in an object, or by its index in an array of `size` elements.
    """
    return tuple([steps[1:] for steps in paths if steps and _leads(steps[0], key, size)])


def _leads(step: Step, key: str | int, size: int) -> bool:
    if step is _EVERY or step == key:
        return True
    return isinstance(step, int) and isinstance(key, int) and step + size == key


# --- finding --------------------------------------------------------------------------------------------------------


def _children(value: Any, step: Step) -> Iterable[Any]:
    if isinstance(value, dict):
        if step is _EVERY:
            return value.values()
        return [value[step]] if isinstance(step, str) and step in value else ()
    if isinstance(value, list):
        if step is _EVERY:
            return value
        if isinstance(step, int) and -len(value) <= step < len(value):
            return [value[step]]
    return ()


# --- reading --------------------------------------------------------------------------------------------------------


def _dotted(text: str, at: int) -> tuple[str | None, int]:
    """The step that begins at `at` with a dot, and where it ends."""
    if text[at] != ".":
        raise ValueError(f"{_shown(text)} has {text[at]!r} where a step begins: {_advice(text, at)}")
    at += 1
    if text.startswith("*", at):
        return _EVERY, at + 1
    if text.startswith(".", at):
        raise _beyond(text, ".")
    match = _NAME.match(text, at)
    if match is None:
        found = f"{text[at]!r}" if at < len(text) else "nothing"
        raise ValueError(
            f"{_shown(text)} has {found} after a dot: write a name there, such as $.total, or $['any name']"
        )
    return match[0], match.end()


def _bracketed(text: str, at: int) -> tuple[Step, int]:
    """The step that begins at `at` with a bracket, and where it ends."""
    at = _end(_BLANK, text, at + 1)
    step: Step
    if text.startswith("*", at):
        step, end = _EVERY, at + 1
    elif quoted := _QUOTED.match(text, at):
        step, end = _unquoted(text, quoted[0]), quoted.end()
    elif index := _INDEX.match(text, at):
        # The length first: int() takes no more than some thousand digits.
        step, end = int(index[0][: _MAX_DIGITS + 1]), index.end()
        if abs(step) > _MAX_INDEX:
            raise ValueError(f"{_shown(text)} has an index that is too large: {_plain(index[0])}")
    elif text[at : at + 1] in _BEYOND:
        raise _beyond(text, text[at])
    else:
        raise ValueError(f"{_shown(text)} has no step in its brackets: write [0], [*] or ['name']")
    end = _end(_BLANK, text, end)
    if text.startswith("]", end):
        return step, end + 1
    if text[end : end + 1] in _BEYOND:
        raise _beyond(text, text[end])
    raise ValueError(f"{_shown(text)} has a bracket that is not closed: write [0], [*] or ['name']")


def _unquoted(text: str, quoted: str) -> str:
    """What stands between quotation marks, its escapes read (RFC 9535 section 2.3.1.1)."""

    def read(match: re.Match[str]) -> str:
        high, low, digits, letter = match.groups()
        if letter is not None:
            if letter != quoted[0] and letter not in _ESCAPED:
                raise ValueError(f"{_shown(text)} has an unknown escape: \\{_plain(letter)}")
            return _ESCAPED.get(letter, letter)
        if high is not None:
            return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + (int(low, 16) - 0xDC00))
        code = int(digits, 16)
        if 0xD800 <= code < 0xE000:
            raise ValueError(f"{_shown(text)} has half of a surrogate pair: {match[0]}")
        return chr(code)

    return _ESCAPE.sub(read, quoted[1:-1])


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match is not None else at


# --- words ----------------------------------------------------------------------------------------------------------


def _shown(text: str) -> str:
    """A path as it stands in a sentence: as far as one reads it."""
    return repr(text) if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]!r}…"


def _plain(text: str) -> str:
    """A part of it as it is to be written: nothing that moves a cursor."""
    return text if text.isprintable() and len(text) <= _MOST_SHOWN else "…"


def _beyond(text: str, sign: str) -> ValueError:
    return ValueError(f"{_shown(text)}: {_BEYOND[sign]} are not understood here; names, [0], [-1] and [*] are")


def _advice(text: str, at: int) -> str:
    name = _NAME.match(text, at)
    if name is not None:
        return f"write .{_plain(name[0])}"
    rest = re.match(r"[^.\[\]]*", text[at:])
    whole = re.split(r"[.\[\]]", text[:at])[-1] + (rest[0] if rest else "")
    return f"write ['{_plain(whole)}'], since a name after a dot has letters, digits and _ only"


def _suggested(text: str) -> str:
    if text.startswith((".", "[")):
        return f"${_plain(text)}"
    return f"$.{_plain(text)}" if _NAME.match(text) else "$.total"
