"""Plots are well-formed, and show what they are given."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from bench.svg import Bar, Panel, bars, round_up, timeline

SVG = "{http://www.w3.org/2000/svg}"


def test_bars():
    """A rectangle for each row behind the white ground, as long as its value says; names are escaped."""
    root = ET.fromstring(bars("CPU <a request>", "µs & more", [Bar("bgproxy", 10, 9, 11), Bar("a<b", 20, 19, 20)]))
    widths = [float(each.get("width")) for each in root.iter(f"{SVG}rect")][1:]
    assert widths[1] == pytest.approx(2 * widths[0])
    assert {"bgproxy", "a<b"} <= {each.text for each in root.iter(f"{SVG}text")}


def test_timeline():
    """Three lines a panel, and the call marked in each."""
    rows = [{"ms": -5.0, "p50": 0.5, "p99": 2.0, "max": 9.0}, {"ms": 5.0, "p50": 0.6, "p99": 3.0, "max": 90.0}]
    root = ET.fromstring(timeline("Latency", [Panel("nginx", rows), Panel("bgproxy", rows)]))
    assert len(list(root.iter(f"{SVG}polyline"))) == 6
    assert len([each for each in root.iter(f"{SVG}line") if each.get("stroke-dasharray")]) == 2


@pytest.mark.parametrize("text", [bars("nothing", "µs", []), timeline("nothing", []), timeline("no", [Panel("a", [])])])
def test_without_values(text):
    """An empty plot is a plot."""
    assert ET.fromstring(text).tag == f"{SVG}svg"


@pytest.mark.parametrize(("value", "most"), [(0, 1), (0.03, 0.05), (1, 1), (1.1, 2), (321, 500), (999, 1000)])
def test_scale_ends(value, most):
    """At the next of 1, 2 and 5 of its decade."""
    assert round_up(value) == pytest.approx(most)
