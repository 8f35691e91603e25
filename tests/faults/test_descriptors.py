"""A process has only so many file descriptors: nobody is left without one who was let in, and nothing spins."""

from __future__ import annotations

import time

import pytest
from support.attackers import Others, cpu_share, crowd, disperse, metric
from support.waiting import eventually

FILES = 256


@pytest.mark.alone
@pytest.mark.slow
def test_more_clients_than_descriptors(start_proxy, blue):
    """With 256 descriptors and 400 idle clients the others are served, the API answers, no CPU is burnt, and all recovers."""
    proxy = start_proxy(blue=[blue.url], workers=1, files=FILES)
    (worker,) = proxy.worker_pids()
    idle = crowd(proxy.address, 400)
    try:
        eventually(lambda: proxy.get("/").status == 200, within=2.0)
        with Others(proxy):
            idle += crowd(proxy.address, 100)
            assert proxy.status()["workers"][0]["pid"] == worker
            time.sleep(0.5)  # what the others do meanwhile is what is looked at
        assert cpu_share(worker, 1.0) < 0.2
        assert metric(proxy, "bgproxy_connections") < FILES / 2
    finally:
        disperse(idle)
    eventually(lambda: metric(proxy, "bgproxy_connections") == 0, within=2.0)
    assert proxy.get("/").status == 200
    assert proxy.worker_pids() == [worker]


def test_requests_in_flight_never_lack_a_descriptor(start_proxy, blue):
    """As many requests as clients are let in get a connection to an upstream each; the upstream is not blamed for the rest."""
    proxy = start_proxy(blue=[blue.url], workers=1, files=FILES)
    clients = [proxy.client(timeout=20) for _ in range(150)]
    try:
        for client in clients:
            client.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: blue.counts["/wait"] >= 30)
        blue.release()
        statuses = [client.read_response().status for client in clients]
        assert set(statuses) <= {200, 503}
        assert statuses.count(200) >= 30
    finally:
        blue.release()
        for client in clients:
            client.close()
    (upstream,) = proxy.service()["pools"]["blue"]["upstreams"]
    assert not upstream["ejected"]
    eventually(lambda: proxy.get("/").status == 200)


def test_the_api_answers_while_it_is_flooded(start_proxy, blue):
    """Three hundred connections that say nothing, and more than it may have descriptors: a new one gets its answer."""
    proxy = start_proxy(blue=[blue.url], files=FILES)
    flood = crowd(proxy.admin_address, 300)
    try:
        assert proxy.status()["program"] == "bgproxy"
        flood += crowd(proxy.admin_address, 100, b"GET /v1/status HTTP/1.1\r\nHost: lo")
        assert metric(proxy, "bgproxy_admin_connections_evicted_total") >= 1
        assert proxy.get("/").status == 200
    finally:
        disperse(flood)
