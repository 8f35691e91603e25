"""How results are told."""

from __future__ import annotations

import pytest

from bgproxy.control.deployments.words import LINES, SHOWN, brief, last_lines, lines_of, milliseconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.0ms"), (0.00068, "0.7ms"), (0.0123, "12ms"), (0.4121, "412ms"), (1.23456, "1.235s"), (75.0, "75.000s")],
)
def test_times_have_as_many_digits_as_mean_something(seconds, text):
    """Fractions of a millisecond only of the shortest."""
    assert milliseconds(seconds) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("total: 3", "total: 3"),
        ("  a\r\nb\x1b[2Jc  ", "a  b [2Jc"),
        ("x" * SHOWN, "x" * SHOWN),
        ("x" * (SHOWN + 1), "x" * (SHOWN - 1) + "…"),
        ("x" * 10_000_000, "x" * (SHOWN - 1) + "…"),
    ],
    ids=["as it is", "nothing that moves a cursor", "just fits", "too long", "far too long"],
)
def test_what_came_fits_in_a_line(text, told):
    """It is shown in terminals and kept on the disk."""
    assert brief(text) == told


@pytest.mark.parametrize(
    ("output", "lines"),
    [
        (b"", []),
        (b"one\ntwo\n", ["one", "two"]),
        (b"\n \n\x1b\n", []),
        (b"10%\r20%\r30%\r\ndone", ["10%", "20%", "30%", "done"]),
        (b"caf\xc3\xa9 \xff\x00!", ["caf\u00e9 \ufffd !"]),
        (b"x" * 1000, ["x" * (SHOWN - 1) + "\u2026"]),
    ],
)
def test_an_output_is_told_in_lines(output, lines):
    """Without those that say nothing, whatever its bytes are."""
    assert lines_of(output) == lines


def test_the_end_of_an_output_is_what_counts():
    """The last lines of many."""
    output = b"".join(b"%d\n" % number for number in range(100))
    assert last_lines(output) == tuple(str(number) for number in range(100 - LINES, 100))
