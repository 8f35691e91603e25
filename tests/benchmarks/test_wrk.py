"""wrk's output, as version 4.1 prints it."""

from __future__ import annotations

import pytest
from bench.wrk import Outcome, command, parse

GOOD = """Running 1s test @ http://127.0.0.1:8080/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.32ms    1.01ms  22.10ms   92.19%
    Req/Sec    48.71k     3.02k   53.40k    72.73%
  53412 requests in 1.10s, 8.10MB read
Requests/sec:  48556.36
Transfer/sec:      7.36MB
"""


def test_a_good_run():
    """Requests and the seconds that they took."""
    assert parse(GOOD) == Outcome(53412, 1.1, 0, 0)


def test_errors_are_counted():
    """Of the sockets, summed, and of the status."""
    text = GOOD + "  Socket errors: connect 1, read 20, write 300, timeout 4000\n  Non-2xx or 3xx responses: 7\n"
    assert parse(text) == Outcome(53412, 1.1, 4321, 7)


@pytest.mark.parametrize(("took", "seconds"), [("900.15ms", 0.90015), ("1.00m", 60.0)])
def test_units(took, seconds):
    """It prints milliseconds and minutes too."""
    assert parse(f"  5 requests in {took}, 1KB read").seconds == pytest.approx(seconds)


def test_something_else():
    """It is refused."""
    with pytest.raises(ValueError, match="not wrk's output"):
        parse("unable to connect to 127.0.0.1:8080 Connection refused")


def test_the_command_passes_what_the_script_reads():
    """Method, body, connection and whether headers change stand behind the two dashes, in that order."""
    made = command("http://127.0.0.1:1/", 64, 2, method="POST", body=4096, connection="close", changing=True)
    assert made[made.index("--") + 1 :] == ["POST", "4096", "close", "changing"]
    assert "-c64" in made
    assert "-d2s" in made
