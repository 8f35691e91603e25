"""Rules for `mode: tcp`: which service a listener leads to, and what a service without requests cannot have.

A service that a listener in mode tcp leads to is that listener's alone: it has no hosts and no paths, so no HTTP listener
leads to it. Its upstreams are `tcp://host:port` or Unix sockets, since nobody speaks HTTP to them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from bgproxy.config.addresses import scheme_mistake
from bgproxy.config.deployment_checks import check_tcp_deployment
from bgproxy.config.written import Path, Written

#: Keys of a service that are about requests, and what is to be said of them.
_OF_REQUESTS: Final = {
    "match": "a tcp service has no hosts and paths, its listener leads to it: remove match",
    "preview": "a preview needs a header or a cookie, and there are none in mode tcp: remove it",
    "expose_pool": "there are no responses in mode tcp that could say it: remove it",
}


def check_tcp(written: Written) -> Collection[str]:
    """Report what is wrong with listeners in mode tcp and the services that they lead to; the names of those.

    Where that cannot be told, because a listener is wrong, they are all named: nobody is told of routes then.
    """
    services = written.get("services")
    if not isinstance(services, dict) or not services:
        return ()
    listeners = written.get("listen")
    given = listeners if isinstance(listeners, list) else [{}]  # without the key there is one, of HTTP
    paths: list[Path] = [("listen", index) for index in range(len(given))]
    tcp: dict[str, Path] = {}
    http: list[Path] = []
    for path, listener in zip(paths, given, strict=True):
        if not isinstance(listener, dict) or listener.get("mode", "http") not in ("http", "tcp"):
            return services  # a mistake is known: what follows from it would only confuse
        if listener.get("mode") != "tcp":
            http.append(path)
        elif (name := _service_of(written, path, services)) is not None:
            tcp[name] = path
        else:
            return services
    for name, service in services.items():
        if isinstance(service, dict):
            _check_schemes(written, ("services", name), tcp=name in tcp)
            if name in tcp:
                _check_service(written, ("services", name))
    _check_reach(written, services, tcp, http)
    return tcp


def _service_of(written: Written, path: Path, services: dict[str, Any]) -> str | None:
    """The service that a listener leads to; None, and reported, where that cannot be told."""
    name = written.get(*path, "service")
    if name is None:
        if len(services) == 1:
            return next(iter(services))
        names = ", ".join(sorted(services)[:10])
        written.report(path, f"mode tcp leads to one service: add service: with the name of one of them ({names})")
        return None
    if isinstance(name, str) and name in services:
        return name
    names = ", ".join(sorted(services)[:10])
    written.report((*path, "service"), f"there is no service {name!r}: write one of those that there are ({names})")
    return None


def _check_reach(written: Written, services: dict[str, Any], tcp: dict[str, Path], http: list[Path]) -> None:
    """Every listener leads somewhere, and something leads to every service."""
    if not tcp:
        return
    others = [name for name in services if name not in tcp]
    if http and not others:
        where = http[0] if written.get("listen") is not None else ("services",)
        written.report(
            where, "is a listener of HTTP, and every service is a tcp one: write mode: tcp here too, or remove it"
        )
    if others and not http:
        written.report(
            ("services", others[0]),
            "no listener leads to it, since all of them are in mode tcp: add one with service: "
            f"{others[0]}, or one of HTTP",
        )


def _check_service(written: Written, path: Path) -> None:
    check_tcp_deployment(written, path)
    for key, wrong in _OF_REQUESTS.items():
        if written.get(*path, key) not in (None, "false", {}):
            written.report((*path, key), wrong)
    for pool in ("blue", "green"):
        if written.get(*path, "pools", pool, "tls") is not None:
            written.report(
                (*path, "pools", pool, "tls"),
                "in mode tcp the bytes go as they come, TLS included if the client speaks it: remove tls",
            )
    if written.get(*path, "sessions", "mode") == "cookie":
        written.report(
            (*path, "sessions", "mode"),
            "'cookie' needs HTTP: in mode tcp, source keeps a client at one upstream; or remove sessions",
        )
    if written.get(*path, "health", "type") != "http":
        for key in ("path", "expect"):
            if written.get(*path, "health", key) is not None:
                written.report(
                    (*path, "health", key),
                    "a tcp service is checked by connecting to it: remove this, or write type: http beside it",
                )


def _check_schemes(written: Written, path: Path, *, tcp: bool) -> None:
    for pool in ("blue", "green"):
        for item, text in written.texts(*path, "pools", pool, "upstreams"):
            wrong = scheme_mistake(text, tcp=tcp)
            if wrong is not None:
                written.report(item, wrong)
