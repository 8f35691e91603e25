"""The shared mapping: every cell has one meaning."""

from __future__ import annotations

import itertools

from bgproxy.config.schema import MAX_SERVICES
from bgproxy.model.classes import CLASS_NAMES
from bgproxy.model.pool import POOLS
from bgproxy.switchboard import layout


def overlaps(spans):
    """The neighbours among named spans `(start, end, name)` that share a cell."""
    ordered = sorted(spans)
    return [(left, right) for left, right in itertools.pairwise(ordered) if left[1] > right[0]]


POOL_SPANS = [
    (layout.IN_FLIGHT, layout.IN_FLIGHT + len(CLASS_NAMES), "in flight"),
    (layout.CUT, layout.CUT + len(CLASS_NAMES), "cut"),
    *((cell, cell + 1, f"single {cell}") for cell in (layout.BYTES_IN, layout.BYTES_OUT, layout.DURATION_US)),
    *((cell, cell + 1, f"single {cell}") for cell in (layout.RETRIES, layout.SESSIONS, layout.UNSAFE)),
    (layout.BUCKETS, layout.BUCKETS + layout.BUCKET_COUNT, "buckets"),
    (layout.CODES, layout.CODES + len(layout.CODE_LIST), "codes"),
    *((cell, cell + 1, f"single {cell}") for cell in (layout.PREVIEWED, layout.PREVIEWED_FAILED)),
    (layout.PREVIEW_BUCKETS, layout.PREVIEW_BUCKETS + layout.BUCKET_COUNT, "buckets of previews"),
]


def test_what_a_pool_holds_does_not_overlap():
    """Gauges, sums, the histogram and the codes each have cells of their own, within the pool's."""
    assert overlaps(POOL_SPANS) == []
    assert min(span[0] for span in POOL_SPANS) >= 0
    assert max(span[1] for span in POOL_SPANS) <= layout.POOL_CELLS


def test_an_overlap_would_be_seen():
    """The check above can fail."""
    assert overlaps([*POOL_SPANS, (layout.CODES - 1, layout.CODES + 1, "slip")])


def test_what_an_upstream_holds_does_not_overlap():
    """Four cells, four meanings."""
    cells = [layout.UP_IN_FLIGHT, layout.UP_REQUESTS, layout.UP_FAILURES, layout.UP_CONNECTIONS]
    assert sorted(cells) == list(range(layout.UPSTREAM_CELLS))


def test_what_a_worker_holds_of_its_own_does_not_overlap():
    """Every W_ cell is another, and stands before the pools."""
    cells = [value for name, value in vars(layout).items() if name.startswith("W_")]
    assert len(set(cells)) == len(cells) >= 7
    assert max(cells) < layout.WORKER_CELLS <= layout.POOL_BASE


def test_all_ranges_of_the_mapping_are_disjoint():
    """Epoch, words, and in every worker's area its own cells, every pool of every service, every upstream: to the end."""
    workers = 2
    spans = [(0, 1, "epoch"), (layout.PREPARED, layout.PREPARED + 1, "prepared")]
    spans.append((layout.INSTANCE, layout.INSTANCE + 1, "instance"))
    spans += [(layout.WORDS + 2 * slot, layout.WORDS + 2 * slot + 2, f"word {slot}") for slot in range(MAX_SERVICES)]
    for worker in range(workers):
        area = layout.CELLS + worker * layout.AREA
        spans.append((area, area + layout.WORKER_CELLS, f"worker {worker}"))
        for slot in range(MAX_SERVICES):
            for pool in range(len(POOLS)):
                start = area + layout.pool_base(slot, pool)
                spans.append((start, start + layout.POOL_CELLS, f"pool {slot}/{pool}"))
        for slot in range(layout.MAX_UPSTREAMS):
            start = area + layout.upstream_base(slot)
            spans.append((start, start + layout.UPSTREAM_CELLS, f"upstream {slot}"))
    assert overlaps(spans) == []
    assert max(span[1] for span in spans) * layout.CELL_BYTES == layout.size(workers)


def test_every_code_has_a_cell():
    """One of its own where it is listed, else that of its class; never one beyond the pool's cells."""
    for code in range(1000):
        cell = layout.code_cell(code)
        assert 0 <= cell < len(layout.CODE_LIST)
        class_of = code // 100 * 100 if 100 <= code < 600 else 500
        assert layout.CODE_LIST[cell] == (code if code in layout.CODE_LIST else class_of)


def test_no_code_is_listed_twice():
    """Two cells for one code would be two halves of a count."""
    assert len(set(layout.CODE_LIST)) == len(layout.CODE_LIST) == len(layout.CODE_CELLS)


def test_the_codes_that_we_answer_with_have_cells_of_their_own():
    """What bgproxy itself says is told apart."""
    assert {400, 404, 405, 408, 413, 414, 417, 421, 431, 499, 501, 502, 503, 504, 505, 508} <= set(layout.CODE_LIST)


def test_bounds_rise_six_a_decade():
    """From 100 µs to 70 s, so that a quantile is within a third."""
    bounds = layout.BUCKET_BOUNDS
    assert bounds[0] == 0.0001
    assert bounds[-1] == 70.0
    assert all(low < high <= low * 1.67 for low, high in itertools.pairwise(bounds))
    assert len(bounds) + 1 == layout.BUCKET_COUNT


def test_a_duration_is_in_the_first_bucket_whose_bound_it_does_not_exceed():
    """Bounds are inclusive, as Prometheus' `le` is; what exceeds the last is in +Inf."""
    for index, bound in enumerate(layout.BUCKET_BOUNDS):
        assert layout.bucket_of(bound) == index
        assert layout.bucket_of(bound * 1.0001) == index + 1
    assert layout.bucket_of(0.0) == 0
    assert layout.bucket_of(1e9) == layout.BUCKET_COUNT - 1
