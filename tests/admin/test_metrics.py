"""GET /metrics, read by Prometheus' own parser."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from bgproxy.admin.metrics import BOUNDS, cumulative
from bgproxy.switchboard import layout
from bgproxy.switchboard.layout import BUCKET_BOUNDS, BUCKET_COUNT, bucket_of


@pytest.fixture
def scrape(api):
    """All samples, by name and labels."""

    async def read() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        async with api.get("/metrics") as answer:
            assert answer.status == 200
            assert answer.content_type == "text/plain"
            text = await answer.text()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in parse(text)
            for sample in family.samples
        }

    return read


def labels(**said: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(said.items()))


SHOP = {"service": "shop", "pool": "blue"}

NAMES = [
    "bgproxy_requests_total",
    "bgproxy_request_duration_seconds_bucket",
    "bgproxy_upstream_up",
    "bgproxy_upstream_connections",
    "bgproxy_in_flight",
    "bgproxy_live",
    "bgproxy_switches_total",
    "bgproxy_switch_duration_seconds_bucket",
    "bgproxy_drain_seconds_bucket",
    "bgproxy_deployments_total",
    "bgproxy_canary_share",
    "bgproxy_sessions",
    "bgproxy_retries_total",
    "bgproxy_mirrored_requests_total",
    "bgproxy_mirror_dropped_total",
    "bgproxy_mirror_mismatches_total",
    "bgproxy_connections",
    "bgproxy_worker_restarts_total",
    "bgproxy_connections_accepted_total",
    "bgproxy_connections_refused_total",
    "bgproxy_bad_requests_total",
    "bgproxy_bytes_total",
]


async def test_every_promised_name_is_there_and_nothing_of_the_process(scrape, controller):
    """The names of the design, from the first scrape on; no metrics of the interpreter or of this one process."""
    controller.counters.pool("shop", "blue").codes[200] = 1
    names = {name for name, _ in await scrape()}
    assert set(NAMES) <= names
    assert all(name.startswith("bgproxy_") for name in names)


async def test_the_cells_of_a_pool_are_its_samples(scrape, controller):
    """Requests by code, bytes by direction, retries, what was cut by class."""
    cells = controller.counters.pool("shop", "blue")
    cells.codes = {200: 7, 502: 1}
    cells.bytes_in, cells.bytes_out, cells.retries, cells.cut = 10, 20, 3, [1, 0, 2]
    samples = await scrape()
    assert samples["bgproxy_requests_total", labels(**SHOP, code="200")] == 7
    assert samples["bgproxy_requests_total", labels(**SHOP, code="502")] == 1
    assert samples["bgproxy_bytes_total", labels(**SHOP, direction="in")] == 10
    assert samples["bgproxy_bytes_total", labels(**SHOP, direction="out")] == 20
    assert samples["bgproxy_retries_total", labels(**SHOP)] == 3
    assert samples["bgproxy_cut_total", labels(**SHOP, **{"class": "websockets"})] == 2


async def test_the_state_of_pools_and_upstreams_are_gauges(scrape, controller):
    """Who is live, what is in flight, who is up."""
    await controller.switch({"api": "green"}, actor=None)
    await controller.set_upstream_state("shop", "green", "127.0.0.1:9002", "maint", actor=None)
    samples = await scrape()
    for service, pool, value in (("shop", "blue", 1), ("shop", "green", 0), ("api", "blue", 0), ("api", "green", 1)):
        assert samples["bgproxy_live", labels(service=service, pool=pool)] == value
    assert samples["bgproxy_in_flight", labels(**SHOP, **{"class": "requests"})] == 3
    assert samples["bgproxy_sessions", labels(**SHOP)] == 4
    assert samples["bgproxy_upstream_connections", labels(**SHOP, upstream="127.0.0.1:9001")] == 3
    assert samples["bgproxy_upstream_up", labels(**SHOP, upstream="127.0.0.1:9001")] == 1
    assert samples["bgproxy_upstream_up", labels(service="shop", pool="green", upstream="127.0.0.1:9002")] == 0


async def test_switches_and_drains_are_counted_by_service(scrape, controller):
    """By result, and in histograms."""
    controller.tallies.changed("shop", "switched", 0.003)
    controller.tallies.changed("shop", "refused")
    controller.tallies.drained("shop", 40.0)
    samples = await scrape()
    assert samples["bgproxy_switches_total", labels(service="shop", result="switched")] == 1
    assert samples["bgproxy_switches_total", labels(service="shop", result="refused")] == 1
    assert samples["bgproxy_switches_total", labels(service="shop", result="rolled_back")] == 0
    assert samples["bgproxy_switch_duration_seconds_bucket", labels(service="shop", le="0.002")] == 0
    assert samples["bgproxy_switch_duration_seconds_bucket", labels(service="shop", le="0.005")] == 1
    assert samples["bgproxy_drain_seconds_sum", labels(service="shop")] == 40
    assert samples["bgproxy_drain_seconds_count", labels(service="shop")] == 1


async def test_deployments_are_counted_by_how_they_ended(scrape, controller):
    """From the first scrape on, and the share of a canary is a gauge."""
    controller.tallies.deployed("shop", "rolled_back")
    controller.shares["shop"] = 20
    samples = await scrape()
    ends = ("succeeded", "rolled_back", "failed", "aborted")
    counted = {end: samples["bgproxy_deployments_total", labels(service="shop", result=end)] for end in ends}
    assert counted == {"succeeded": 0, "rolled_back": 1, "failed": 0, "aborted": 0}
    assert samples["bgproxy_canary_share", labels(service="shop")] == 20
    assert samples["bgproxy_canary_share", labels(service="api")] == 0


async def test_what_belongs_to_no_service_is_the_programs(scrape, controller):
    """Connections, restarts, malformed requests."""
    controller.counters.whole.refused = 9
    controller.counters.whole.bad_requests = 4
    samples = await scrape()
    assert samples["bgproxy_connections", ()] == 5
    assert samples["bgproxy_connections_refused_total", labels(reason="connections")] == 9
    assert samples["bgproxy_bad_requests_total", ()] == 4
    assert samples["bgproxy_worker_restarts_total", labels(worker="0")] == 2


async def test_what_limits_have_ended_is_shown_by_reason(scrape, controller):
    """Each cell has a sample of its own, of the program as a whole."""
    controller.counters.whole.limits = list(range(100, 100 + layout.LIMIT_COUNT))
    controller.tallies.evicted()
    samples = await scrape()
    shown = [
        samples[name, labels(**said)]
        for name, said in (
            *(("bgproxy_client_timeouts_total", {"reason": reason}) for reason in ("header", "idle", "body", "write")),
            *(("bgproxy_client_timeouts_total", {"reason": said}) for said in ("tunnel", "slow_body", "slow_reader")),
            ("bgproxy_connections_refused_total", {"reason": "address"}),
            ("bgproxy_connections_evicted_total", {}),
            *(("bgproxy_limits_exceeded_total", {"limit": said}) for said in ("head", "body", "tiny_chunks")),
            ("bgproxy_limits_exceeded_total", {"limit": "descriptors"}),
        )
    ]
    assert shown == list(range(100, 100 + layout.LIMIT_COUNT))
    assert samples["bgproxy_admin_connections_evicted_total", ()] == 1


async def test_openmetrics_for_who_asks_for_it(api):
    """The newer format has another media type, and must end as it should."""
    async with api.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}) as answer:
        assert answer.content_type == "application/openmetrics-text"
        assert list(parse_openmetrics(await answer.text()))


def test_thinned_bounds_are_one_two_and_five_of_each_decade():
    """Every second of the cells' bounds, from 100 µs to 50 s."""
    assert [bound for _, bound in BOUNDS][:6] == [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005]
    assert len(BOUNDS) == 18
    assert all(BUCKET_BOUNDS[index] == bound for index, bound in BOUNDS)


@pytest.mark.parametrize("seconds", [0.0, 0.0001, 0.00015, 0.0002, 0.003, 0.005, 0.0051, 7.0, 50.0, 60.0, 1e6])
def test_a_thinned_count_is_of_all_that_took_up_to_its_bound(seconds):
    """What falls between two bounds is counted with the upper one; +Inf has everything."""
    counts = [0] * BUCKET_COUNT
    counts[bucket_of(seconds)] = 1
    for bound, count in cumulative(counts):
        assert count == (seconds <= float(bound)), bound
