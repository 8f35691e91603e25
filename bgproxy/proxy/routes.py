"""Which service a request is for: the most specific host, then the longest path on a segment boundary."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bgproxy.proxy.runtime import Service


class Routes:
    """The routes of a snapshot; immutable, so that what was found in them may be remembered with them."""

    def __init__(self, services: list[Service]) -> None:
        self.exact: dict[bytes, list[Service]] = {}
        self.wildcard: dict[bytes, list[Service]] = {}
        self.any: list[Service] = []
        for service in services:
            if service.tcp:
                continue
            hosts = service.spec.hosts
            if not hosts:
                self.any.append(service)
            for host in hosts:
                name = host.lower().rstrip(".").encode("ascii", "surrogateescape")
                if name.startswith(b"*."):
                    self.wildcard.setdefault(name[1:], []).append(service)
                else:
                    self.exact.setdefault(name, []).append(service)
        for group in [*self.exact.values(), *self.wildcard.values(), self.any]:
            group.sort(key=_longest_first)

    def candidates(self, hostname: bytes) -> list[Service]:
        """The services that may serve a host, in the order in which their paths are tried.

        A more specific host comes first as a whole: `shop.example` with the path `/` wins over any host with `/cart`
        for requests to `shop.example`; a host without a matching path falls through to the next wider one.
        """
        if not self.exact and not self.wildcard:
            return self.any
        found = list(self.exact.get(hostname, ()))
        dot = hostname.find(b".")
        while dot != -1:
            found += self.wildcard.get(hostname[dot:], ())
            dot = hostname.find(b".", dot + 1)
        return found + self.any


def _longest_first(service: Service) -> int:
    return -len(service.path)


def match(candidates: list[Service], target: bytes) -> Service | None:
    """The first candidate whose path holds the target."""
    for service in candidates:
        prefix = service.path
        if prefix == b"/":
            return service
        if target.startswith(prefix):
            end = len(prefix)
            if prefix.endswith(b"/") or target[end : end + 1] in (b"", b"/", b"?"):
                return service
    return None
