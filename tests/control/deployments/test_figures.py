"""Windows of counters: shares, rates and quantiles, and who hangs."""

from __future__ import annotations

import json
from array import array

import pytest
from support.deployments import FakeClock, make_service
from support.traffic import BLUE, GREEN, Traffic

from bgproxy.control.counters import Counters
from bgproxy.control.deployments.figures import EMPTY, Figures, Ring, Sample, Window
from bgproxy.switchboard import layout
from bgproxy.switchboard.board import Switchboard


@pytest.fixture
def board():
    board = Switchboard(1)
    yield board
    board.close()


def figures_of(board, *, tcp=False):
    clock = FakeClock()
    counters = Counters(board, lambda _: 0, lambda: [0])
    return Figures(counters, make_service("http://127.0.0.1:1", tcp=tcp), clock.now), clock, Traffic(board)


def buckets(*seconds: float) -> tuple[int, ...]:
    counts = [0] * layout.BUCKET_COUNT
    for value in seconds:
        counts[layout.bucket_of(value)] += 1
    return tuple(counts)


def at(moment: float, requests: int, in_flight: tuple[int, int, int] = (0, 0, 0)) -> Sample:
    return Sample(moment, requests, 0, array("q", buckets()), in_flight)


def test_a_window_is_the_difference_of_two_samples(board):
    """What was counted before the first look is no part of it."""
    traffic = Traffic(board)
    traffic.answered(GREEN, 1000, code=500)
    figures, clock, traffic = figures_of(board)
    traffic.answered(GREEN, 90, seconds=0.012)
    traffic.answered(GREEN, 10, code=503, seconds=0.4)
    clock.at += 2
    figures.look()
    window = figures.pools[GREEN].whole()
    assert (window.requests, window.errors, window.seconds, window.rate, window.share) == (100, 10, 2.0, 50.0, 0.1)
    assert figures.pools[BLUE].whole().requests == 0


def test_client_errors_are_no_errors_of_the_pool(board):
    """4xx, 499 among them, are answers like others."""
    figures, _, traffic = figures_of(board)
    for code in (404, 499, 429, 200, 302):
        traffic.answered(GREEN, 5, code=code)
    figures.look()
    assert (figures.pools[GREEN].whole().requests, figures.pools[GREEN].whole().errors) == (25, 0)


def test_requests_that_have_named_the_pool_are_no_live_traffic(board):
    """Neither their errors nor their latencies count, and one that has ended does not hang."""
    figures, clock, traffic = figures_of(board)
    traffic.set(GREEN, layout.IN_FLIGHT, 5)
    figures.look()
    traffic.answered(GREEN, 90, seconds=0.012)
    traffic.answered(GREEN, 10, code=503, seconds=0.4)
    traffic.answered(GREEN, 30, code=500, seconds=7.0, preview=True)
    clock.at += 2
    figures.look()
    window = figures.pools[GREEN].whole()
    assert (window.requests, window.errors, window.timed, window.slower(5.0)) == (100, 10, 100, 0)
    figures, clock, traffic = figures_of(board)
    figures.look()
    traffic.answered(GREEN, 5, preview=True)
    clock.at += 2
    figures.look()
    assert figures.pools[GREEN].hanging(1.0) == 0


def test_of_a_tcp_service_connections_count(board):
    """Failed are those that no upstream was reached for."""
    figures, _, traffic = figures_of(board, tcp=True)
    traffic.count(GREEN, layout.STREAMS, 40)
    traffic.count(GREEN, layout.STREAMS_FAILED, 4)
    figures.look()
    assert (figures.pools[GREEN].whole().requests, figures.pools[GREEN].whole().errors) == (40, 4)


def test_a_quantile_is_interpolated_within_its_bucket():
    """A hundred in (10, 15] ms: the median is in the middle of them; no requests have none."""
    window = Window(1.0, 100, 0, buckets(*[0.012] * 100))
    assert window.quantile(0.5) == pytest.approx(0.0125)
    assert window.quantile(1.0) == pytest.approx(0.015)
    assert EMPTY.quantile(0.5) is None


def test_a_quantile_beyond_all_bounds_is_the_last_bound():
    """Nothing is known of how much more it is."""
    assert Window(1.0, 1, 0, buckets(1000.0)).quantile(0.99) == layout.BUCKET_BOUNDS[-1]


@pytest.mark.parametrize("taken", [0.0101, 0.0149, 0.015])
def test_only_what_is_in_buckets_above_the_limit_is_surely_slower(taken):
    """The bucket in which the limit lies may be on either side of it."""
    window = Window(1.0, 1, 0, buckets(taken))
    assert (window.slower(0.0099), window.slower(0.01), window.slower(0.0101)) == (1, 1, 0)


def test_a_window_outlives_a_restart_as_json():
    """And what another program has written, or nobody, is an empty one."""
    window = Window(300.0, 5, 1, buckets(0.01, 0.02))
    assert Window.from_json(json.loads(json.dumps(window.to_json()))) == window
    assert Window.from_json({}) == EMPTY == Window.from_json({"buckets": [1, 2], "requests": 3})


def test_the_latest_window_holds_the_requests_asked_for_and_no_span_more():
    """Of samples with 10 requests each, the latest 25 need three."""
    ring = Ring()
    for index in range(11):
        ring.add(at(float(index), index * 10))
    assert (ring.latest(25).requests, ring.latest(25).seconds) == (30, 3.0)
    assert ring.latest(30).requests == 30
    assert ring.latest(1000).requests == 100
    assert (ring.recent(4.0).seconds, ring.recent(400.0).seconds) == (4.0, 10.0)


def test_a_ring_is_bounded_and_keeps_its_first_sample_and_the_latest_ones():
    """A bake of days has the whole, and a fine view of the last minute."""
    ring = Ring(most=64)
    for index in range(100_000):
        ring.add(at(float(index), index))
    assert len(ring) <= 64
    assert ring.whole().requests == 99_999
    assert ring.latest(20).requests == 20


def test_requests_that_get_no_answer_are_seen_while_they_wait():
    """Ten were in flight half a second ago, four have ended since: six at least wait for longer than a third of a second."""
    ring = Ring()
    for moment, ended, waiting in ((0.0, 0, 10), (0.2, 4, 30), (0.4, 4, 50), (0.6, 4, 70)):
        ring.add(at(moment, ended, (waiting, 0, 0)))
    assert ring.hanging(0.4) == 6
    assert ring.hanging(0.25) == 30  # in flight 0.4 s ago, and none has ended since
    assert ring.hanging(5.0) == 0


def test_traffic_that_flows_hangs_nowhere():
    """As many end as were in flight."""
    ring = Ring()
    for tick in range(20):
        ring.add(at(tick * 0.2, tick * 40, (8, 0, 0)))
    assert ring.hanging(0.1) == 0


def test_answers_that_begin_to_stream_do_not_hang():
    """They leave the requests without having ended."""
    ring = Ring()
    ring.add(at(0.0, 0, (10, 0, 0)))
    ring.add(at(1.0, 0, (10, 9, 1)))
    assert ring.hanging(0.5) == 0


def test_live_figures_are_json_of_the_last_seconds(board):
    """Rate, share of errors, quantiles, in flight by class; None where there was nothing."""
    figures, clock, traffic = figures_of(board)
    for _ in range(50):
        clock.at += 0.2
        traffic.answered(GREEN, 20, seconds=0.012)
        figures.look()
    traffic.set(GREEN, layout.IN_FLIGHT, 3)
    figures.look()
    live = json.loads(json.dumps(figures.live()))
    assert live["green"]["rate"] == pytest.approx(100.0)
    assert live["green"]["p50"] == pytest.approx(0.0125)
    assert live["green"]["in_flight"] == {"requests": 3, "streams": 0, "websockets": 0}
    assert (live["blue"]["rate"], live["blue"]["p99"], live["blue"]["errors"]) == (0.0, None, 0.0)
