"""From the URLs of a pool to the places that requests can be sent to: one for an address, one for each address of a name."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bgproxy.config.addresses import TcpAddress, UnixAddress, leads_to, parse_listen, parse_upstream
from bgproxy.config.schema import Config
from bgproxy.errors import Invalid
from bgproxy.model.snapshot import Address


@dataclass(frozen=True, slots=True)
class Place:
    """One upstream to be: what it is called, the URL that it comes from, and where it is."""

    id: str  # "127.0.0.1:9001", "web:8000~172.18.0.3:8000", "unix:/run/app.sock"
    url: str
    address: Address


def name_in(url: str) -> tuple[str, int] | None:
    """The host and port of a URL whose host is a name; None if there is nothing to resolve."""
    where = parse_upstream(url)
    if isinstance(where, UnixAddress):
        return None
    try:
        ipaddress.ip_address(where.host)
    except ValueError:
        return where.host, where.port
    return None


def places_of(url: str, addresses_of: Callable[[str], Iterable[str]]) -> list[Place]:
    """The places of one URL, none when its name is not resolved. `addresses_of` knows the addresses of names."""
    where = parse_upstream(url)
    if isinstance(where, UnixAddress):
        return [Place(str(where), url, where.path)]
    if name_in(url) is None:
        return [Place(str(where), url, (where.host, where.port))]
    found = (TcpAddress(address, where.port) for address in addresses_of(where.host))
    return [Place(f"{where}~{address}", url, (address.host, address.port)) for address in found]


def base_id(upstream_id: str) -> str:
    """The part of an upstream's id that its URL alone decides."""
    return upstream_id.partition("~")[0]


def base_id_of(url: str) -> str:
    """The same, of a URL."""
    return str(parse_upstream(url))


def checked(urls: Iterable[str]) -> tuple[str, ...]:
    """The URLs as they came, if a pool can be made of them.

    Raises:
        Invalid: one is no URL of an upstream, or two are the same upstream.
    """
    seen: dict[str, str] = {}
    for url in urls:
        try:
            key = base_id_of(url)
        except ValueError as error:
            raise Invalid(f"upstreams: {error}") from None
        if key in seen:
            raise Invalid(f"upstreams: {seen[key]} and {url} are the same upstream; name it once")
        seen[key] = url
    return tuple(seen.values())


def address_text(address: Address) -> str:
    """An address as operators write it."""
    return f"unix:{address}" if isinstance(address, str) else str(TcpAddress(*address))


def check_not_admin(urls: Iterable[str], listens: Iterable[str]) -> None:
    """Raise `Invalid` for an upstream that is where the admin API listens: the data plane would lead everybody to it."""
    listeners = [parse_listen(text) for text in listens]
    for url in urls:
        if any(leads_to(parse_upstream(url), listener) for listener in listeners):
            raise Invalid(f"upstreams: {url} is where the admin API listens; name the address of your server")


def preview_urls(config: Config) -> list[str]:
    """The URLs at which this machine reaches the HTTP listeners, those without TLS first."""
    urls = []
    for listen in config.listen:
        address = parse_listen(listen.address)
        if listen.mode == "http" and listen.redirect is None and isinstance(address, TcpAddress):
            host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(address.host, address.host)  # noqa: S104
            urls.append(f"{'https' if listen.tls is not None else 'http'}://{TcpAddress(host, address.port)}")
    return sorted(urls, key=lambda url: url.startswith("https"))
