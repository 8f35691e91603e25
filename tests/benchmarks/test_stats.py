"""Medians, quantiles, ratios."""

from __future__ import annotations

import pytest
from bench.stats import Spread, median, quantile, ratios, spread


@pytest.mark.parametrize(("values", "middle"), [([3], 3), ([4, 1], 2.5), ([9, 1, 5], 5), ([4, 1, 3, 2], 2.5)])
def test_median(values, middle):
    """The middle one in order, or the mean of the middle two."""
    assert median(values) == middle


def test_nothing_has_no_median():
    """It is an error, not a nought."""
    with pytest.raises(ValueError, match="no values"):
        median([])
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_quantiles_are_values_that_occurred():
    """Nearest rank: the 99th of a hundred is p99, the last one of few is every high quantile."""
    hundred = list(range(1, 101))
    assert [quantile(hundred, share) for share in (0, 0.5, 0.99, 0.999, 1)] == [1, 50, 99, 100, 100]
    assert quantile([1, 2, 3], 0.999) == 3


def test_spread():
    """The median between the smallest and the largest."""
    assert spread([3, 1, 2]) == Spread(2, 1, 3, 3)


def test_ratios_are_taken_round_by_round():
    """A round in which the machine was slow for both has the same ratio as the others."""
    assert ratios([10, 40, 11], [20, 80, 22]) == Spread(0.5, 0.5, 0.5, 3)


@pytest.mark.parametrize(("values", "base"), [([], []), ([1], [1, 2]), ([1, 2], [1, 0])])
def test_no_ratio_where_a_round_is_lacking(values, base):
    """A round that is missing, or that measured nothing, gives none."""
    assert ratios(values, base) is None
