"""How addresses are written: where to listen, and the URLs of upstreams.

Pure text, no look-ups: what a name resolves to is not this file's business.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from dataclasses import dataclass
from typing import Final

_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.ASCII | re.DOTALL)

#: sizeof(sun_path) on Linux, less the closing NUL.
_UNIX_PATH_BYTES: Final = 107

#: A listener's host for "every address of this machine".
_ANY_HOSTS: Final = ("", "*", "0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host (name, IPv4, or IPv6 without brackets; "" for every address when listening) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        """`host:port`, with brackets around IPv6."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The absolute path of a Unix socket."""

    path: str

    def __str__(self) -> str:
        """`unix:/path`, as it is written."""
        return f"unix:{self.path}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return True


ListenAddress = TcpAddress | UnixAddress


def parse_listen(text: str) -> ListenAddress:
    """An address to listen on: `host:port`, `:port`, `[v6]:port`, `unix:/path`.

    Port 0 stands for any free one. A host of "", "*", "0.0.0.0" or "::" is kept apart as written, but "*" becomes "".

    Raises:
        ValueError: what is wrong and how to write it.
    """
    if text.startswith("unix:"):
        return UnixAddress(_unix_path(text.removeprefix("unix:"), "unix:/run/bgproxy.sock"))
    if match := _SCHEME.fullmatch(text):
        rest = match[2].split("/", 1)[0]
        raise ValueError(f"{text!r} is a URL: write an address without {match[1]}://, such as {rest or ':8080'}")
    if text.startswith("/"):
        raise ValueError(f"{text!r} looks like a path: for a Unix socket write unix:{text}")
    if re.fullmatch("[0-9]{1,5}", text):
        raise ValueError(f"{text!r} has no host: write :{text} for every address, or 127.0.0.1:{text}")
    host, port = _split(text, 0, "127.0.0.1:8080, :8080, [::1]:8080 or unix:/run/bgproxy.sock")
    if port is None:
        raise ValueError(f"{text!r} has no port: write {text}:8080")
    return TcpAddress("" if host == "*" else _host(host, text) if host else "", port)


def listen_key(address: ListenAddress) -> tuple[str, int] | str | None:
    """Equal for two addresses that cannot both be listened on; None for one that never clashes (port 0)."""
    if isinstance(address, UnixAddress):
        return address.path
    if address.port == 0:
        return None
    return ("" if address.host in _ANY_HOSTS else address.host.lower(), address.port)


def parse_upstream(text: str) -> TcpAddress | UnixAddress:
    """The URL of an upstream: `http://host[:port]` (80 if there is none), `https://` (443) or `unix:///path.sock`.

    Raises:
        ValueError: what is wrong and how to write it.
    """
    match = _SCHEME.fullmatch(text)
    if match is None:
        if text.startswith("unix:/"):
            raise ValueError(f"{text!r} is not a URL: write unix://{text.removeprefix('unix:')}")
        raise ValueError(f"{text!r} is not a URL: write http://{text.lstrip('/') or '127.0.0.1:9001'}")
    scheme, rest = match[1].lower(), match[2]
    if scheme == "unix":
        return UnixAddress(_unix_path(rest, "unix:///run/app.sock"))
    if scheme not in ("http", "https", "tcp"):
        raise ValueError(f"{text!r} has an unknown scheme {scheme}://; use http://, https:// or unix:///")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        bare = authority.rpartition("@")[2]
        raise ValueError(f"{text!r} has a user name in it: leave it out, write {scheme}://{bare}")
    if rest != authority:
        raise ValueError(
            f"{text!r} has a path or a query: requests keep their own path, so write {scheme}://{authority or 'host:port'}"
        )
    host, port = _split(authority, 1, "http://127.0.0.1:9001, http://app:8000 or unix:///run/app.sock")
    if not host or host == "*":
        raise ValueError(f"{text!r} has no host: write {scheme}://127.0.0.1:{port or 9001}")
    if port is None and scheme == "tcp":
        raise ValueError(f"{text!r} has no port: write tcp://{host}:5432, with the port that it listens on")
    return TcpAddress(_host(host, text), port if port is not None else 443 if scheme == "https" else 80)


def scheme_mistake(url: str, *, tcp: bool) -> str | None:
    """What is wrong with the scheme of an upstream of a service that is a tcp one, or is not; None if nothing is."""
    scheme, _, rest = url.partition("://")
    if tcp and scheme.lower() in ("http", "https"):
        return f"{url!r}: to a tcp service the bytes go as they come: write tcp://{rest if ':' in rest else rest + ':PORT'}"
    if not tcp and scheme.lower() == "tcp":
        return f"{url!r}: tcp:// is for a service that a listener in mode: tcp leads to: write http://{rest}"
    return None


def is_secure(url: str) -> bool:
    """Whether the URL of an upstream asks for TLS."""
    return url[:8].lower() == "https://"


def host_of(url: str) -> str:
    """The host of an upstream's URL as a certificate names it: without brackets, and without the dot of the root."""
    where = parse_upstream(url)
    return where.host.removesuffix(".") if isinstance(where, TcpAddress) else ""


def _split(text: str, lowest_port: int, examples: str) -> tuple[str, int | None]:
    """Host and port of `host[:port]`; the host is not checked yet, but its brackets are gone."""
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::(.*))?", text)
    if bracketed:
        host, port = bracketed[1], bracketed[2]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(f"{text!r}: {host!r} is not an IPv6 address; write [::1]:8080") from None
    elif text.count(":") > 1:
        raise ValueError(f"{text!r}: an IPv6 address stands in brackets; write [::1]:8080")
    else:
        host, colon, after = text.partition(":")
        port = after if colon else None
    if port is None:
        return host, None
    if not re.fullmatch("[0-9]{1,9}", port):
        raise ValueError(f"{text!r}: {port!r} is not a port; write one of {examples}")
    if not lowest_port <= int(port) <= 65535:
        raise ValueError(f"{text!r}: port {port} is out of range; ports are {lowest_port} to 65535")
    return host, int(port)


def _host(host: str, text: str) -> str:
    """`host` if it is an IPv6 address, an IPv4 address, or a name that DNS could know."""
    if ":" in host:
        return host
    if re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError(f"{text!r}: {host!r} is not an IPv4 address; write four numbers of 0 to 255") from None
        return host
    if len(host) > 253 or not all(_NAME.fullmatch(label) for label in host.removesuffix(".").split(".")):
        raise ValueError(f"{text!r}: {host!r} is not a host name; use letters, digits, '-' and '.', or an IP address")
    return host


def _unix_path(path: str, example: str) -> str:
    """`path` if a Unix socket can be bound to it."""
    if not path.startswith("/") or path.endswith("/") or "\0" in path:
        raise ValueError(f"{path!r} is not the absolute path of a Unix socket: write {example}")
    if len(path.encode(errors="surrogateescape")) > _UNIX_PATH_BYTES:
        raise ValueError(f"{path!r} is too long for a Unix socket: at most {_UNIX_PATH_BYTES} bytes")
    return path


def leads_to(upstream: TcpAddress | UnixAddress, listener: ListenAddress) -> bool:
    """Whether what connects to `upstream` reaches `listener`, as far as their text tells: names are not looked up."""
    if isinstance(upstream, UnixAddress) and isinstance(listener, UnixAddress):
        return _normal(upstream.path) == _normal(listener.path)
    if isinstance(upstream, UnixAddress) or isinstance(listener, UnixAddress):
        return False
    if upstream.port != listener.port or not listener.port:
        return False
    hosts = _reached(upstream.host)
    if listener.host in _ANY_HOSTS:
        return any(TcpAddress(host, 0).is_loopback for host in hosts)
    return not hosts.isdisjoint(_reached(listener.host))


def _normal(path: str) -> str:
    """The path without what means nothing: POSIX lets two slashes at its beginning mean something, Linux does not."""
    return "/" + posixpath.normpath(path).lstrip("/")


def _reached(host: str) -> frozenset[str]:
    """The addresses that stand for a host; a name that is not this machine's own stands for itself."""
    name = host.lower().removesuffix(".")
    if name == "localhost":
        return frozenset({"127.0.0.1", "::1"})
    try:
        address = ipaddress.ip_address(name.partition("%")[0])  # without its zone
    except ValueError:
        return frozenset({name})
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if mapped is not None:
        address = mapped
    if address.is_unspecified:  # connect(2) takes it for this machine
        return frozenset({"127.0.0.1", "::1"})
    return frozenset({str(address)})
