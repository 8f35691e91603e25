"""What may stand in a configuration file: every key, its type, its default and its limits.

Plain frozen dataclasses, so that every process can hold the settings without carrying the library that checks them:
`bgproxy.config.loading` (pydantic, PyYAML) reads these same classes and runs in a short-lived process of its own.
A number has one home, and for defaults and limits it is this file.

Units: durations are seconds (`Seconds`, written ``250ms``, ``30s``, ``5m``, ``1h``), sizes are bytes
(`BytesText`, written ``64KiB``, ``10MiB``), shares are per cent (`Percent`, written ``50%``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen

from bgproxy.config.redirects import RedirectText
from bgproxy.config.units import BytesText, CountText, DurationText, FlagText, PercentText

KiB = 1024
MiB = 1024 * KiB

Seconds = Annotated[float, DurationText(), Gt(0), Le(7 * 86400)]
Count = Annotated[int, CountText()]
Percent = Annotated[float, PercentText(), Ge(0), Le(100)]

PoolName = Literal["blue", "green"]
Balance = Literal["round_robin", "least_requests", "random_two", "source_hash"]
Role = Literal["viewer", "operator", "admin"]
SendProxy = Literal["off", "v1", "v2"]

#: The name that the one service of a file without `services:` gets.
ONLY_SERVICE = "default"

#: Switchboard capacity (see switchboard/layout.py); a file with more is refused.
MAX_SERVICES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What clients may ask for. docs/configuration.md says what happens beyond each; docs/operations.md, what it takes."""

    connections: Annotated[Count, Ge(1), Le(1_000_000)] = 10_000
    header_bytes: Annotated[int, BytesText(), Ge(1 * KiB), Le(1 * MiB)] = 32 * KiB
    headers: Annotated[Count, Ge(8), Le(10_000)] = 100
    body_bytes: Annotated[int | None, BytesText(unlimited=True)] = None  # None is written "unlimited"
    connections_per_address: Annotated[Count, Ge(0), Le(1_000_000)] = 0  # 0: as many as it likes
    #: Bytes a second: how slowly a body may come, or an answer be read, for `timeouts.slow`. 0: as slowly as it likes.
    min_rate: Annotated[int, BytesText(), Ge(0), Le(1 * MiB)] = 512
    #: Chunks of less than 16 bytes that a request's body may bring in a second; then it is read no further for a second.
    tiny_chunks: Annotated[Count, Ge(100), Le(10_000_000)] = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds; each names what is waited for."""

    header: Seconds = 10.0  # for the whole head of a request, from its first byte (408)
    client_idle: Seconds = 75.0  # between two requests of a connection (closed silently)
    connect: Seconds = 5.0  # for a connection to an upstream (504)
    response: Seconds = 60.0  # for the head of the response, once the request is sent (504)
    upstream_idle: Seconds = 30.0  # an unused connection to an upstream is kept so long
    stream_idle: Seconds = 300.0  # without a byte in either direction: bodies, streams, tunnels
    slow: Seconds = 30.0  # for so long a client may be slower than `limits.min_rate`
    shutdown: Seconds = 30.0  # what is in flight at SIGTERM may take so long to end


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A bearer token of the admin API; exactly one of `token_file` and `token_env` says where its text is."""

    name: Annotated[str, MinLen(1)]
    role: Role
    token_file: str | None = None
    token_env: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminTls:
    """TLS of the admin API: PEM files, none of them for none. With `client_ca`, clients show a certificate of that authority."""

    cert: str = ""  # with its intermediates behind it
    key: str = ""
    client_ca: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """The control plane's own listener: `host:port` or `unix:/path`."""

    listen: tuple[str, ...] = ("127.0.0.1:8900",)
    tls: AdminTls = field(default_factory=AdminTls)
    tokens: tuple[Token, ...] = ()
    connections: Annotated[Count, Ge(8), Le(10_000)] = 200  # beyond it the one that has idled longest makes room


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate of a listener, PEM: the leaf first, then its intermediates; and its private key, not encrypted."""

    cert: Annotated[str, MinLen(1)]
    key: Annotated[str, MinLen(1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenTls:
    """TLS on a listener. The certificate is chosen by the name that the client asks for (SNI); the first is the default."""

    certificates: tuple[Certificate, ...]
    client_ca: str | None = None  # PEM: clients show a certificate that one of these authorities has signed
    client_auth: Literal["require", "optional"] = "require"  # with client_ca: whether a client may come without one
    min_version: Literal["1.2", "1.3"] = "1.2"
    hsts: Annotated[float | None, DurationText(off=True)] = None  # max-age in seconds; None is written "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """One address that traffic is taken at. In a file, its text alone stands for one that is nothing but its address."""

    address: str  # host:port, :port, [v6]:port or unix:/path
    tls: ListenTls | None = None
    proxy_protocol: Literal["off", "on"] = "off"  # v1 or v2, expected from trusted_proxies
    mode: Literal["http", "tcp"] = "http"
    service: str | None = None  # with mode tcp: whose pools
    redirect: Annotated[int | None, RedirectText()] = None  # the port of https:// that every request is sent to by 308

    def __str__(self) -> str:
        """Its address."""
        return self.address


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which requests are a service's: exact host before `*.wildcard` before any (empty), then the longest path."""

    hosts: tuple[str, ...] = ()
    path: str = "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamTls:
    """How the `https://` upstreams of a pool are spoken to, those set at run time too. Files are PEM."""

    insecure: Annotated[bool, FlagText()] = False  # believe whoever answers; never without saying so
    ca: str = ""  # the authorities that may have signed an upstream's certificate; empty: this machine's trust store
    server_name: str = ""  # what is asked for (SNI) and must stand in the certificate; empty: the host of each URL
    cert: str = ""  # shown to upstreams that ask for a certificate of ours
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """One of the two copies of a service."""

    version: str = ""
    upstreams: tuple[str, ...] = ()  # http://host[:port], https://host[:port] or unix:///path.sock
    tls: UpstreamTls = field(default_factory=UpstreamTls)
    send_proxy: SendProxy = "off"  # the client's address is said before its bytes (PROXY protocol)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pools:
    """Both copies; one may be empty until something is deployed to it."""

    blue: Pool = field(default_factory=Pool)
    green: Pool = field(default_factory=Pool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Active checks of every upstream: GET `path`, an `expect`ed status within `timeout`; or a connection, no more."""

    type: Literal["auto", "http", "tcp"] = "auto"  # auto: tcp where a listener in mode tcp leads to the service
    path: str = "/"
    interval: Seconds = 2.0
    timeout: Seconds = 1.0
    rise: Annotated[Count, Ge(1), Le(100)] = 2
    fall: Annotated[Count, Ge(1), Le(100)] = 3
    expect: str = "200-399"  # statuses and ranges, with commas: "200,204,300-399"


@dataclass(frozen=True, slots=True, kw_only=True)
class Passive:
    """Ejection by what live requests meet: refused, reset, timed out, rubbish."""

    failures: Annotated[Count, Ge(1), Le(1_000_000)] = 5
    within: Seconds = 10.0
    eject: Seconds = 10.0
    max_ejected: Percent = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """Only where the request is provably unsent, or idempotent and unanswered."""

    attempts: Annotated[Count, Ge(0), Le(5)] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """Pinning of a client to a pool and an upstream of it."""

    mode: Literal["none", "cookie", "source"] = "none"
    on_switch: Literal["follow", "finish", "deadline"] = "follow"
    drain: Seconds = 1800.0  # after a switch, `finish` and `deadline` keep to the old pool for so long at the most
    ttl: Seconds = 43200.0  # a cookie's life, counted from its first request
    cookie: str = "bgproxy_session"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """How testers reach a pool by name (blue, green, live, idle) before it is live; empty turns a way off."""

    header: str = "X-BGProxy-Pool"
    cookie: str = "bgproxy_pool"
    allow: Literal["private", "any"] | tuple[str, ...] = "private"  # or CIDRs, of the client's address


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """How long what began on the old pool may still take after a switch, by class."""

    requests: Seconds = 30.0
    streams: Seconds = 300.0
    websockets: Seconds = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A named pair of pools, with its routes and rules."""

    pools: Pools
    match: Match = field(default_factory=Match)
    live: PoolName = "blue"  # only the first time; afterwards the state store knows
    balance: Balance = "least_requests"
    health: Health = field(default_factory=Health)
    passive: Passive = field(default_factory=Passive)
    retries: Retries = field(default_factory=Retries)
    sessions: Sessions = field(default_factory=Sessions)
    preview: Preview = field(default_factory=Preview)
    drain: Drain = field(default_factory=Drain)
    expose_pool: Annotated[bool, FlagText()] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole configuration, checked."""

    listen: tuple[Listen, ...] = (Listen(address="127.0.0.1:8080"),)
    workers: Literal["auto"] | Annotated[Count, Ge(1), Le(256)] = "auto"
    state_dir: str = ""  # filled by loading: /var/lib/bgproxy for root, else $XDG_STATE_HOME/bgproxy
    admin: Admin = field(default_factory=Admin)
    access_log: str = "off"  # off | stdout | a file's path
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    trusted_proxies: tuple[str, ...] = ()  # CIDRs
    services: dict[str, Service] = field(default_factory=dict)

    def tcp_services(self) -> frozenset[str]:
        """The services that listeners in mode tcp lead to; no HTTP listener leads to them."""
        return frozenset(listen.service or "" for listen in self.listen if listen.mode == "tcp")
