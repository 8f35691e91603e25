"""Sets of HTTP status codes, written ``200``, ``200-399`` or ``200,204,300-399``."""

from __future__ import annotations

import re
from typing import Final

_PART: Final = re.compile(r"\s*([0-9]{3})\s*(?:-\s*([0-9]{3})\s*)?", re.ASCII)


def parse_statuses(text: str) -> tuple[range, ...]:
    """The ranges of `text`; a status is expected when it is in any of them.

    Raises:
        ValueError: what is wrong and how to write it.
    """
    ranges = []
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"{part.strip()!r} is not a status or a range: write 200, 200-399 or 200,204,300-399")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 200 <= first <= 599 or not 200 <= last <= 599:
            raise ValueError(f"{part.strip()!r} is out of range: final statuses are 200 to 599")
        if first > last:
            raise ValueError(f"{part.strip()!r} is backwards: write {last}-{first}")
        ranges.append(range(first, last + 1))
    return tuple(ranges)
