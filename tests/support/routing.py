"""Specs and services for tests of the pure modules of the data plane: no sockets, no loop."""

from __future__ import annotations

import asyncio
from typing import Any

from bgproxy.config import schema
from bgproxy.http1.names import NameTable
from bgproxy.http1.request import RequestFields, parse_request_fields
from bgproxy.model.snapshot import PoolSpec, ServiceSpec, UpstreamSpec
from bgproxy.proxy.client import ClientConnection
from bgproxy.proxy.context import Context
from bgproxy.proxy.heads import Listener
from bgproxy.proxy.peers import Networks
from bgproxy.proxy.runtime import Service
from bgproxy.switchboard import layout
from bgproxy.switchboard.board import Switchboard

KEY = bytes(range(32))


def upstream_spec(port: int, slot: int, *, usable: bool = True) -> UpstreamSpec:
    return UpstreamSpec(f"127.0.0.1:{port}", slot, f"http://127.0.0.1:{port}", ("127.0.0.1", port), usable=usable)


def service_spec(
    name: str = "shop", *, blue: int = 1, green: int = 1, down: tuple[int, ...] = (), **rules: Any
) -> ServiceSpec:
    """A service with so many upstreams a pool: blue's are 9000, 9001, …, green's 9500, …; those of `down` are not usable."""
    pools = (
        PoolSpec("blue", "1", tuple(upstream_spec(9000 + n, n, usable=9000 + n not in down) for n in range(blue))),
        PoolSpec(
            "green", "2", tuple(upstream_spec(9500 + n, 500 + n, usable=9500 + n not in down) for n in range(green))
        ),
    )
    settings: dict[str, Any] = {
        "slot": 0,
        "hosts": (),
        "path": "/",
        "balance": "least_requests",
        "retries": schema.Retries(),
        "sessions": schema.Sessions(),
        "preview": schema.Preview(),
        "drain": schema.Drain(),
        "expose_pool": False,
    }
    return ServiceSpec(name=name, pools=pools, **(settings | rules))


def area() -> memoryview:
    """A worker's cells, in ordinary memory."""
    return memoryview(bytearray(layout.AREA * layout.CELL_BYTES)).cast("Q")


def make_service(spec: ServiceSpec | None = None, cells: memoryview | None = None, **rules: Any) -> Service:
    """A service as a worker holds it."""
    spec = spec or service_spec(**rules)
    service = Service(spec)
    service.update(spec, KEY, cells if cells is not None else area())
    return service


def client(
    peer: str = "127.0.0.1", trusted: tuple[str, ...] = (), *, now: float = 0.0, switched_at: float = 0.0
) -> Any:
    """A client's connection that was never made: what a choice asks of one. Service 0 last switched at `switched_at`."""
    board = Switchboard(1)
    board.settle(0, 0, switched_at)
    context = Context(asyncio.new_event_loop(), board, 0, 1)
    context.loop.close()
    context.now = now
    context.trusted = Networks(trusted)
    connection = ClientConnection(context, Listener(80, unix=False))
    connection.peer = peer
    connection.trusted = context.trusted.holds(peer)
    return connection


def fields(*lines: bytes, extra: tuple[bytes, ...] = (b"x-bgproxy-pool",)) -> RequestFields:
    block = b"".join(line + b"\r\n" for line in (b"Host: a", *lines))
    return parse_request_fields(block, 1, NameTable(frozenset(extra)), 100)
