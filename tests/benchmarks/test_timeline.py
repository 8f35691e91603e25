"""Requests around switches and away from them, and the last one on the old pool."""

from __future__ import annotations

import pytest
from bench.h2load import Answer
from bench.timeline import Probe, Switch, around, last_on_old, latencies, parse_probes, points

SWITCH = Switch(100.0, 100.01, "green")


def test_latencies_are_milliseconds():
    """Of a thousand requests the slowest is the maximum and not yet p99.9."""
    found = latencies([0.001] * 999 + [0.5])
    assert found == {"p50": 1.0, "p99": 1.0, "p999": 1.0, "max": 500.0, "count": 1000}
    assert latencies([]) is None


def test_a_request_under_way_at_the_call_is_near_it():
    """What began before the call and ended after it has met the switch; what ended before it has not."""
    answers = [Answer(99.90, 200, 0.05), Answer(99.99, 200, 0.02), Answer(100.2, 200, 0.003), Answer(100.3, 200, 0.004)]
    found = around(answers, [SWITCH])
    assert found["near"]["count"] == 2
    assert found["near"]["max"] == 20
    assert found["away"]["count"] == 2
    assert found["away"]["max"] == 50


def test_points_count_from_the_call():
    """Bins of 10 ms, of what began from 250 ms before to 500 ms after."""
    answers = [Answer(99.0, 200, 1), Answer(99.995, 200, 0.001), Answer(100.012, 200, 0.002), Answer(100.6, 200, 1)]
    assert [(round(row["ms"]), row["max"]) for row in points(answers, [SWITCH])] == [(-5, 1.0), (15, 2.0)]


def test_last_on_old():
    """Milliseconds to the last request that the old pool answered before the next call; 0 where there was none."""
    switches = [SWITCH, Switch(101.0, 101.01, "blue"), Switch(102.0, 102.01, "green")]
    probes = [
        *(Probe(99.999, "blue", 0.001), Probe(100.001, "blue", 0.001), Probe(100.003, "blue", 0.001)),
        *(Probe(100.004, "green", 0.001), Probe(100.005, "error", 0.001), Probe(101.5, "blue", 0.001)),
        Probe(101.9995, "green", 0.001),  # under way at the next call
        *(Probe(102.02, "blue", 0.001), Probe(102.03, "green", 0.001)),
    ]
    assert last_on_old(probes, switches) == [pytest.approx(3), 0, pytest.approx(20)]


def test_probes_are_read():
    """A line each: when, what, microseconds."""
    assert parse_probes("100.5 blue 250\n100.6 closed 0\n") == [
        Probe(100.5, "blue", 0.00025),
        Probe(100.6, "closed", 0),
    ]
