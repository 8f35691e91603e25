"""How durations, sizes, shares, counts and flags are written."""

from __future__ import annotations

import pytest

from bgproxy.config import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("30s", 30),
        ("1.5s", 1.5),
        ("5m", 300),
        ("1h", 3600),
        ("7d", 604800),
        ("1h30m", 5400),
        (" 2s ", 2),
    ],
)
def test_durations(text, seconds):
    """A duration is a number and a unit, or several of them in a row."""
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "5", "1.5", "-1s", "1 s", "5S", "5min", "1e3s", "12:30", "٣s", "1s!", "nans"]
)
def test_what_is_no_duration(text):
    """Anything else is refused, with a way to write it."""
    with pytest.raises(ValueError, match="write"):
        units.parse_duration(text)


def test_a_bare_number_is_told_its_unit():
    """A number alone could be seconds or milliseconds, so it is refused with the likely fix."""
    with pytest.raises(ValueError, match=r"^30 has no unit: write 30s"):
        units.parse_duration("30")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "250ms"), (1, "1s"), (1.5, "1.5s"), (90, "90s"), (300, "5m"), (3600, "1h"), (604800, "7d"), (0, "0s")],
)
def test_durations_are_written_back(seconds, text):
    """What is formatted reads as the same number again."""
    assert units.format_duration(seconds) == text
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "rate", "back"),
    [
        ("200/s", 200, "200/s"),
        ("0.5/s", 0.5, "0.5/s"),
        ("30/m", 0.5, "0.5/s"),
        ("36 / h", 0.01, "0.01/s"),
        ("0/s", 0, "0/s"),
    ],
)
def test_rates(text, rate, back):
    """A rate is a number a second, a minute or an hour; what is formatted reads as the same number again."""
    assert units.parse_rate(text) == rate
    assert units.format_rate(rate) == back
    assert units.parse_rate(back) == rate


@pytest.mark.parametrize("text", ["", "200", "/s", "-1/s", "1e3/s", "200/sec", "200 s", "200/ms", "2/d", "٣/s"])
def test_what_is_no_rate(text):
    """Anything else is refused, with a way to write it."""
    with pytest.raises(ValueError, match="write 200/s or 30/m"):
        units.parse_rate(text)


@pytest.mark.parametrize(("text", "factor"), [("2x", 2), ("1.5x", 1.5), ("10 x", 10), ("0.5x", 0.5)])
def test_factors(text, factor):
    """A factor is a number and an x; what is formatted reads as the same number again."""
    assert units.parse_factor(text) == factor
    assert units.parse_factor(units.format_factor(factor)) == factor


@pytest.mark.parametrize(
    ("text", "says"), [("2", "write 2x"), ("", "write it as 2x"), ("x", "as 2x"), ("-2x", "as 2x")]
)
def test_what_is_no_factor(text, says):
    """Anything else is refused, with a way to write it; a bare number is told its x."""
    with pytest.raises(ValueError, match=says):
        units.parse_factor(text)


def test_a_factor_of_the_file():
    """`worse_than_before` is more than 1x, or off."""
    marker = units.FactorText(off=True)
    assert (marker.parse("2x"), marker.parse("off"), marker.format(None)) == (2, None, "off")
    with pytest.raises(ValueError, match=r"1x is out of range: write a factor of more than 1x \(2x\) or off"):
        marker.parse("1x")
    with pytest.raises(ValueError, match="or off"):
        marker.parse("never")


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("100", 100), ("100B", 100), ("64KiB", 65536), ("10 MiB", 10485760), ("1GiB", 1 << 30), ("10MB", 10**7)],
)
def test_sizes(text, size):
    """A size is a whole number and a unit; without one it is bytes."""
    assert units.parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "KiB", "1.5MiB", "64k", "64kib", "-1", "1_000", "ten", "1TiB"])
def test_what_is_no_size(text):
    """Anything else is refused, with a way to write it."""
    with pytest.raises(ValueError, match="write"):
        units.parse_bytes(text)


@pytest.mark.parametrize(
    ("size", "text"), [(65536, "64KiB"), (10485760, "10MiB"), (1 << 30, "1GiB"), (100, "100B"), (0, "0B")]
)
def test_sizes_are_written_back(size, text):
    """What is formatted reads as the same number again."""
    assert units.format_bytes(size) == text
    assert units.parse_bytes(text) == size


def test_unlimited():
    """Only where the marker allows it is `unlimited` a size, and 0 is not a way to say it."""
    assert units.BytesText(unlimited=True).parse("unlimited") is None
    assert units.BytesText(unlimited=True).format(None) == "unlimited"
    with pytest.raises(ValueError, match="write unlimited"):
        units.BytesText(unlimited=True).parse("0")
    with pytest.raises(ValueError, match="or unlimited"):
        units.BytesText(unlimited=True).parse("none")
    with pytest.raises(ValueError, match="is not a size"):
        units.BytesText().parse("unlimited")


def test_shares():
    """A share is a number and a per cent sign."""
    assert units.parse_percent("50%") == 50
    assert units.parse_percent("0.1 %") == 0.1
    assert units.format_percent(50.0) == "50%"
    for text in ("50", "%", "-1%", "half", "1%%"):
        with pytest.raises(ValueError, match="write"):
            units.parse_percent(text)


def test_counts():
    """A count is decimal digits, without the other notations that YAML or Python know."""
    assert units.parse_count("10000") == 10000
    assert units.parse_count("-1") == -1
    for text in ("1_000", "0x10", "0o17", "1e3", "2.0", "two", "", "٣"):
        with pytest.raises(ValueError, match="decimal digits"):
            units.parse_count(text)


def test_flags():
    """Only true and false are booleans; who writes yes or off is told which."""
    assert units.parse_flag("true") is True
    assert units.parse_flag("False") is False
    for text, remedy in (("yes", "write true$"), ("off", "write false$"), ("", "write true or false$")):
        with pytest.raises(ValueError, match=remedy):
            units.parse_flag(text)


@pytest.mark.parametrize(
    "marker",
    [
        units.DurationText(),
        units.DurationText(off=True),
        units.BytesText(),
        units.BytesText(unlimited=True),
        units.PercentText(),
        units.CountText(),
        units.FlagText(),
    ],
)
def test_markers_are_values(marker):
    """A marker can be hashed and compared, as the annotations of the schema need it, and describes itself."""
    assert hash(marker) == hash(type(marker)(**{name: getattr(marker, name) for name in marker.__dataclass_fields__}))
    assert marker.noun
    assert marker.json_types


def test_a_duration_that_may_be_off():
    """`off` is None, both ways, and is named where a text is neither."""
    marker = units.DurationText(off=True)
    assert (marker.parse("off"), marker.parse("1d"), marker.format(None)) == (None, 86400.0, "off")
    with pytest.raises(ValueError, match="or off"):
        marker.parse("never")
    with pytest.raises(ValueError, match="is not a duration"):
        units.DurationText().parse("off")
