"""The shared mapping: what stands where.

One anonymous mapping, made by the supervisor before it forks, of 64-bit cells:

    [0]                      epoch: the number of the last switch that was committed
    [1]                      the number of the last switch that was begun: more than the epoch in the middle of one
    [2]                      a random number: which of all bgproxies this is (`Switchboard.pseudonym`)
    WORDS + 2*service        the service's word (below)
    WORDS + 2*service + 1    when it last switched: CLOCK_MONOTONIC, microseconds
    CELLS + worker*AREA ...  the cells that one worker alone writes

A service's word is `epoch << 24 | share before << 11 | share after << 4 | hold << 2 | before << 1 | after`. It says: once
the epoch of the mapping has reached mine, `after` is live, until then `before` is; and that many per cent of the clients go to
the other pool (a canary; 0 but for that). So a switch of any number of services is one store: write their words with the next
epoch (nothing changes yet), then store that epoch. The two bits of `hold` are kept for holding requests.

**Why that is atomic.** Only the controller stores here. A worker claims a request in one stretch of code: it loads the
epoch, then the word. Both are aligned 64-bit loads, which the processors that Linux runs on do not tear; and all
processes see one memory, in which the stores come in order (the interpreter puts far more than a fence between two of
them). If the epoch that it loaded had been committed before the load, the word that it then loads is that switch's
or a later one's, and either names the new pool. If a commit falls between the two loads, the request is taken as
having come before it: it did start before the commit was answered. So of two requests of which the second starts
after the first was routed to the new pool, the second loads the new epoch too, in whichever worker.

The limits are generous because the mapping is anonymous: pages that nobody touches cost nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from bgproxy.config.schema import MAX_SERVICES

MAX_UPSTREAMS: Final = 16384

CELL_BYTES: Final = 8
PREPARED: Final = 1
INSTANCE: Final = 2
WORDS: Final = 8  # cells before it: the epochs, and room

# --- what a pool's cells hold, from its base on ---------------------------------------------------------------------
IN_FLIGHT: Final = 0  # gauge, by class (3)
CUT: Final = 3  # ended by a drain deadline, by class (3)
BYTES_IN: Final = 6  # from clients
BYTES_OUT: Final = 7  # to clients
DURATION_US: Final = 8  # sum
RETRIES: Final = 9
SESSIONS: Final = 10  # gauge: distinct session ids seen lately
UNSAFE: Final = 11  # gauge: unsafe requests in flight
STREAMS: Final = 12  # connections of a tcp service that have ended
STREAMS_FAILED: Final = 13  # of those, the ones that no upstream could be reached for
MIRRORED: Final = 14  # requests that were given to the controller to be repeated
MIRROR_DROPPED: Final = 15  # sampled ones that were not: too many under way, too large, unanswered
BUCKETS: Final = 16  # latency histogram (not cumulative)

#: Upper bounds in seconds; six a decade from 100 µs, so that quantiles are within a third. The last bucket is +Inf.
BUCKET_BOUNDS: Final = tuple(
    round(step * 10.0**decade, 7) for decade in range(-4, 2) for step in (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
)
BUCKET_COUNT: Final = len(BUCKET_BOUNDS) + 1

CODES: Final = 56  # requests by status code
#: The codes with a cell of their own; others are counted as x00 of their class.
CODE_LIST: Final = (
    *(100, 101, 103, 200, 201, 202, 203, 204, 205, 206, 207, 300, 301, 302, 303, 304, 307, 308),
    *(400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422),
    *(423, 424, 425, 426, 428, 429, 431, 451, 499),
    *(500, 501, 502, 503, 504, 505, 507, 508, 511),
)
CODE_CELLS: Final = {code: index for index, code in enumerate(CODE_LIST)}

#: Of the requests above, those that named their pool (previews): how many, how many of them with 5xx, and their histogram.
PREVIEWED: Final = 120
PREVIEWED_FAILED: Final = 121
PREVIEW_BUCKETS: Final = 122
POOL_CELLS: Final = 168

# --- an upstream's cells --------------------------------------------------------------------------------------------
UP_IN_FLIGHT: Final = 0  # gauge
UP_REQUESTS: Final = 1
UP_FAILURES: Final = 2
UP_CONNECTIONS: Final = 3  # gauge: open connections to it, idle ones too
UPSTREAM_CELLS: Final = 4

# --- a worker's own cells -------------------------------------------------------------------------------------------
W_CONNECTIONS: Final = 0  # gauge: client connections
W_ACCEPTED: Final = 1
W_REFUSED: Final = 2  # over `limits.connections`
W_UNMATCHED: Final = 3  # requests that no service was for
W_BAD_REQUESTS: Final = 4  # malformed: 400, 408, 414, 431, 501, 505
W_LOG_DROPPED: Final = 5  # lines of the access log that could not be written
W_HEARTBEAT: Final = 6  # CLOCK_MONOTONIC in microseconds, stored by the sweep
W_PROXY_REFUSED: Final = 8  # connections without a good PROXY header, where one is expected
W_LIMITS: Final = 24  # from here on: what limits and time-outs have ended, a cell each (below)
W_TLS_FAILED: Final = 16  # handshakes that were refused, by either side
W_TLS_TIMEOUTS: Final = 17  # handshakes that did not end in time
WORKER_CELLS: Final = 64

# --- what limits and time-outs have ended: counted from W_LIMITS -----------------------------------------------------
TIMEOUT_HEADER: Final = 0  # the head of a request did not come within `timeouts.header`
TIMEOUT_IDLE: Final = 1  # no request came: `timeouts.client_idle`, `timeouts.header` for the first one
TIMEOUT_BODY: Final = 2  # no byte of a body for `timeouts.stream_idle`
TIMEOUT_WRITE: Final = 3  # the client took nothing of its answer for so long
TIMEOUT_TUNNEL: Final = 4  # no byte in a tunnel, either way, for so long
SLOW_BODY: Final = 5  # a body came more slowly than `limits.min_rate` for `timeouts.slow`
SLOW_READER: Final = 6  # an answer was read more slowly
REFUSED_ADDRESS: Final = 7  # over `limits.connections_per_address`
EVICTED: Final = 8  # waited for a request, and made room for newcomers over `limits.connections`
OVER_HEAD: Final = 9  # over `limits.header_bytes`, `limits.headers`, or the length of a request line
OVER_BODY: Final = 10  # over `limits.body_bytes`
OVER_TINY_CHUNKS: Final = 11  # over `limits.tiny_chunks`: read no further for a second
NO_DESCRIPTOR: Final = 12  # this process could open no connection to an upstream
LIMIT_COUNT: Final = 13

POOL_BASE: Final = WORKER_CELLS
UPSTREAM_BASE: Final = POOL_BASE + MAX_SERVICES * 2 * POOL_CELLS
AREA: Final = UPSTREAM_BASE + MAX_UPSTREAMS * UPSTREAM_CELLS
CELLS: Final = WORDS + 2 * MAX_SERVICES


def pool_base(service_slot: int, pool: int) -> int:
    """Where a pool's cells begin within a worker's area."""
    return POOL_BASE + (service_slot * 2 + pool) * POOL_CELLS


def upstream_base(slot: int) -> int:
    """Where an upstream's cells begin within a worker's area."""
    return UPSTREAM_BASE + slot * UPSTREAM_CELLS


def code_cell(code: int) -> int:
    """The cell of a status code, counted from `CODES`; a code without one counts for its class."""
    cell = CODE_CELLS.get(code)
    if cell is None:
        cell = CODE_CELLS.get(code // 100 * 100, CODE_CELLS[500])
    return cell


def bucket_of(seconds: float) -> int:
    """The bucket of a duration, counted from `BUCKETS`."""
    return bisect_left(BUCKET_BOUNDS, seconds)


def size(workers: int) -> int:
    """Bytes of the mapping for so many workers."""
    return (CELLS + workers * AREA) * CELL_BYTES
