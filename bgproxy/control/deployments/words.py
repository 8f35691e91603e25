"""How results of stages are told: times as they were measured, and no more of what came than a line bears."""

from __future__ import annotations

from typing import Final

#: Characters of what came that are kept.
SHOWN: Final = 200
#: Lines of an output that are kept.
LINES: Final = 20


def brief(text: str, most: int = SHOWN) -> str:
    """Text as it may stand in a line: nothing that moves a cursor, and not too much of it."""
    line = "".join(char if char.isprintable() else " " for char in text[: 2 * most]).strip()
    return line if len(line) <= most else line[: most - 1] + "…"


def lines_of(output: bytes) -> list[str]:
    """What a program or a server said, as lines for people; none of them empty, or longer than a line bears."""
    lines = (brief(line) for line in output.decode(errors="replace").splitlines())
    return [line for line in lines if line]


def last_lines(output: bytes) -> tuple[str, ...]:
    """The end of it."""
    return tuple(lines_of(output)[-LINES:])


def milliseconds(seconds: float) -> str:
    """A time as it was measured: ``1.234s``, ``56ms``, ``0.7ms``."""
    if seconds >= 1:
        return f"{seconds:.3f}s"
    return f"{seconds * 1000:.0f}ms" if seconds >= 0.01 else f"{seconds * 1000:.1f}ms"
