"""GET /metrics: the cells of the switchboard in the words of Prometheus.

Nothing is counted here. A scrape sums what the workers have stored in their cells and what the controller knows, through
prometheus-client's collector interface, in a registry of our own (the default one tells of a process, and bgproxy is many).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any, Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from bgproxy.admin.endpoint import Call, Operation, endpoint
from bgproxy.control.controller import Controller
from bgproxy.control.tallies import ENDS, RESULTS, Durations
from bgproxy.model.classes import CLASS_NAMES
from bgproxy.model.pool import POOLS
from bgproxy.switchboard import layout
from bgproxy.switchboard.layout import BUCKET_BOUNDS

#: Cells of `layout.W_LIMITS`, by the label that they are shown with.
_TIMEOUTS: Final = (
    ("header", layout.TIMEOUT_HEADER),
    ("idle", layout.TIMEOUT_IDLE),
    ("body", layout.TIMEOUT_BODY),
    ("write", layout.TIMEOUT_WRITE),
    ("tunnel", layout.TIMEOUT_TUNNEL),
    ("slow_body", layout.SLOW_BODY),
    ("slow_reader", layout.SLOW_READER),
)
_LIMITS: Final = (
    ("head", layout.OVER_HEAD),
    ("body", layout.OVER_BODY),
    ("tiny_chunks", layout.OVER_TINY_CHUNKS),
    ("descriptors", layout.NO_DESCRIPTOR),
)

_BY_POOL: Final = ("service", "pool")

#: Of the cells' bounds, those that are 1, 2 or 5 of their decade. Counts are cumulative, so dropping bounds keeps them right.
BOUNDS: Final = tuple(
    (index, bound) for index, bound in enumerate(BUCKET_BOUNDS) if f"{bound:.1e}"[:3] in {"1.0", "2.0", "5.0"}
)


def cumulative(counts: Sequence[int]) -> list[tuple[str, float]]:
    """Buckets as Prometheus wants them, from the counts of all buckets of the layout, of which the last is +Inf."""
    sums = list(accumulate(counts))
    return [(_number(bound), float(sums[index])) for index, bound in BOUNDS] + [("+Inf", float(sums[-1]))]


def of_durations(durations: Durations) -> list[tuple[str, float]]:
    """The same of a histogram of the controller's own."""
    bounds = [*map(_number, durations.bounds), "+Inf"]
    return list(zip(bounds, map(float, accumulate(durations.counts)), strict=True))


def _number(bound: float) -> str:
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]


class BoardCollector(Collector):
    """All metrics, made anew for each scrape."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def collect(self) -> Iterator[Metric]:
        """The families, in the order of the page."""
        status = self._controller.status()
        yield from self._traffic(status)
        yield from self._pools(status)
        yield from self._changes(status)
        yield from self._program(status)
        yield from self._certificates(status)

    def _traffic(self, status: dict[str, Any]) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "bgproxy_requests", "Answers to clients, by status code", labels=(*_BY_POOL, "code")
        )
        seconds = HistogramMetricFamily(
            "bgproxy_request_duration_seconds", "From a request's first byte to its answer's last", labels=_BY_POOL
        )
        moved = CounterMetricFamily(
            "bgproxy_bytes", "Bytes from (in) and to (out) clients", labels=(*_BY_POOL, "direction")
        )
        retries = CounterMetricFamily("bgproxy_retries", "Requests sent again to another upstream", labels=_BY_POOL)
        mirrored = CounterMetricFamily(
            "bgproxy_mirrored_requests", "Live requests that were repeated to the idle pool", labels=_BY_POOL
        )
        unmirrored = CounterMetricFamily(
            "bgproxy_mirror_dropped", "Sampled requests that were not: too many at once, too large", labels=_BY_POOL
        )
        mismatches = CounterMetricFamily(
            "bgproxy_mirror_mismatches", "Answers of the idle pool that differed from the live one's", labels=_BY_POOL
        )
        cut = CounterMetricFamily("bgproxy_cut", "Ended by a drain deadline", labels=(*_BY_POOL, "class"))
        connections = CounterMetricFamily(
            "bgproxy_tcp_connections", "Connections of tcp services that have ended", labels=(*_BY_POOL, "result")
        )
        lasted = HistogramMetricFamily(
            "bgproxy_tcp_connection_duration_seconds", "From a connection to its end", labels=_BY_POOL
        )
        tcp = {service["service"] for service in status["services"] if service.get("mode") == "tcp"}
        for service, pool in _each_pool(status):
            counts = self._controller.counters.pool(service, pool)
            for code, count in sorted(counts.codes.items()):
                requests.add_metric((service, pool, str(code)), count)
            if service in tcp:
                connections.add_metric((service, pool, "served"), counts.streams - counts.streams_failed)
                connections.add_metric((service, pool, "failed"), counts.streams_failed)
            durations = lasted if service in tcp else seconds
            durations.add_metric((service, pool), cumulative(counts.buckets), counts.duration_seconds)
            moved.add_metric((service, pool, "in"), counts.bytes_in)
            moved.add_metric((service, pool, "out"), counts.bytes_out)
            retries.add_metric((service, pool), counts.retries)
            mirrored.add_metric((service, pool), counts.mirrored)
            unmirrored.add_metric((service, pool), counts.mirror_dropped)
            mismatches.add_metric((service, pool), self._controller.tallies.mismatches[service, pool])
            for name, count in zip(CLASS_NAMES, counts.cut, strict=True):
                cut.add_metric((service, pool, name), count)
        yield from (requests, seconds, moved, retries, mirrored, unmirrored, mismatches, cut, connections, lasted)

    def _pools(self, status: dict[str, Any]) -> Iterator[Metric]:
        live = GaugeMetricFamily("bgproxy_live", "1 for the pool that new requests go to", labels=_BY_POOL)
        in_flight = GaugeMetricFamily("bgproxy_in_flight", "Not ended yet, by class", labels=(*_BY_POOL, "class"))
        sessions = GaugeMetricFamily("bgproxy_sessions", "Sessions seen lately", labels=_BY_POOL)
        by_upstream = (*_BY_POOL, "upstream")
        up = GaugeMetricFamily("bgproxy_upstream_up", "1 for an upstream that is sent requests", labels=by_upstream)
        busy = GaugeMetricFamily("bgproxy_upstream_in_flight", "Not ended yet, by upstream", labels=by_upstream)
        open_ = GaugeMetricFamily("bgproxy_upstream_connections", "Open, idle ones too", labels=by_upstream)
        for service in status["services"]:
            for name, pool in service["pools"].items():
                labels = (service["service"], name)
                live.add_metric(labels, float(service["live"] == name))
                sessions.add_metric(labels, pool["sessions"])
                for kind, count in pool["in_flight"].items():
                    in_flight.add_metric((*labels, kind), count)
                for upstream in pool["upstreams"]:
                    good = upstream["state"] == "up" and not upstream["ejected"]
                    up.add_metric((*labels, upstream["id"]), float(good))
                    busy.add_metric((*labels, upstream["id"]), upstream["in_flight"])
                    open_.add_metric((*labels, upstream["id"]), upstream["connections"])
        yield from (live, in_flight, sessions, up, busy, open_)

    def _changes(self, status: dict[str, Any]) -> Iterator[Metric]:
        tallies = self._controller.tallies
        switches = CounterMetricFamily(
            "bgproxy_switches", "Switches and rollbacks, by how they ended", labels=("service", "result")
        )
        took = HistogramMetricFamily(
            "bgproxy_switch_duration_seconds", "From the request to the instant of the switch", labels=("service",)
        )
        drains = HistogramMetricFamily(
            "bgproxy_drain_seconds", "From a switch until the old pool was empty", labels=("service",)
        )
        deployments = CounterMetricFamily(
            "bgproxy_deployments", "Deployments that have ended, by how", labels=("service", "result")
        )
        canary = GaugeMetricFamily(
            "bgproxy_canary_share",
            "Per cent of the clients that go to the pool that is not live yet",
            labels=("service",),
        )
        for service in status["services"]:
            name = service["service"]
            canary.add_metric((name,), service["share"])
            for state in ENDS:
                deployments.add_metric((name, state), tallies.deployments[name, state])
            for result in RESULTS:
                switches.add_metric((name, result), tallies.changes[name, result])
            for family, durations in ((took, tallies.switch_seconds[name]), (drains, tallies.drain_seconds[name])):
                family.add_metric((name,), of_durations(durations), durations.total)
        yield from (switches, took, drains, deployments, canary)

    def _program(self, status: dict[str, Any]) -> Iterator[Metric]:
        program = self._controller.counters.program()
        limits = program.limits
        for name, about, value in (
            ("bgproxy_connections_accepted", "Client connections that were accepted", program.accepted),
            ("bgproxy_bad_requests", "Malformed requests", program.bad_requests),
            ("bgproxy_unmatched_requests", "Requests that no service was for", program.unmatched),
            ("bgproxy_log_lines_dropped", "Lines of the access log that could not be written", program.log_dropped),
            ("bgproxy_connections_evicted", "Clients without a request that made room", limits[layout.EVICTED]),
            ("bgproxy_admin_connections_evicted", "The same of the admin API", self._controller.tallies.admin_evicted),
            ("bgproxy_proxy_headers_refused", "Connections without a good PROXY header", program.unintroduced),
        ):
            yield CounterMetricFamily(name, about, value=value)
        refused = CounterMetricFamily(
            "bgproxy_connections_refused", "Client connections over a limit", labels=("reason",)
        )
        refused.add_metric(("connections",), program.refused)
        refused.add_metric(("address",), limits[layout.REFUSED_ADDRESS])
        yield refused
        timeouts = CounterMetricFamily(
            "bgproxy_client_timeouts", "Clients that let us wait for too long", labels=("reason",)
        )
        for reason, cell in _TIMEOUTS:
            timeouts.add_metric((reason,), limits[cell])
        yield timeouts
        exceeded = CounterMetricFamily(
            "bgproxy_limits_exceeded", "Requests that were more than a limit allows", labels=("limit",)
        )
        for limit, cell in _LIMITS:
            exceeded.add_metric((limit,), limits[cell])
        yield exceeded
        connections = sum(worker["connections"] for worker in status["workers"])
        yield GaugeMetricFamily("bgproxy_connections", "Client connections", value=connections)
        restarts = CounterMetricFamily("bgproxy_worker_restarts", "Workers that were started again", labels=("worker",))
        for worker in status["workers"]:
            restarts.add_metric((str(worker["index"]),), worker["restarts"])
        yield restarts
        info = GaugeMetricFamily("bgproxy_build_info", "Always 1", labels=("version", "build"))
        info.add_metric((status["version"], status["build"]), 1)
        yield info

    def _certificates(self, status: dict[str, Any]) -> Iterator[Metric]:
        program = self._controller.counters.program()
        failed = CounterMetricFamily(
            "bgproxy_tls_handshakes_failed", "TLS handshakes that did not succeed", labels=("reason",)
        )
        failed.add_metric(("timeout",), program.tls_timeouts)
        failed.add_metric(("refused",), program.tls_failed)
        yield failed
        ends = GaugeMetricFamily(
            "bgproxy_certificate_not_after_seconds",
            "When the certificate in force expires, in seconds since 1970",
            labels=("cert",),
        )
        stale = GaugeMetricFamily(
            "bgproxy_certificate_refused", "1 while the files of a certificate cannot be put in force", labels=("cert",)
        )
        for certificate in status["certificates"]:
            if certificate["not_after"] is not None:
                moment = datetime.fromisoformat(certificate["not_after"])
                ends.add_metric((certificate["cert"],), moment.timestamp())
            stale.add_metric((certificate["cert"],), float(bool(certificate["problem"])))
        yield from (ends, stale)


def _each_pool(status: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for service in status["services"]:
        for pool in POOLS:
            yield service["service"], pool


def registry(controller: Controller) -> CollectorRegistry:
    """A registry of the program's own metrics and nothing else."""
    # Described when it is scraped: the controller need not have started when the application is made.
    own = CollectorRegistry(auto_describe=False)
    own.register(BoardCollector(controller))
    return own


REGISTRY: Final = web.AppKey("registry", CollectorRegistry)


@endpoint(
    Operation(
        method="GET",
        path="/metrics",
        name="getMetrics",
        summary="Metrics for Prometheus",
        about="In the OpenMetrics format where Accept asks for it.",
        role="viewer",
        answer={"type": "string"},
        media_type="text/plain",
        other_media_types=("application/openmetrics-text",),
        query=(),
    )
)
async def read_metrics(call: Call) -> web.StreamResponse:
    """The page."""
    encode, content_type = choose_encoder(call.request.headers.get("Accept", ""))
    return web.Response(body=encode(call.request.app[REGISTRY]), headers={"Content-Type": content_type})


ENDPOINTS = (read_metrics,)
