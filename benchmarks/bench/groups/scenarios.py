"""What the cost group asks of every proxy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load. `mib` is what a request moves, for costs a MiB; 0 for costs a request."""

    name: str
    title: str
    connections: int
    path: str = "/"
    mib: float = 0
    load: dict[str, Any] = field(default_factory=dict)  # arguments of wrk.command
    websocket: bool = False
    tls: bool = False  # nginx and bgproxy alone, with one certificate and the same ciphers
    handshakes: bool = False  # by openssl, one after the other: wrk resumes its sessions
    everyone: bool = True  # else nginx, HAProxy and bgproxy alone: the run has an end
    quick: bool = True

    @property
    def unit(self) -> str:
        return "µs/MiB" if self.mib else "µs/message" if self.websocket else "µs/request"


SCENARIOS = (
    Scenario("get", "GET, a browser's 12 header fields, the same every time", 64),
    Scenario("changing", "the same, while a trace id and a referer change", 64, load={"changing": True}),
    Scenario("get-1", "GET, one connection", 1, everyone=False, quick=False),
    Scenario("get-1000", "GET, 1,000 connections", 1000, everyone=False, quick=False),
    Scenario(
        "post", "POST of 4 KiB", 64, "/upload", load={"method": "POST", "body": 4096}, everyone=False, quick=False
    ),
    Scenario("new", "GET, a new connection each time", 64, load={"connection": "close"}),
    Scenario("body-64k", "answers of 64 KiB", 64, "/64k", 1 / 16, everyone=False, quick=False),
    Scenario("body-1m", "answers of 1 MiB", 16, "/1m", 1),
    Scenario("chunked", "chunked answers of 16 KiB", 64, "/ssi", everyone=False, quick=False),
    Scenario("upload-1m", "uploads of 1 MiB", 16, "/upload", 1, {"method": "POST", "body": 1 << 20}, everyone=False),
    Scenario("tls", "GET over TLS, connections kept", 64, tls=True, everyone=False, quick=False),
    Scenario(
        "tls-new",
        "GET over TLS, a new connection each time, its session resumed",
        64,
        load={"connection": "close"},
        tls=True,
        everyone=False,
        quick=False,
    ),
    Scenario(
        "tls-full",
        "GET over TLS, a new connection and a whole handshake each time",
        1,
        tls=True,
        handshakes=True,
        everyone=False,
        quick=False,
    ),
    Scenario("websocket", "WebSocket messages of 64 bytes", 64, websocket=True),
)

#: Who is measured where not everyone is.
FEW = ("nginx", "haproxy", "bgproxy", "bgproxy-interpreted")
