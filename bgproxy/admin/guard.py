"""Keeps web pages out: a browser on the operator's machine must not be made to speak to the admin API.

Two ways lead there, and each leaves a trace that a page cannot hide:

- *DNS rebinding*: a page's own name is made to point here. The browser then sends that name as Host, so a Host must be
  one that this API is known by: a loopback name or literal, the address of a listener, anything on a Unix socket.
  Where a listener has every address of the machine, its name is not known; tokens, which are required there and which a
  browser never adds by itself, do the same service.
- *Cross-site requests*: a page posts here. The browser then says the page's Origin, which must be absent or this host.

And one that has no page in it:

- *Forwarding*: an upstream whose name turns out to be this API. The data plane says so in Via (RFC 9110 section 7.6.3).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from bgproxy.admin.auth import host_of, is_loopback
from bgproxy.admin.problems import Problem
from bgproxy.config.schema import Admin

_PORTS: Final = {"http": 80, "https": 443}

#: What the data plane puts into Via: protocol, and a name that begins with ours.
_OURSELVES: Final = re.compile(r"(?:^|,)\s*[^\s,]+\s+bgproxy(?:-[0-9A-Za-z]+)?\s*(?:,|$)", re.ASCII)


class Guard:
    """Knows by which hosts this API is called."""

    def __init__(self, admin: Admin) -> None:
        hosts = {host_of(listen) for listen in admin.listen if not listen.startswith("unix:")}
        self._hosts = {host for host in hosts if not _is_wildcard(host)}
        self._anywhere = len(hosts) > len(self._hosts) and bool(admin.tokens)

    def check(self, request: web.Request) -> None:
        """Pass a request that was sent here on purpose; raises `Problem` (403) for another."""
        if _OURSELVES.search(",".join(request.headers.getall("Via", []))):
            raise Problem("forbidden", "This came through a listener of bgproxy, which must not lead to its admin API.")
        said = request.headers.getall("Host", [])
        host = said[0] if len(said) == 1 else ""
        if not _is_unix(request):
            self._check_host(host)
        origin = request.headers.get("Origin")
        if origin is not None and not _same(origin, host):
            raise Problem("forbidden", f"Requests of pages of another origin ({origin}) are refused.")

    def _check_host(self, host: str) -> None:
        name = _authority(f"http://{host}")[0]
        if name and (is_loopback(name) or name in self._hosts or self._anywhere):
            return
        raise Problem(
            "forbidden", f"Host {host!r} is not one that this API is known by; use the address it listens on."
        )


def _is_wildcard(host: str) -> bool:
    try:
        return host in {"", "*"} or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _is_unix(request: web.Request) -> bool:
    sock = request.transport.get_extra_info("socket") if request.transport is not None else None
    return sock is not None and sock.family == socket.AF_UNIX


def _same(origin: str, host: str) -> bool:
    """Whether an Origin is the host itself; the scheme may be https where something before us speaks TLS."""
    scheme = origin.partition("://")[0].lower()
    name, port = _authority(origin)
    return name != "" and (name, port) == _authority(f"{scheme}://{host}")


def _authority(url: str) -> tuple[str, int]:
    """Host and port of a URL; `("", 0)` where it has none, as in an Origin of "null"."""
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return "", 0
