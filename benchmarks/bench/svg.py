"""Plots as SVG: bars with their spread, and latency over time. Text only, no library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

INK, PALE, GRID = "#1f2933", "#52606d", "#d9dee3"
COLOURS = {"bgproxy": "#2563eb", "bgproxy-interpreted": "#7aa5f5"}
OTHER = "#9aa5b1"
#: Of the lines of a timeline: half of the requests, all but one of a hundred, the slowest.
LINES = (("p50", "#2563eb"), ("p99", "#d97706"), ("max", "#c0392b"))
FONT = 'font-family="system-ui, sans-serif"'


@dataclass(frozen=True, slots=True)
class Bar:
    """One row: its name, its value and the ends of its spread."""

    label: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Panel:
    """One proxy's latencies around a switch: rows of {"ms", "p50", "p99", "max"}, offset and latency in ms."""

    label: str
    points: Sequence[dict[str, float]]


def _text(x: float, y: float, text: str, size: int = 13, colour: str = INK, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" {FONT}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = GRID, width: float = 1, more: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}" {more}/>'


def _document(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        )
    )


def round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, ...; 1 for nothing."""
    if value <= 0:
        return 1.0
    decade = 10.0 ** math.floor(math.log10(value))
    return next(step * decade for step in (1, 2, 5, 10) if value <= step * decade * (1 + 1e-9))


def bars(title: str, unit: str, rows: Sequence[Bar]) -> str:
    """Horizontal bars, in the order given, with a whisker from the smallest to the largest value."""
    left, wide, high, top = 170, 760, 30, 66
    most = round_up(max((row.high for row in rows), default=0))
    scale = (wide - left - 90) / most
    bottom = top + high * len(rows)
    parts = [_text(16, 26, title, 16), _text(16, 46, f"{unit}; less is better; the line spans all rounds", 12, PALE)]
    for step in range(5):
        x = left + most * step / 4 * scale
        parts += [_line(x, top - 6, x, bottom), _text(x, bottom + 16, f"{most * step / 4:g}", 11, PALE, "middle")]
    for number, row in enumerate(rows):
        y = top + number * high
        middle, end = y + high / 2 - 2, left + row.value * scale
        colour = COLOURS.get(row.label, OTHER)
        parts += [
            _text(left - 10, middle + 4, row.label, 13, INK, "end"),
            f'<rect x="{left}" y="{y + 3:.1f}" width="{row.value * scale:.1f}" height="{high - 10}" fill="{colour}"/>',
            _line(left + row.low * scale, middle, left + row.high * scale, middle, INK, 1.5),
            _text(max(end, left + row.high * scale) + 8, middle + 4, f"{row.value:.1f}"),
        ]
    return _document(wide, bottom + 30, title, parts)


def timeline(title: str, panels: Sequence[Panel]) -> str:
    """Latency (logarithmic, one scale for all) against the time from the call of a switch, a panel a proxy."""
    left, wide, high, gap, top = 64, 760, 120, 34, 84
    rows = [row for panel in panels for row in panel.points]
    first, last = min((row["ms"] for row in rows), default=-250), max((row["ms"] for row in rows), default=500)
    least = math.floor(math.log10(max(0.01, min((row["p50"] for row in rows), default=0.1))))
    most = max(least + 1, math.ceil(math.log10(max((row["max"] for row in rows), default=10) or 1)))
    parts = [_text(16, 26, title, 16), _text(16, 46, "latency in ms by when a request began, 10 ms a point", 12, PALE)]
    for number, (name, colour) in enumerate(LINES):
        x = 400 + number * 90
        parts += [_line(x, 42, x + 22, 42, colour, 2), _text(x + 28, 46, name, 12, PALE)]

    def across(ms: float) -> float:
        return left + (ms - first) / ((last - first) or 1) * (wide - left - 20)

    bottom = top
    for number, panel in enumerate(panels):
        y = top + number * (high + gap)
        bottom = y + high

        def down(latency: float, bottom: float = bottom) -> float:
            share = (math.log10(max(latency, 10.0**least)) - least) / (most - least)
            return bottom - min(share, 1.0) * high

        parts.append(_text(left, y - 6, panel.label, 13))
        for decade in range(least, most + 1):
            level = down(10.0**decade)
            parts += [
                _line(left, level, wide - 20, level),
                _text(left - 6, level + 4, f"{10.0**decade:g}", 11, PALE, "end"),
            ]
        parts.append(_line(across(0), y, across(0), bottom, INK, 1.5, 'stroke-dasharray="4 3"'))
        for name, colour in LINES:
            path = " ".join(f"{across(row['ms']):.1f},{down(row[name]):.1f}" for row in panel.points)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    parts.append(_text(across(0), bottom + 18, "the call to switch", 12, INK, "middle"))
    for ms in range(math.ceil(first / 100) * 100, math.floor(last / 100) * 100 + 1, 100):
        if ms:
            parts.append(_text(across(ms), bottom + 18, f"{ms:+d} ms" if abs(ms) > 100 else "", 11, PALE, "middle"))
    return _document(wide, int(bottom + 32), title, parts)
