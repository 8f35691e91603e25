"""Medians, quantiles, spreads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with the smallest and the largest of its values."""

    median: float
    low: float
    high: float
    count: int

    def to_json(self) -> dict[str, float]:
        return {"median": self.median, "low": self.low, "high": self.high, "count": self.count}


def median(values: Sequence[float]) -> float:
    """The middle one, or the mean of the middle two; `ValueError` without any."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def quantile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank quantile of values in rising order: the least one that `share` of them do not exceed."""
    if not ordered:
        raise ValueError("no values")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> Spread:
    """Median, minimum and maximum."""
    return Spread(median(values), min(values), max(values), len(values))


def ratios(values: Sequence[float], base: Sequence[float]) -> Spread | None:
    """Of two series of the same rounds, round by round; None where a round lacks one of them."""
    if not values or len(values) != len(base) or any(below <= 0 for below in base):
        return None
    return spread([value / below for value, below in zip(values, base, strict=True)])
