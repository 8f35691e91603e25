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
from bgproxy.config.units import BytesText, CountText, DurationText, FactorText, FlagText, PercentText, RateText

KiB = 1024
MiB = 1024 * KiB

Seconds = Annotated[float, DurationText(), Gt(0), Le(7 * 86400)]
Count = Annotated[int, CountText()]
Percent = Annotated[float, PercentText(), Ge(0), Le(100)]

PoolName = Literal["blue", "green"]
Balance = Literal["round_robin", "least_requests", "random_two", "source_hash"]
Role = Literal["viewer", "operator", "admin"]
SendProxy = Literal["off", "v1", "v2"]
Notice = Literal["started", "awaiting_approval", "switched", "succeeded", "rolled_back", "failed", "aborted"]

#: The name that the one service of a file without `services:` gets.
ONLY_SERVICE = "default"

#: Switchboard capacity (see switchboard/layout.py); a file with more is refused.
MAX_SERVICES = 4096

#: Seconds that the request of a check may take, unless it says otherwise.
CHECK_TIMEOUT = 10.0


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


# --- deployments ----------------------------------------------------------------------------------------------------
# A field whose name Python keeps for itself ends with "_" here and without it in a file (`for_`).


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A command or a webhook, exactly one of them, that gets the deployment as JSON and as BGPROXY_* variables."""

    run: str = ""  # by /bin/sh; a status other than 0 halts the deployment
    webhook: str = ""  # a URL; an answer other than 2xx halts the deployment
    timeout: Seconds = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """What an answer must be; all that is said must hold."""

    status: str = "200-299"  # statuses and ranges, with commas
    headers: dict[str, str] = field(default_factory=dict)  # a name, and the value that it must have
    body_contains: str = ""
    json: dict[str, str] = field(default_factory=dict)  # $.items[0].id, and the value (text, or as JSON writes it)
    within: Seconds | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The built-in load check: open loop, GETs at a steady rate to the idle pool."""

    rate: Annotated[float, RateText(), Gt(0), Le(10_000)]  # requests a second, written 200/s
    for_: Seconds = 30.0
    path: str = "/"
    p99: Seconds | None = None
    errors: Percent = 0.1  # share of the requests that may fail: refused, timed out, 5xx
    connections: Annotated[Count, Ge(1), Le(1000)] = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check of a verify stage: exactly one of `request`, `run`, `webhook` and `load` says of what kind."""

    name: Annotated[str, MinLen(1)]
    request: str = ""  # "GET /cart"; asked of every upstream of the idle pool
    headers: dict[str, str] = field(default_factory=dict)  # of the request
    body: str = ""  # of the request
    expect: Expect = field(default_factory=Expect)
    run: str = ""
    webhook: str = ""
    load: Load | None = None
    timeout: Seconds | None = None  # 10s for a request, 5m for a command or webhook, `for` and 30s more for a load


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify:
    """Proves the idle pool before users see it."""

    healthy: Percent = 100.0  # of its upstreams must be up
    within: Seconds = 60.0  # and so soon
    checks: tuple[Check, ...] = ()
    timeout: Seconds = 1800.0  # of the whole stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignore:
    """Differences that are none."""

    headers: tuple[str, ...] = ()
    json: tuple[str, ...] = ()  # paths such as $.generated_at or $.items[*].id


@dataclass(frozen=True, slots=True, kw_only=True)
class Compare:
    """Mirrors live requests to the idle pool and compares the answers."""

    mirror: Percent = 5.0  # of the live requests
    for_: Seconds = 60.0
    mismatches: Percent = 0.1  # of the compared ones may differ
    min_requests: Annotated[Count, Ge(0)] = 1  # that must have been compared
    methods: tuple[str, ...] = ("GET", "HEAD")
    headers: tuple[str, ...] = ("content-type", "location")  # that are compared
    ignore: Ignore = field(default_factory=Ignore)
    body_bytes: Annotated[int, BytesText(), Ge(0), Le(1 * MiB)] = 64 * KiB  # larger bodies are not compared
    concurrency: Annotated[Count, Ge(1), Le(256)] = 16  # mirrored requests under way; what comes on top is dropped
    timeout: Seconds = 10.0  # of a mirrored request


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """Gives the idle pool what it needs to be warm: connections, and GETs."""

    requests: Annotated[Count, Ge(0), Le(1_000_000)] = 200
    paths: Literal["recent"] | tuple[str, ...] = "recent"  # recent: those seen most of late on the live pool
    concurrency: Annotated[Count, Ge(1), Le(256)] = 8
    timeout: Seconds = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Approve:
    """Whether somebody has to say yes before the switch. In a file, `automatic` or `manual` alone will do."""

    mode: Literal["automatic", "manual"] = "automatic"
    timeout: Seconds = 86400.0  # then the deployment is aborted


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """How the traffic moves."""

    type: Literal["all-at-once", "canary", "linear"] = "all-at-once"
    percent: Annotated[float, PercentText(), Ge(1), Le(99)] = 10.0  # canary: the clients that go first; whole per cents
    for_: Seconds = 300.0  # canary: for so long
    step: Annotated[float, PercentText(), Ge(1), Le(99)] = 10.0  # linear: so much more; whole per cents
    every: Seconds = 60.0  # linear: so often
    sticky: Literal["cookie", "source"] = "cookie"  # how a client is known again within a step; mode tcp: source


@dataclass(frozen=True, slots=True, kw_only=True)
class BakeErrors:
    """Of the requests to the new pool, the share answered with 5xx; tcp: of the connections, those that failed."""

    max: Percent = 1.0
    worse_than_before: Annotated[float | None, FactorText(off=True)] = 2.0  # times that of the old pool; None is "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class BakeLatency:
    """A quantile of the new pool's latency."""

    max: Seconds | None = None
    worse_than_before: Annotated[float | None, FactorText(off=True)] = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bake:
    """Watches the new pool under live traffic, and rolls back by itself."""

    for_: Seconds = 300.0
    errors: BakeErrors = field(default_factory=BakeErrors)
    p99: BakeLatency = field(default_factory=BakeLatency)
    min_requests: Annotated[Count, Ge(1), Le(1_000_000)] = 100
    no_traffic: Literal["wait", "fail"] = "wait"  # fewer at the end: wait for the operator, or roll back
    wait: Seconds = 86400.0  # for the operator, then it is rolled back


@dataclass(frozen=True, slots=True, kw_only=True)
class Retire:
    """What becomes of the old pool after the stand-by time: a command, a webhook, or nothing."""

    after: Annotated[float, DurationText(), Ge(0), Le(7 * 86400)] = 1800.0
    run: str = ""
    webhook: str = ""
    timeout: Seconds = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """Who is told; that it cannot be told is in the log and changes nothing."""

    webhook: str = ""
    run: str = ""
    on: tuple[Notice, ...] = ("switched", "rolled_back", "failed")
    timeout: Seconds = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What `bgproxy deploy` does; a stage that is not there is skipped."""

    provision: Hook | None = None
    verify: Verify | None = None
    compare: Compare | None = None
    warm: Warm | None = None
    approve: Approve = field(default_factory=Approve)
    strategy: Strategy = field(default_factory=Strategy)
    hold: Literal["none", "writes", "all"] = "none"  # as yet the check refuses all but none
    bake: Bake | None = None
    retire: Retire | None = None
    notify: tuple[Notify, ...] = ()


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
    deployment: Deployment = field(default_factory=Deployment)
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
