"""Where the admin API is reached, so that no upstream is placed there, however its address is spelt or its name resolves.

The file's checks see text; here are the sockets themselves and the addresses that names stand for now. Connections of HTTP
services would say in Via that they came through a bgproxy, and be refused; bytes of tcp services say nothing.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from bgproxy.model.snapshot import Address

#: What an operator is told of an upstream that is not placed.
BARRED: Final = "this is where the admin API listens, and no upstream may lead there: write the address of your server"


class Doors:
    """The addresses of listening sockets; a Unix one by its path."""

    def __init__(self, sockets: Iterable[socket.socket] = ()) -> None:
        self._paths: list[str] = []
        self._tcp: set[tuple[str, int]] = set()
        for sock in sockets:
            name = sock.getsockname()
            if sock.family == socket.AF_UNIX:
                self._paths.append(os.fsdecode(name))
            else:
                self._tcp.add((str(name[0]), int(name[1])))

    def lead_to(self, address: Address) -> bool:
        """Whether who connects to `address` reaches one of them."""
        if isinstance(address, str):
            return any(_same_file(address, path) for path in self._paths)
        host, port = address
        if all(port != known for _, known in self._tcp):
            return False
        literal = _plain(host)
        every = "0.0.0.0" if literal.version == 4 else "::"  # noqa: S104 - compared with, not bound to
        return (str(literal), port) in self._tcp or ((every, port) in self._tcp and _is_here(literal))


def _plain(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address that connect(2) goes to: without a zone, IPv4 out of IPv6, this machine for the unspecified one."""
    literal = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(literal, ipaddress.IPv6Address) and literal.ipv4_mapped is not None:
        literal = literal.ipv4_mapped
    if literal.is_unspecified:
        return ipaddress.ip_address("127.0.0.1" if literal.version == 4 else "::1")
    return literal


def _is_here(literal: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether this machine has the address: then, and only then, a socket can be bound to it (any port, no traffic)."""
    if literal.is_loopback:
        return True
    family = socket.AF_INET if literal.version == 4 else socket.AF_INET6
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((str(literal), 0))
        return True
    # Of a link-local address the zone would have to be said, which is not known here: better one too many.
    return literal.is_link_local and literal.version == 6


def _same_file(one: str, other: str) -> bool:
    """Whether both paths are one socket, by whatever links; one that is not there is none."""
    try:
        return Path(one).samefile(other)
    except (OSError, ValueError):
        return False
