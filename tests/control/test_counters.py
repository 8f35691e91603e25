"""Sums over the workers' cells."""

from __future__ import annotations

import pytest

from bgproxy.control.counters import Counters
from bgproxy.switchboard import layout
from bgproxy.switchboard.board import Switchboard


@pytest.fixture
def board():
    board = Switchboard(2)
    yield board
    board.close()


def put(board: Switchboard, worker: int, cell: int, value: int) -> None:
    area = board.area(worker)
    area[cell] = value
    area.release()


def test_counters_are_summed_over_all_workers_and_gauges_over_the_living(board):
    """A dead worker's requests were made; what it had in flight is gone."""
    counters = Counters(board, lambda _: 3, lambda: [0])
    base = layout.pool_base(3, 1)
    for worker in (0, 1):
        put(board, worker, base + layout.CODES + layout.code_cell(200), 5)
        put(board, worker, base + layout.IN_FLIGHT + 2, 7)
        put(board, worker, base + layout.SESSIONS, 2)
        put(board, worker, layout.W_CONNECTIONS, 4)
        put(board, worker, layout.W_ACCEPTED, 10)
        put(board, worker, layout.upstream_base(9) + layout.UP_IN_FLIGHT, 6)
        put(board, worker, layout.upstream_base(9) + layout.UP_CONNECTIONS, 8)
    assert counters.pool("shop", "green").codes == {200: 10}
    assert counters.pool("shop", "green").requests == 10
    assert counters.pool("shop", "blue").codes == {}
    assert counters.in_flight(3, 1) == [0, 0, 7]
    assert counters.sessions(3, 1) == 2
    assert [counters.connections(0), counters.connections(1)] == [4, 0]
    assert counters.program().accepted == 20
    assert counters.upstream_in_flight(9) == 6
    assert counters.upstream_connections(9) == 8


def test_every_counter_of_a_pool_is_read_from_its_own_cell(board):
    """Units: seconds, bytes."""
    counters = Counters(board, lambda _: 0, lambda: [0, 1])
    base = layout.pool_base(0, 0)
    for cell, value in (
        (layout.BYTES_IN, 1),
        (layout.BYTES_OUT, 2),
        (layout.DURATION_US, 1_500_000),
        (layout.RETRIES, 3),
        (layout.CUT + 1, 4),
        (layout.BUCKETS + layout.BUCKET_COUNT - 1, 5),
    ):
        put(board, 0, base + cell, value)
    counts = counters.pool("shop", "blue")
    assert (counts.bytes_in, counts.bytes_out, counts.duration_seconds, counts.retries) == (1, 2, 1.5, 3)
    assert counts.cut == (0, 4, 0) == tuple(counters.cut(0, 0))
    assert counts.buckets == [0] * (layout.BUCKET_COUNT - 1) + [5]


def test_a_new_holder_of_a_slot_begins_at_zero(board):
    """What its predecessor counted is not its own, whichever worker adds to it."""
    counters = Counters(board, lambda _: 0, lambda: [0, 1])
    cell = layout.pool_base(0, 0) + layout.CODES + layout.code_cell(404)
    put(board, 0, cell, 100)
    counters.begin_service(0)
    assert counters.pool("new", "blue").requests == 0
    put(board, 0, cell, 101)
    put(board, 1, cell, 1)
    assert counters.pool("new", "blue").codes == {404: 2}
