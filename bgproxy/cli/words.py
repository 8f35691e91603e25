"""Numbers, times and states in the words that a person reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from bgproxy.model.classes import CLASS_NAMES


def plural(count: int, noun: str) -> str:
    """`1 request`, `2 requests`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def in_classes(counts: Mapping[str, int]) -> str:
    """`2 requests, 1 websocket`; empty where there is none of any class."""
    return ", ".join(plural(counts[name], name.removesuffix("s")) for name in CLASS_NAMES if counts.get(name))


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `4m 58s`, `3h 10m`, `2d 4h`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole // 60 % 60}m"
    return f"{whole // 86400}d {whole // 3600 % 24}h"


def ago(moment: str | None, now: datetime) -> str:
    """How long before `now` an RFC 3339 time was, as `duration` says it; empty for none."""
    if moment is None:
        return ""
    try:
        then = datetime.fromisoformat(moment)
    except ValueError:
        return moment
    return duration((now - (then if then.tzinfo else then.replace(tzinfo=UTC))).total_seconds())


def listed(names: Iterable[str]) -> str:
    """`a, b and c`."""
    words = list(names)
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def printable(text: object) -> str:
    """A text from elsewhere, without what would move a terminal's cursor or change its colours."""
    return "".join(char if char.isprintable() else "?" for char in str(text))
