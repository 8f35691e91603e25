"""h2load's output and log, as version 1.52 writes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.h2load import Answer, Outcome, command, parse, parse_log

TEXT = """finished in 3.43s, 8757.85 req/s, 1.27MB/s
requests: 30000 total, 29990 started, 29980 done, 29970 succeeded, 10 failed, 5 errored, 1 timeout
status codes: 29970 2xx, 0 3xx, 0 4xx, 10 5xx
"""


def test_output():
    """What it counted."""
    assert parse(TEXT) == Outcome(30000, 29970, 10, 5, 1)


def test_something_else():
    """It is refused."""
    with pytest.raises(ValueError, match="not h2load's output"):
        parse("client could not connect to host")


def test_log_is_put_in_order():
    """It is written as answers end; what counts is when requests began. Half a line is left out."""
    log = "1700000000200000\t200\t1500\n1700000000100000\t-1\t300000\n17000"
    assert parse_log(log) == [Answer(1700000000.1, -1, 0.3), Answer(1700000000.2, 200, 0.0015)]


def test_the_rate_is_shared_by_the_clients():
    """--rps is a client's, -n is everybody's."""
    made = command("http://127.0.0.1:1/", 5000, 3, Path("log"), clients=200)
    assert "--rps=25.000" in made
    assert made[made.index("-n") + 1] == "15000"
