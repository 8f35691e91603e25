"""Services, pools and upstreams as a worker lives with them: the specs of a snapshot, with connections and counts.

Counts are plain integers here and are stored in the worker's cells by `Pool.flush` (the sweep calls it); only what a
drain waits for, the number in flight, goes to the cells at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bgproxy.config.addresses import host_of, is_secure
from bgproxy.model.classes import CLASS_NAMES
from bgproxy.model.snapshot import PoolSpec, ServiceSpec, TlsSpec, UpstreamSpec
from bgproxy.proxy.balance import SOURCE_HASH, Ring, balance_code
from bgproxy.proxy.canary import cookie_of
from bgproxy.proxy.mirror import Tap, tapped
from bgproxy.proxy.sessions import SessionRules, tag_of
from bgproxy.switchboard import layout

if TYPE_CHECKING:
    from bgproxy.proxy.choice import Memory
    from bgproxy.proxy.upstream import UpstreamConnection

_CLASSES: Final = len(CLASS_NAMES)

#: How many sessions of a minute a worker tells apart for a pool; beyond it the metric stands still.
_MOST_SESSIONS: Final = 65536


class Upstream:
    """One server: where it is, whether requests may go to it, and its connections."""

    def __init__(self, spec: UpstreamSpec, pool: Pool, cells: memoryview) -> None:
        self.id = spec.id
        self.slot = spec.slot
        self.url = spec.url
        self.pool = pool
        self.secure = is_secure(spec.url)
        self.server_name = ""  # asked for in TLS, and looked for in the certificate
        if self.secure:
            self.server_name = pool.tls.server_name or host_of(spec.url)
        self.send_proxy: str = pool.send_proxy
        self.usable = False  # new requests may go to it
        self.keeps = False  # a connection may be kept for the next request
        self.set_usable(spec.usable)
        self.path = ""  # of a Unix socket
        self.host = ""
        self.port = 0
        if isinstance(spec.address, str):
            self.path = spec.address
        else:
            self.host, self.port = spec.address
        self.authority = _authority(spec.url)  # for the Host of a request that has none
        self.tag = tag_of(spec.id)
        at = layout.upstream_base(spec.slot)
        cells[at + layout.UP_IN_FLIGHT] = 0
        cells[at + layout.UP_CONNECTIONS] = 0
        self.in_flight = 0
        self.requests: int = cells[at + layout.UP_REQUESTS]  # counters go on where a predecessor's stood
        self.failures: int = cells[at + layout.UP_FAILURES]
        self.connections = 0
        self.idle: list[UpstreamConnection] = []  # the most lately used last; closed ones are skipped when met

    def __repr__(self) -> str:
        return f"<Upstream {self.id} usable={self.usable} in_flight={self.in_flight} idle={len(self.idle)}>"

    def set_usable(self, usable: bool) -> None:
        """Whether new requests may go to it. What begins with the address of one client is of no use to the next."""
        self.usable = usable
        self.keeps = usable and self.send_proxy == "off"


def _authority(url: str) -> bytes:
    rest = url.partition("://")[2]
    return b"localhost" if url.startswith("unix:") else rest.encode()


class Previews:
    """Of the requests of a pool, the count of those that have named it; it goes on where the cells stand."""

    def __init__(self, cells: memoryview, base: int) -> None:
        self.requests: int = cells[base + layout.PREVIEWED]
        self.failed: int = cells[base + layout.PREVIEWED_FAILED]
        self.buckets = [cells[base + layout.PREVIEW_BUCKETS + index] for index in range(layout.BUCKET_COUNT)]

    def flush(self, cells: memoryview, base: int) -> None:
        """Store it in the cells."""
        cells[base + layout.PREVIEWED] = self.requests
        cells[base + layout.PREVIEWED_FAILED] = self.failed
        for index, count in enumerate(self.buckets):
            if count:
                cells[base + layout.PREVIEW_BUCKETS + index] = count


class Pool:
    """One of the two pools of a service, in this worker."""

    #: None until there is one. (Not set with the rest: with more than 30 attributes, an interpreted access to each costs more.)
    previews: Previews | None = None

    def __init__(self, service: Service, index: int) -> None:
        self.service = service
        self.index = index
        self.name = ""
        self.version = ""
        self.tls = TlsSpec()
        self.send_proxy: str = "off"
        self.upstreams: list[Upstream] = []
        self.ready: list[Upstream] = []  # those that new requests may go to
        self.by_tag: dict[bytes, Upstream] = {}
        self.ring = Ring([])
        self.turn = 0
        self.draining_since = -1.0  # CLOCK_MONOTONIC; -1 while it is not draining
        self.in_flight = [0] * _CLASSES
        self.cut = [0] * _CLASSES
        self.bytes_in = 0
        self.bytes_out = 0
        self.duration_us = 0.0
        self.retries = 0
        self.streams = 0  # of a tcp service: connections that have ended
        self.streams_failed = 0  # of those, the ones that no upstream could be reached for
        self.unsafe = 0
        self.buckets = [0] * layout.BUCKET_COUNT
        self.codes = [0] * len(layout.CODE_LIST)
        self.seen: set[bytes] = set()  # session ids of this minute
        self.seen_before: set[bytes] = set()  # and of the minute before
        self.fresh = 0  # how many of `seen` are not in `seen_before`
        self.dirty = False
        self.cells: memoryview | None = (
            None  # the worker's; None when its service was taken away: they may be another's
        )
        self.base = layout.pool_base(service.slot, index)  # where its own begin

    def __repr__(self) -> str:
        return f"<Pool {self.service.name}/{self.name} ready={len(self.ready)} in_flight={self.in_flight}>"

    def update(self, spec: PoolSpec, cells: memoryview) -> list[Upstream]:
        """Take a new spec; upstreams that stay, and are spoken to as before, keep their connections. Returns those that are gone."""
        self.cells = cells
        self.name = spec.name
        self.version = spec.version
        anew = spec.tls != self.tls
        otherwise = spec.send_proxy != self.send_proxy
        if anew or otherwise:
            self.flush(cells)  # some begin anew, and go on counting from their cells
        self.tls = spec.tls
        self.send_proxy = spec.send_proxy
        before = {upstream.id: upstream for upstream in self.upstreams}
        self.upstreams = []
        for upstream_spec in spec.upstreams:
            known = before.pop(upstream_spec.id, None)
            if known is not None and known.slot == upstream_spec.slot and not (otherwise or (anew and known.secure)):
                known.set_usable(upstream_spec.usable)
                self.upstreams.append(known)
            else:
                if known is not None:
                    before[known.id] = known
                self.upstreams.append(Upstream(upstream_spec, self, cells))
        self.ready = [upstream for upstream in self.upstreams if upstream.usable]
        self.by_tag = {upstream.tag: upstream for upstream in self.upstreams}
        if [upstream.id for upstream in self.upstreams] != self.ring.ids:
            self.ring = Ring([upstream.id for upstream in self.upstreams])
        gone = list(before.values())
        for upstream in gone:
            upstream.set_usable(False)
        return gone

    def adopt(self, cells: memoryview) -> None:
        """Begin where the cells stand: a predecessor in this worker's place counted there, and a counter never falls.

        What the predecessor had in flight died with it, so the gauges begin at zero.
        """
        base = self.base
        for index in range(_CLASSES):
            cells[base + layout.IN_FLIGHT + index] = 0
            self.cut[index] = cells[base + layout.CUT + index]
        self.bytes_in = cells[base + layout.BYTES_IN]
        self.bytes_out = cells[base + layout.BYTES_OUT]
        self.duration_us = float(cells[base + layout.DURATION_US])
        self.retries = cells[base + layout.RETRIES]
        self.streams = cells[base + layout.STREAMS]
        self.streams_failed = cells[base + layout.STREAMS_FAILED]
        cells[base + layout.UNSAFE] = 0
        cells[base + layout.SESSIONS] = 0
        self.buckets = [cells[base + layout.BUCKETS + index] for index in range(layout.BUCKET_COUNT)]
        self.codes = [cells[base + layout.CODES + index] for index in range(len(layout.CODE_LIST))]
        if cells[base + layout.PREVIEWED]:
            self.previews = Previews(cells, base)

    def enter(self, kind: int) -> None:
        """Count one more in flight, at once, where a drain can see it."""
        count = self.in_flight[kind] + 1
        self.in_flight[kind] = count
        cells = self.cells
        if cells is not None:
            cells[self.base + kind] = count
            self.dirty = True

    def leave(self, kind: int) -> None:
        """Count one less."""
        count = self.in_flight[kind] - 1
        self.in_flight[kind] = count
        cells = self.cells
        if cells is not None:
            cells[self.base + kind] = count
            self.dirty = True

    def note_session(self, session: bytes) -> None:
        """A request of this session came here; boundedly, the number of sessions that are about is kept."""
        if session not in self.seen and len(self.seen) < _MOST_SESSIONS:
            self.seen.add(session)
            if session not in self.seen_before:
                self.fresh += 1

    def age_sessions(self) -> None:
        """A minute has passed: sessions that were not seen in it or the one before are forgotten."""
        if self.seen or self.seen_before:
            self.seen_before = self.seen
            self.seen = set()
            self.fresh = 0
            self.dirty = True

    def count_rejected(self, status: int) -> None:
        """A request for this pool was answered with an error before any upstream was chosen."""
        self.codes[layout.code_cell(status)] += 1
        self.dirty = True

    def count_preview(self, status: int, bucket: int = -1) -> None:
        """Of the requests that are counted, this one says nothing of live users: it has named its pool. -1: it has no latency."""
        cells = self.cells
        if self.previews is None and cells is not None:
            self.previews = Previews(cells, self.base)
        previews = self.previews
        if previews is not None:
            previews.requests += 1
            if status >= 500:
                previews.failed += 1
            if bucket >= 0:
                previews.buckets[bucket] += 1

    def count_mirrored(self, copied: int, dropped: int) -> None:
        """Count sampled requests, in their cells: those that were given to the controller, and those that were not."""
        cells = self.cells
        if cells is not None:
            cells[self.base + layout.MIRRORED] += copied
            cells[self.base + layout.MIRROR_DROPPED] += dropped

    def flush(self, cells: memoryview) -> None:
        """Store every count in the worker's cells."""
        base = self.base
        for index in range(_CLASSES):
            cells[base + layout.IN_FLIGHT + index] = self.in_flight[index]
            cells[base + layout.CUT + index] = self.cut[index]
        cells[base + layout.BYTES_IN] = self.bytes_in
        cells[base + layout.BYTES_OUT] = self.bytes_out
        cells[base + layout.DURATION_US] = int(self.duration_us)
        cells[base + layout.RETRIES] = self.retries
        cells[base + layout.STREAMS] = self.streams
        cells[base + layout.STREAMS_FAILED] = self.streams_failed
        cells[base + layout.UNSAFE] = self.unsafe
        cells[base + layout.SESSIONS] = len(self.seen_before) + self.fresh
        for index, count in enumerate(self.buckets):
            if count:
                cells[base + layout.BUCKETS + index] = count
        for index, count in enumerate(self.codes):
            if count:
                cells[base + layout.CODES + index] = count
        if self.previews is not None:
            # Behind the rest, of which they are a part: whoever reads them before it never finds more of them.
            self.previews.flush(cells, base)
        for upstream in self.upstreams:
            at = layout.upstream_base(upstream.slot)
            cells[at + layout.UP_IN_FLIGHT] = upstream.in_flight
            cells[at + layout.UP_REQUESTS] = upstream.requests
            cells[at + layout.UP_FAILURES] = upstream.failures
            cells[at + layout.UP_CONNECTIONS] = upstream.connections
        self.dirty = False


class Service:
    """A service: both pools and the rules, in the form that a claim needs them in."""

    def __init__(self, spec: ServiceSpec) -> None:
        self.name = spec.name
        self.slot = spec.slot
        self.tcp = spec.tcp  # only a listener in mode tcp leads to it
        self.pools = [Pool(self, 0), Pool(self, 1)]
        self.spec = spec
        self.path = b"/"
        self.balance = 0
        self.retries = 0
        self.drain = [0.0, 0.0, 0.0]  # seconds, by class
        self.expose_pool = False
        self.preview_header = b""  # lower case
        self.preview_cookie = b""
        self.preview_allow: str | tuple[str, ...] = "private"
        self.sessions: SessionRules | None = None
        self.source_sessions = False
        self.canary_cookie = cookie_of(spec.name)
        self.canary_by_address = False
        self.simple = True  # who a client is, and what it says, decides nothing here but a preview
        self.memory: Memory | None = None  # then: what every header block means
        self.tap: Tap | None = None  # who looks at its live requests, while somebody does

    def update(self, spec: ServiceSpec, session_key: bytes, cells: memoryview) -> list[Upstream]:
        """Take a new spec; returns the upstreams that are gone."""
        self.tcp = spec.tcp
        self.spec = spec
        self.path = spec.path.encode("ascii", "surrogateescape")
        self.balance = balance_code(spec.balance)
        self.retries = spec.retries.attempts
        self.drain = [spec.drain.requests, spec.drain.streams, spec.drain.websockets]
        self.expose_pool = spec.expose_pool
        self.preview_header = spec.preview.header.lower().encode()
        self.preview_cookie = spec.preview.cookie.encode()
        self.preview_allow = spec.preview.allow
        self.sessions = SessionRules(spec.name, spec.sessions, session_key) if spec.sessions.mode == "cookie" else None
        self.source_sessions = spec.sessions.mode == "source"
        self.simple = self.sessions is None and not self.source_sessions and self.balance != SOURCE_HASH
        self.canary_by_address = spec.canary_by == "source"
        self.memory = None
        self.tap = tapped(self.tap, self)
        return self.pools[0].update(spec.pools[0], cells) + self.pools[1].update(spec.pools[1], cells)
