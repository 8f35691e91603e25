"""Rules for services: their names and routes, their pools beside each other, and the syntax of what they name."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Any, Final

from bgproxy.config.addresses import parse_upstream
from bgproxy.config.grammar import PATH, PATH_AND_QUERY, TOKEN, path_mistake, token_mistake
from bgproxy.config.schema import MAX_SERVICES, Match, Sessions
from bgproxy.config.statuses import parse_statuses
from bgproxy.config.written import Path, Written

_SERVICE_NAME: Final = re.compile(r"[a-z0-9_.-]{1,64}", re.ASCII)

_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)

_VERSION_LENGTH: Final = 128

#: Headers that carry the message itself; a preview by one of them would take requests at random.
_TAKEN_HEADERS: Final = frozenset(
    {"host", "connection", "content-length", "content-type", "transfer-encoding", "upgrade", "te", "cookie", "via"}
)


def check_services(written: Written, tcp: Collection[str] = ()) -> None:
    """Report what is wrong with the services, each and together. Those of `tcp` have no routes."""
    services = written.get("services")
    if not isinstance(services, dict):
        return
    if not services:
        written.report(("services",), "has no service in it: add one, a name with pools: below it")
    if len(services) > MAX_SERVICES:
        written.report(
            ("services",), f"has {len(services)} services: {MAX_SERVICES} are the most that one bgproxy can hold"
        )
    routes: dict[tuple[str, str], str] = {}
    for name, service in services.items():
        if not _SERVICE_NAME.fullmatch(name):
            fitting = re.sub(r"[^a-z0-9_.-]+", "-", name.lower())[:64].strip("-")
            remedy = f", such as {fitting}" if fitting else ""
            written.report(
                ("services", name), f"{name!r} is not a name for a service: use 1 to 64 of a-z 0-9 - _ .{remedy}"
            )
        if isinstance(service, dict):
            path: Path = ("services", name)
            if name not in tcp:
                _check_match(written, path, routes)
            _check_pools(written, path)
            _check_health(written, path)
            _check_sessions(written, path)
            _check_preview(written, path)


def check_networks(written: Written, *path: str | int) -> None:
    """Report what is not a CIDR in the list at `path`."""
    for item, text in written.texts(*path):
        try:
            ipaddress.ip_network(text)
        except ValueError:
            try:
                fitting = str(ipaddress.ip_network(text, strict=False))
            except ValueError:
                written.report(item, f"{text!r} is not a network: write a CIDR such as 10.0.0.0/8 or fd00::/8")
            else:
                written.report(item, f"{text!r} has bits set beyond its prefix: write {fitting}")


# --- routes ---------------------------------------------------------------------------------------------------------


def _check_match(written: Written, service: Path, routes: dict[tuple[str, str], str]) -> None:
    """Hosts and path are well formed, and no other service has the same."""
    hosts = []
    for item, host in written.texts(*service, "match", "hosts"):
        if wrong := _host_mistake(host):
            written.report(item, wrong)
        elif host.lower() in hosts:
            written.report(item, f"{host!r} is listed already: remove one of them")
        else:
            hosts.append(host.lower())
    if not isinstance(written.get(*service, "match"), dict | None):
        return
    path = Match().path if written.get(*service, "match", "path") is None else written.text(*service, "match", "path")
    if path is None:
        return
    if not PATH.fullmatch(path):
        written.report((*service, "match", "path"), path_mistake(path, "/api"))
        return
    if written.get(*service, "match", "hosts") and not hosts:
        return  # each of them is a mistake already: nothing is known about this route
    name = str(service[1])
    for host in hosts or [""]:
        other = routes.setdefault((host, path.rstrip("/")), name)
        if other != name:
            where = written.line("services", other)
            route = f"host {host}" if host else "any host"
            written.report(
                (*service, "match"),
                f"takes {route} with path {path}, as {other} does (line {where}): give one of them another host or path",
            )


def _host_mistake(host: str) -> str | None:
    """What is wrong with a host of `match.hosts`."""
    if "://" in host:
        return f"{host!r} has a scheme: write the host alone, {host.split('://', 1)[1].split('/', maxsplit=1)[0]}"
    if host == "*":
        return "'*' is every host: remove hosts to match any, or write *.example.com"
    address = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        ipaddress.ip_address(address)
    except ValueError:
        pass
    else:
        return f"{host!r} is an IPv6 address: put it in brackets, [{host}]" if ":" in host and address == host else None
    if ":" in host:
        return (
            f"{host!r} has a port: write the host alone, {host.split(':', maxsplit=1)[0]}; it is matched on every port"
        )
    if "/" in host:
        return (
            f"{host!r} has a path: write the host alone, {host.split('/', maxsplit=1)[0]}, and the path in match.path"
        )
    labels = host.lower().removeprefix("*.").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return f"{host!r} is not a host: write shop.example.com, or *.example.com for every host below it"
    return None


# --- pools ----------------------------------------------------------------------------------------------------------


def _check_pools(written: Written, service: Path) -> None:
    """Upstreams are URLs, no two of a service the same, and the live pool has some."""
    seen: dict[str, Path] = {}
    for pool in ("blue", "green"):
        version = written.text(*service, "pools", pool, "version") or ""
        if len(version) > _VERSION_LENGTH or not version.isprintable():
            where = (*service, "pools", pool, "version")
            written.report(where, f"is not a label: write one line of at most {_VERSION_LENGTH} characters")
        for item, text in written.texts(*service, "pools", pool, "upstreams"):
            try:
                key = str(parse_upstream(text)).lower()
            except ValueError as error:
                written.report(item, str(error))
                continue
            first = seen.setdefault(key, item)
            if first == item:
                continue
            line = written.line(*first)
            if pool in first:
                written.report(item, f"{text!r} is listed already on line {line}: remove one of them")
            else:
                written.report(
                    item, f"{text!r} is in the other pool too (line {line}): blue and green need servers of their own"
                )
    _check_empty(written, service)


def _check_empty(written: Written, service: Path) -> None:
    pools = written.get(*service, "pools")
    live = written.get(*service, "live") or "blue"
    if not isinstance(pools, dict) or live not in ("blue", "green"):
        return
    counts = {pool: _count(pools.get(pool, {})) for pool in ("blue", "green")}
    other = "green" if live == "blue" else "blue"
    if counts[live] != 0:
        return
    if counts[other] == 0:
        written.report((*service, "pools"), "both pools are empty: add upstreams to at least the live one, " + live)
    elif counts[other] is not None:
        written.report(
            (*service, "pools", live),
            f"the live pool, {live}, is empty: add upstreams to it, or write live: {other}",
        )


def _count(pool: Any) -> int | None:
    """How many upstreams a pool has; None where that cannot be told."""
    if not isinstance(pool, dict):
        return None
    upstreams = pool.get("upstreams", [])
    return len(upstreams) if isinstance(upstreams, list) else None


# --- the rest -------------------------------------------------------------------------------------------------------


def _check_health(written: Written, service: Path) -> None:
    path = written.text(*service, "health", "path")
    if path is not None and not PATH_AND_QUERY.fullmatch(path):
        written.report((*service, "health", "path"), path_mistake(path.split("?")[0], "/healthz"))
    expect = written.text(*service, "health", "expect")
    if expect is not None:
        try:
            parse_statuses(expect)
        except ValueError as error:
            written.report((*service, "health", "expect"), str(error))


def _check_sessions(written: Written, service: Path) -> None:
    where = (*service, "sessions")
    mode, on_switch = written.text(*where, "mode"), written.text(*where, "on_switch")
    if mode == "source" and on_switch in ("finish", "deadline"):
        written.report(
            (*where, "on_switch"),
            f"{on_switch!r} needs mode: cookie: source mode keeps no memory of who came before the switch; "
            "use mode: cookie, or on_switch: follow",
        )
    cookie = written.text(*where, "cookie")
    if cookie is not None and not TOKEN.fullmatch(cookie):
        written.report((*where, "cookie"), token_mistake(cookie, "cookie", Sessions().cookie))


def _check_preview(written: Written, service: Path) -> None:
    where = (*service, "preview")
    header, cookie = written.text(*where, "header"), written.text(*where, "cookie")
    if header and not TOKEN.fullmatch(header):
        written.report((*where, "header"), token_mistake(header, "header", "X-BGProxy-Pool"))
    elif header and header.lower() in _TAKEN_HEADERS:
        written.report((*where, "header"), f"{header!r} has a meaning of its own: use another, such as X-BGProxy-Pool")
    if cookie and not TOKEN.fullmatch(cookie):
        written.report((*where, "cookie"), token_mistake(cookie, "cookie", "bgproxy_pool"))
    elif cookie and cookie == (written.text(*service, "sessions", "cookie") or Sessions().cookie):
        written.report((*where, "cookie"), f"{cookie!r} is the cookie of sessions too: give one of them another name")
    allow = written.get(*where, "allow")
    if isinstance(allow, list):
        check_networks(written, *where, "allow")
        if not allow:
            written.report((*where, "allow"), "is an empty list, so nobody could preview: write private, any, or CIDRs")
