"""The routing state as the workers get it: immutable, and everything but who is live.

Who is live stands in the switchboard alone, so that a switch needs no message. The specs are what the controller
publishes over the links (`bgproxy.switchboard.messages`); they are compared by value to see what changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bgproxy.config.schema import Balance, Drain, Limits, Preview, Retries, SendProxy, Sessions, Timeouts

#: A numeric host and a port, or the path of a Unix socket: workers never resolve names.
Address = tuple[str, int] | str


@dataclass(frozen=True, slots=True)
class UpstreamSpec:
    """One upstream: an address that requests can be sent to."""

    id: str  # "127.0.0.1:9001", "web:8000~172.18.0.3:8000" (a name and what it resolved to), "unix:/run/app.sock"
    slot: int  # of its cells in the switchboard
    url: str  # as configured; several specs share it when a name has several addresses
    address: Address
    usable: bool  # new requests may go to it: up (or being checked in a live pool), not ejected, drained or in maint


@dataclass(frozen=True, slots=True)
class TlsSpec:
    """How the `https://` upstreams of a pool are spoken to. The controller reads the files; who connects gets their bytes."""

    verify: bool = True
    server_name: str = ""  # asked for and looked for in the certificate; empty: the host of each URL
    authorities: bytes = field(default=b"", repr=False)  # PEM; none: those of this machine
    chain: bytes = field(default=b"", repr=False)  # PEM, shown to who asks for it; none: nothing is shown
    secret: bytes = field(default=b"", repr=False)  # PEM: its private key
    trouble: str = ""  # why the files cannot be used; then no connection is made


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """One pool of a service."""

    name: str
    version: str
    upstreams: tuple[UpstreamSpec, ...]
    tls: TlsSpec = TlsSpec()
    send_proxy: SendProxy = "off"


@dataclass(frozen=True, slots=True)
class MirrorSpec:
    """Live requests that workers give to the controller, which repeats them to the idle pool and compares the answers."""

    number: int  # of the deployment that compares
    pool: int  # whose requests are sampled: the live one
    share: float  # of its requests, in per cent
    methods: tuple[str, ...]
    body_bytes: int  # of a request's or an answer's body that are copied; a larger one is not


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A service: its routes, both pools, and the rules that a worker applies."""

    name: str
    slot: int  # of its word and cells in the switchboard
    hosts: tuple[str, ...]
    path: str
    pools: tuple[PoolSpec, PoolSpec]  # blue, green
    balance: Balance
    retries: Retries
    sessions: Sessions
    preview: Preview
    drain: Drain
    expose_pool: bool
    canary_by: Literal["cookie", "source"] = "cookie"  # how a client is known again while the traffic is split
    tcp: bool = False  # a listener in mode tcp leads to it, and no route
    mirror: MirrorSpec | None = None  # while a deployment compares
    note_recent: bool = False  # what GETs ask for is noted, for the next warm-up


@dataclass(frozen=True, slots=True)
class CertificateSpec:
    """A certificate that is in force, as a listener's `tls` names it; workers get the bytes and read no files."""

    cert: str  # path of the file
    names: tuple[str, ...]  # lower case: host names, `*.` wildcards, IP addresses
    chain: bytes = field(repr=False)  # PEM
    secret: bytes = field(repr=False)  # PEM: its private key


@dataclass(frozen=True, slots=True)
class ProxySpec:
    """What holds for all services of a worker."""

    limits: Limits  # `connections` is the whole program's; a worker takes its share of it
    timeouts: Timeouts
    trusted_proxies: tuple[str, ...]
    access_log: str
    session_key: bytes  # signs session cookies; 32 bytes, the same over all workers and restarts
    certificates: tuple[CertificateSpec, ...] = ()
    client_cas: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)  # a path, and the PEM that is in force
