"""bgproxy and its peers: how each is configured, started and switched."""

from __future__ import annotations

from collections.abc import Sequence

from bench.proxies.base import Proxy
from bench.proxies.bgproxy import Bgproxy
from bench.proxies.by_hand import ByHand
from bench.proxies.caddy import Caddy
from bench.proxies.envoy import Envoy
from bench.proxies.haproxy import Haproxy
from bench.proxies.nginx import Nginx
from bench.setting import Tools

PEERS: dict[str, type[Proxy]] = {kind.name: kind for kind in (Nginx, Haproxy, Envoy, Caddy, ByHand)}
BUILDS = {"compiled": "bgproxy", "interpreted": "bgproxy-interpreted"}


def choose(tools: Tools, peers: Sequence[str], builds: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The names of those that can be run, nginx first, and why the others cannot."""
    here, missing = [], {}
    for name, kind in PEERS.items():
        if name in peers:
            reason = kind.missing(tools)
            if reason:
                missing[name] = reason
            else:
                here.append(name)
    for build in builds:
        reason = Bgproxy.missing_build(tools, build)
        if reason:
            missing[BUILDS[build]] = reason
        else:
            here.append(BUILDS[build])
    return here, missing


def kind(name: str) -> type[Proxy]:
    """Of a proxy's name."""
    return PEERS.get(name, Bgproxy)


def make(name: str, *arguments, **more) -> Proxy:
    """A proxy by its name, started."""
    if name in PEERS:
        return PEERS[name](*arguments, **more)
    return Bgproxy(*arguments, build="compiled" if name == "bgproxy" else "interpreted", **more)
