"""Deployments of a service in mode tcp, through every stage that it can have."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.deploys import Deploys
from support.proxy import Proxy
from support.waiting import eventually

pytestmark = pytest.mark.slow

PATIENCE = 10.0
PEERS = [f"127.0.0.{number}" for number in range(2, 42)]


class Names(socketserver.ThreadingTCPServer):
    """Says its pool to whoever connects, and holds the connection until the other side ends it."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self, pool: str) -> None:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    self.request.sendall(f"{pool:5}".encode())
                    while self.request.recv(65536):
                        pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"tcp://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join(PATIENCE)


@pytest.fixture
def names() -> Iterator[tuple[Names, Names]]:
    servers = Names("blue"), Names("green")
    yield servers
    for server in servers:
        server.stop()


@contextlib.contextmanager
def deploying(tmp_path: Path, names: tuple[Names, Names], deployment: dict[str, Any], **more: Any) -> Iterator[Deploys]:
    service = {
        "pools": {"blue": {"upstreams": [names[0].url]}, "green": {"upstreams": [names[1].url]}},
        "health": {"interval": "200ms", "rise": 1, "fall": 2},
        "drain": {"streams": "2s"},
        "deployment": deployment,
        **more,
    }
    listen = {"address": "127.0.0.1:0", "mode": "tcp", "service": "db"}
    with Proxy(tmp_path, listen=[listen], services={"db": service}) as proxy:
        proxy.wait_healthy(service="db")
        yield Deploys(proxy)


def connect(proxy: Proxy, peer: str = "127.0.0.1") -> tuple[socket.socket, str]:
    """A connection from an address, and the pool that it came to."""
    sock = socket.create_connection(proxy.address, timeout=PATIENCE, source_address=(peer, 0))
    data = b""
    while len(data) < 5:
        piece = sock.recv(5 - len(data))
        assert piece, "the connection has ended"
        data += piece
    return sock, data.decode().strip()


def sides(proxy: Proxy) -> list[str]:
    """The pool of each peer, one connection each."""
    found = []
    for peer in PEERS:
        sock, pool = connect(proxy, peer)
        sock.close()
        found.append(pool)
    return found


def test_every_stage(tmp_path: Path, names: tuple[Names, Names]) -> None:
    """Commands, a canary by address, a bake by connections, a drain that cuts what outlives it, the retirement."""
    note = 'echo "$BGPROXY_STATE $BGPROXY_TARGET $BGPROXY_UPSTREAMS [$BGPROXY_PREVIEW_HEADER]" >> told'
    deployment = {
        "provision": {"run": note},
        "verify": {"checks": [{"name": "ping", "run": note}]},
        "warm": {},
        "strategy": {"type": "canary", "percent": "50%", "for": "2s"},
        "bake": {"for": "1s", "min_requests": 5},
        "retire": {"after": "0s", "run": note},
    }
    with deploying(tmp_path, names, deployment) as deploys:
        proxy = deploys.proxy
        held, pool = connect(proxy)
        assert pool == "blue"
        deploys.begin("db")
        eventually(lambda: proxy.service("db")["share"] == 50, what="the canary")
        first = sides(proxy)
        assert set(first) == {"blue", "green"}
        assert sides(proxy) == first
        deploys.until("baking", "db")
        assert set(sides(proxy)) == {"green"}
        found = deploys.ended("db")
        assert found["state"] == "succeeded"
        with pytest.raises(ConnectionResetError):
            held.recv(1)
        held.close()
        drained = [result["found"] for result in found["results"] if result["stage"] == "draining"]
        assert drained == ["0 ended, 1 were cut"]
        assert (tmp_path / "told").read_text().splitlines() == [
            f"{state} green {names[1].url} []" for state in ("provisioning", "verifying", "retiring")
        ]


@pytest.mark.parametrize("strategy", [{"type": "all-at-once"}, {"type": "canary", "percent": "50%", "for": "60s"}])
def test_a_pool_that_dies_under_its_connections_is_left(
    tmp_path: Path, names: tuple[Names, Names], strategy: dict[str, Any]
) -> None:
    """In the canary as in the bake; every client is on the old pool again."""
    with deploying(tmp_path, names, {"strategy": strategy, "bake": {"for": "60s", "min_requests": 5}}) as deploys:
        proxy = deploys.proxy
        deploys.begin("db")
        eventually(lambda: "green" in sides(proxy), what="clients on green")
        names[1].stop()
        found = deploys.ended("db")
        assert found["state"] == "rolled_back"
        assert "green" in found["outcome"]
        assert set(sides(proxy)) == {"blue"}
        assert (proxy.live("db"), proxy.service("db")["share"]) == ("blue", 0)


def test_what_a_canary_has_begun_ends_with_it(tmp_path: Path, names: tuple[Names, Names]) -> None:
    """A connection to the new pool lives as long as a drain allows, once the canary is taken back."""
    strategy = {"type": "canary", "percent": "99%", "for": "60s"}
    with deploying(tmp_path, names, {"strategy": strategy}) as deploys:
        proxy = deploys.proxy
        deploys.begin("db")
        eventually(lambda: proxy.service("db")["share"] == 99, what="the canary")
        held = [connect(proxy, peer) for peer in PEERS]
        assert any(pool == "green" for _, pool in held)
        status, _ = proxy.api("POST", "/v1/services/db/rollback", {"reason": "customers call"})
        assert status == 200
        assert deploys.ended("db")["state"] == "rolled_back"
        for sock, pool in held:
            if pool == "green":
                with pytest.raises(ConnectionResetError):
                    sock.recv(1)
            sock.close()
        assert set(sides(proxy)) == {"blue"}
