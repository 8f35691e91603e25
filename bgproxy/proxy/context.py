"""What all connections of a worker share: the board, the routes, the limits, the clock, the counters."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final

from bgproxy.config.schema import Limits, Timeouts
from bgproxy.http1.names import NameTable
from bgproxy.http1.request import MAX_LINE
from bgproxy.model.snapshot import ProxySpec, ServiceSpec
from bgproxy.proxy.client_state import HEAD
from bgproxy.proxy.deadlines import due, expire, is_due, time_left
from bgproxy.proxy.peers import Networks
from bgproxy.proxy.routes import Routes
from bgproxy.proxy.runtime import Service, Upstream
from bgproxy.proxy.slow import SlowClients
from bgproxy.switchboard import layout
from bgproxy.switchboard.board import Switchboard

if TYPE_CHECKING:
    from bgproxy.proxy.accesslog import AccessLog
    from bgproxy.proxy.client import ClientConnection
    from bgproxy.proxy.tcp import Stream
    from bgproxy.proxy.upstream import UpstreamConnection

#: Seconds between two sweeps: time-outs and drain deadlines are this exact.
SWEEP: Final = 0.1
#: Addresses of which the last header block is kept, at the most: with what was decided, some 10 KiB each.
_MOST_RECENT: Final = 256
#: Of the clients, one in so many makes room at a time; who has more than this share of its time left is left alone.
_EVICTED: Final = 64
_FRESH: Final = 0.98


class Context:
    """One worker's state."""

    def __init__(self, loop: asyncio.AbstractEventLoop, board: Switchboard, index: int, workers: int) -> None:
        self.loop = loop
        self.board = board
        self.index = index
        self.workers = workers
        self.cells = board.area(index)
        self.clients: set[ClientConnection] = set()
        self.streams: set[Stream] = set()  # in mode tcp, a connection of a client and one to an upstream each
        self.waiting = 0  # connections of which a PROXY header is awaited
        self.recent: dict[str, ClientConnection] = {}  # the last that ended, by address
        self.servers: set[UpstreamConnection] = set()
        self.services: dict[str, Service] = {}
        self.routes = Routes([])
        self.tapped: list[Service] = []  # those whose live requests are looked at
        self.generation = 0  # of the services and of what holds for all of them; what was derived from them notes it
        self.pseudonym = board.pseudonym
        self.via_tail = b"\r\nVia: 1.1 %b\r\nX-Request-ID: " % self.pseudonym  # behind what a listener adds
        self.removed_names: frozenset[bytes] = frozenset()
        self.request_names = NameTable(frozenset(), self.pseudonym)
        self.response_names = NameTable()
        self.limits = Limits()
        self.short_head = 0  # bytes; a head up to this breaks no limit of size
        self.timeouts = Timeouts()
        self.max_connections = self.limits.connections
        self.descriptors = 1 << 30  # that connections may take, clients' and upstreams' together
        self.max_servers = 1 << 30
        self.per_address = 0  # connections of one address in this worker; 0: as many as it likes
        self.addresses: dict[str, int] = {}  # how many each has, where they are counted
        self.packed_until = 0.0  # until then nobody is looked for who might make room
        self.slow = SlowClients()
        self.trusted = Networks(())
        self.access_log: AccessLog | None = None
        self.session_key = b""
        self.tls: Any = None  # proxy.tls.Tls, where a listener has it
        self.now = time.monotonic()  # renewed by every request and every sweep: good to a tenth of a second
        self.give_up = 0.0  # CLOCK_MONOTONIC by when a connection that is closed now must have sent what was written
        self.date_line = b""
        self.stopping = False
        # Counters go on where a predecessor in this worker's place left them.
        self.accepted: int = self.cells[layout.W_ACCEPTED]
        self.refused: int = self.cells[layout.W_REFUSED]
        self.unmatched: int = self.cells[layout.W_UNMATCHED]
        self.bad_requests: int = self.cells[layout.W_BAD_REQUESTS]
        self.unintroduced: int = self.cells[layout.W_PROXY_REFUSED]
        self.hits: list[int] = list(self.cells[layout.W_LIMITS : layout.W_LIMITS + layout.LIMIT_COUNT])
        self.cells[layout.W_CONNECTIONS] = 0
        self.id_base = os.urandom(4).hex()  # request ids of this process begin with it
        self.tasks: set[asyncio.Task[Any]] = set()
        self.failed: Callable[[Upstream, str], None] | None = None  # told of every failure of an upstream
        self.tell: Callable[[Any], None] | None = None  # gives the controller a message
        self.tick()

    # --- configuration ----------------------------------------------------------------------------------------------

    def set_proxy(self, spec: ProxySpec) -> None:
        """Take what holds for all services."""
        if spec.limits != self.limits:
            self._judge_anew(self.request_names.extra)
        self.limits = spec.limits
        self.short_head = min(spec.limits.header_bytes, MAX_LINE)
        self.generation += 1
        self.timeouts = spec.timeouts
        self.give_up = self.now + spec.timeouts.stream_idle
        self.slow.set_rule(spec.limits.min_rate, spec.timeouts.slow)
        self._share_out()
        self.trusted = Networks(spec.trusted_proxies)
        self.session_key = spec.session_key

    def set_services(self, specs: tuple[ServiceSpec, ...], removed: tuple[str, ...], *, whole: bool) -> None:
        """Take new services; what is gone loses its idle connections and ends what it has in flight."""
        gone: list[Upstream] = []
        by_name = {spec.name: spec for spec in specs}
        for name in list(self.services):
            spec = by_name.get(name)
            moved = spec is not None and spec.slot != self.services[name].slot
            if name in removed or (whole and spec is None) or moved:
                service = self.services.pop(name)
                self.flush_service(service)
                if service.tap is not None:
                    service.tap.close()
                    service.tap = None
                for pool in service.pools:
                    gone += pool.upstreams
                    pool.ready = []
                    pool.cells = None
                    for upstream in pool.upstreams:
                        upstream.set_usable(False)  # its connections are not kept when their requests end
        for spec in specs:
            known = self.services.get(spec.name)
            if known is None:
                known = Service(spec)
                self.services[spec.name] = known
                for pool in known.pools:
                    pool.adopt(self.cells)
            gone += known.update(spec, self.session_key, self.cells)
        for upstream in gone:
            self.close_idle(upstream)
        self.routes = Routes(list(self.services.values()))
        self.tapped = [service for service in self.services.values() if service.tap is not None]
        self.generation += 1
        extra = frozenset(s.preview_header for s in self.services.values() if s.preview_header)
        if extra != self.request_names.extra:
            self._judge_anew(extra)

    def remove_names(self, names: frozenset[bytes]) -> None:
        """Fields of requests that go no further, in lower case."""
        self.removed_names = names
        self._judge_anew(self.request_names.extra)

    def _judge_anew(self, extra: frozenset[bytes]) -> None:
        """Begin with an empty table of names; what connections have decided by the old one is not to be trusted."""
        self.request_names = NameTable(extra, self.pseudonym, self.removed_names)
        self.recent.clear()
        for client in self.clients:
            client.forget()

    def keep_recent(self, client: ClientConnection) -> None:
        """Keep a connection that has ended for its memory: who comes again tends to send what it sent before."""
        if len(self.recent) >= _MOST_RECENT:
            self.recent.clear()
        self.recent[client.peer] = client

    def close_idle(self, upstream: Upstream) -> None:
        """Close the connections to an upstream that nobody uses."""
        idle, upstream.idle = upstream.idle, []
        for connection in idle:
            connection.close()

    # --- where there are too many -----------------------------------------------------------------------------------

    def set_descriptors(self, count: int) -> None:
        """So many connections this process can have, clients' and upstreams' together."""
        self.descriptors = count
        self._share_out()

    def _share_out(self) -> None:
        """Reckon how many connections may be open: the configured share, or what descriptors are enough for."""
        limits = self.limits
        share = -(-limits.connections // self.workers)
        self.max_connections = max(min(share, self.descriptors // 2), 1)
        self.max_servers = max(self.descriptors - self.max_connections, 1)
        self.per_address = -(-limits.connections_per_address // self.workers)

    def make_room(self) -> bool:
        """End clients that have waited a while without a request, so that newcomers may come; False if there is none.

        Those go first that have used most of the time that they have for it: who connects and says nothing, or half a
        head, has `timeouts.header`, who has been answered before has `timeouts.client_idle`. Several go at once, since
        to find them all clients are looked at.
        """
        now = self.now
        if now < self.packed_until:
            return False
        waiting: list[tuple[float, int, ClientConnection]] = []
        for number, client in enumerate(self.clients):
            if client.state <= HEAD and not client.is_ending():
                left = time_left(client, now)
                if left < _FRESH:
                    waiting.append((left, number, client))
        if not waiting:
            self.packed_until = now + SWEEP
            return False
        waiting.sort()
        for _, _, client in waiting[: max(len(self.clients) // _EVICTED, 1)]:
            self.hits[layout.EVICTED] += 1
            self.clients.discard(client)
            client.closed_because = "made room for others"
            client.abort()
        return True

    def make_server_room(self) -> bool:
        """Before a connection to an upstream is opened: where there are too many, those go that have idled longest.

        False if there is no room, because all of them are in use.
        """
        if len(self.servers) + len(self.streams) < self.max_servers:
            return True
        idle: list[tuple[float, int, UpstreamConnection]] = []
        for number, server in enumerate(self.servers):
            if server.deadline > 0.0 and server.usable():  # without a deadline, a request waits for it
                idle.append((server.deadline, number, server))
        idle.sort()
        for _, _, server in idle[: max(len(idle) // 4, 1)]:
            server.close()
        return bool(idle)

    def take_address(self, address: str) -> bool:
        """Count one more connection of an address; False, and not counted, if it has as many as it may."""
        count = self.addresses.get(address, 0)
        if count >= self.per_address:
            return False
        self.addresses[address] = count + 1
        return True

    def leave_address(self, address: str) -> None:
        """One that was counted has ended."""
        count = self.addresses.get(address, 0)
        if count > 1:
            self.addresses[address] = count - 1
        else:
            self.addresses.pop(address, None)

    # --- the sweep --------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Renew the coarse clock and what hangs on it."""
        self.now = time.monotonic()
        self.give_up = self.now + self.timeouts.stream_idle
        self.date_line = b"Date: " + formatdate(usegmt=True).encode() + b"\r\n"

    def sweep(self) -> None:
        """Everything that is done now and then instead of at every request: time-outs, drains, counters."""
        self.tick()
        now = self.now
        for client in [client for client in self.clients if is_due(client, now)]:
            due(client, now)
        for stream in [stream for stream in self.streams if stream.is_due(now)]:
            stream.due(now)
        for server in [server for server in self.servers if 0.0 < server.deadline <= now]:
            server.due()
        for client, why in self.slow.look(self.clients, now):
            expire(client, why)
        for service in self.tapped:
            if service.tap is not None:
                service.tap.sweep(now)
        self.flush()

    def flush(self) -> None:
        """Store every counter that has changed in the cells."""
        cells = self.cells
        for service in self.services.values():
            self.flush_service(service)
        cells[layout.W_CONNECTIONS] = self.connections()
        cells[layout.W_ACCEPTED] = self.accepted
        cells[layout.W_REFUSED] = self.refused
        cells[layout.W_UNMATCHED] = self.unmatched
        cells[layout.W_BAD_REQUESTS] = self.bad_requests
        cells[layout.W_PROXY_REFUSED] = self.unintroduced
        for index, count in enumerate(self.hits):
            cells[layout.W_LIMITS + index] = count
        if self.access_log is not None:
            self.access_log.flush()
            cells[layout.W_LOG_DROPPED] = self.access_log.dropped
        cells[layout.W_HEARTBEAT] = int(self.now * 1e6)

    def flush_service(self, service: Service) -> None:
        """Store a service's counters if they have changed."""
        for pool in service.pools:
            if pool.dirty:
                pool.flush(self.cells)

    def age_sessions(self) -> None:
        """A minute has passed: session ids that were not seen in it or the one before are forgotten."""
        for service in self.services.values():
            for pool in service.pools:
                pool.age_sessions()
            if service.tap is not None:
                service.tap.age()

    def connections(self) -> int:
        """How many clients are connected, in whatever mode."""
        return len(self.clients) + len(self.streams) + self.waiting

    def full(self) -> bool:
        """Whether there are as many as this worker may have."""
        return self.connections() >= self.max_connections

    # --- what happens -----------------------------------------------------------------------------------------------

    def report(self, upstream: Upstream, reason: str) -> None:
        """An upstream failed a live request."""
        upstream.failures += 1
        upstream.pool.dirty = True
        if self.failed is not None:
            self.failed(upstream, reason)

    def own(self, task: asyncio.Task[Any]) -> None:
        """Keep a task until it is done; those that are left at shutdown are cancelled and awaited."""
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
