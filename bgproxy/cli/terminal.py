"""What is printed where: colour on terminals only, columns, a line that is redrawn, a screen that is redrawn."""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import Final, TextIO

_CODES: Final = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "94",
}
_ESCAPE: Final = re.compile(r"\x1b\[[0-9;]*m")


class Paint:
    """Colours text, or leaves it as it is where colour has no place."""

    def __init__(self, *, on: bool) -> None:
        self._on = on

    @classmethod
    def of(cls, stream: TextIO) -> Paint:
        """Colour on a terminal, unless NO_COLOR is set to anything (no-color.org) or the terminal is dumb."""
        dumb = os.environ.get("TERM") == "dumb"
        return cls(on=stream.isatty() and not os.environ.get("NO_COLOR") and not dumb)

    def __call__(self, text: str, *styles: str) -> str:
        """The text in these styles; unknown ones are none."""
        codes = [_CODES[style] for style in styles if style in _CODES]
        return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if self._on and codes and text else text


def columns(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset(), gap: int = 2) -> list[str]:
    """Rows as aligned lines; `right` names the columns of numbers. Colours take no width."""
    if not rows:
        return []
    widths = [max(_width(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = []
        for i, cell in enumerate(row):
            fill = " " * (widths[i] - _width(cell))
            cells.append(fill + cell if i in right else cell + fill)
        lines.append((" " * gap).join(cells).rstrip())
    return lines


def _width(text: str) -> int:
    return sum(map(_cells, _ESCAPE.sub("", text)))


def _cells(char: str) -> int:
    """Columns that a character takes on a terminal: two of a Chinese one, none of an accent of its own (UAX #11)."""
    if char.isascii():
        return 1
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _first(text: str, room: int) -> str:
    """As much of the beginning as fits into so many columns."""
    if len(text) <= room and text.isascii():
        return text
    for at, char in enumerate(text):
        room -= _cells(char)
        if room < 0:
            return text[:at]
    return text


class Progress:
    """One line that says how far something is: redrawn on a terminal, printed now and then elsewhere."""

    def __init__(self, stream: TextIO, *, every: float = 5.0) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._every = every  # seconds between two lines that are not redrawn
        self._shown = ""
        self._next = 0.0

    def show(self, text: str, now: float) -> None:
        """Say this; `now` is a monotonic time in seconds."""
        if self._terminal:
            room = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r\x1b[K{_first(text, room)}")
            self._stream.flush()
            self._shown = text
        elif text != self._shown and now >= self._next:
            print(text, file=self._stream, flush=True)
            self._shown, self._next = text, now + self._every

    def clear(self) -> None:
        """Make room for a line that stays."""
        if self._terminal and self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = ""


def cut(text: str, room: int) -> str:
    """The text, at most `room` columns of it; colours take no width, and end where they should."""
    if _width(text) <= room:
        return text
    kept, seen = [], 0
    coloured = False
    for part in re.split(f"({_ESCAPE.pattern})", text):
        if _ESCAPE.fullmatch(part):
            kept.append(part)
            coloured = True
        else:
            kept.append(_first(part, room - seen))
            seen += _width(part)
    return "".join(kept) + ("\x1b[0m" if coloured else "")


def fold(text: str, room: int) -> list[str]:
    """A line that stays, as lines of at most `room` columns, broken at blanks; what follows the first stands deeper."""
    if _width(text) <= room:
        return [text]
    margin = len(text) - len(text.lstrip(" "))
    first, *words = text[margin:].split(" ")
    lines, line = [], " " * margin + first
    for word in words:
        if _width(line) + 1 + _width(word) > room:
            lines.append(line.rstrip(" "))
            line = " " * (margin + 2) + word
        else:
            line += f" {word}"
    return [*lines, line]


def show(lines: Sequence[str], stream: TextIO | None = None) -> None:
    """Print lines that stay: folded to the width of a terminal, as they are elsewhere."""
    out = stream or sys.stdout
    room = shutil.get_terminal_size().columns if out.isatty() else 0
    for line in lines:
        print("\n".join(fold(line, room)) if room else line, file=out)
    out.flush()


class Region:
    """Lines at the bottom of a terminal's output that are redrawn in their place."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._drawn = 0

    @staticmethod
    def suits(stream: TextIO) -> bool:
        """Whether lines can be redrawn there."""
        return stream.isatty() and os.environ.get("TERM") != "dumb"

    def show(self, lines: Sequence[str]) -> None:
        """These instead of the former ones, cut to the width; of more than there is room for, the last."""
        size = shutil.get_terminal_size()
        shown = [cut(line, size.columns - 1) for line in lines][-max(size.lines - 1, 1) :]
        self._stream.write(self._up() + "".join(f"{line}\x1b[K\n" for line in shown) + "\x1b[J")
        self._stream.flush()
        self._drawn = len(shown)

    def clear(self) -> None:
        """Make room for lines that stay."""
        if self._drawn:
            self._stream.write(f"{self._up()}\x1b[J")
            self._stream.flush()
            self._drawn = 0

    def _up(self) -> str:
        return f"\x1b[{self._drawn}A\r" if self._drawn else "\r"


def redraw(lines: Sequence[str], stream: TextIO | None = None) -> None:
    """The whole screen anew without flicker; on something else than a terminal, one block after the other."""
    out = stream or sys.stdout
    if not out.isatty():
        print("\n".join(lines), end="\n\n", file=out, flush=True)
        return
    size = shutil.get_terminal_size()
    room = size.lines - 1
    # What the terminal would break by itself would scroll, and not be drawn over.
    shown = [part for line in lines for part in fold(line, size.columns)]
    if len(shown) > room:
        shown = [*shown[: room - 1], f"... {len(shown) - room + 1} more lines; a taller window shows them"]
    out.write("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in shown) + "\x1b[J")
    out.flush()
