"""Who a client is: whose forwarding headers are believed, and whose address counts as private."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Network = IPv4Network | IPv6Network

#: RFC 1918, RFC 4193, loopback and link-local; carrier-grade NAT (RFC 6598) is other people's, and not among them.
_PRIVATE: Final = (
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
)


class Networks:
    """A set of networks; membership of an address is remembered, boundedly."""

    def __init__(self, cidrs: tuple[str, ...]) -> None:
        self._networks: list[Network] = [ip_network(cidr, strict=False) for cidr in cidrs]
        self._known: dict[str, bool] = {}

    def holds(self, address: str) -> bool:
        """Whether an address is in one of the networks; a Unix peer ("") or a text that is no address is in none."""
        if not self._networks:
            return False
        known = self._known.get(address)
        if known is None:
            known = self._look(address)
            if len(self._known) < 4096:
                self._known[address] = known
        return known

    def _look(self, text: str) -> bool:
        try:
            address = ip_address(text.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)


PRIVATE: Final = Networks(_PRIVATE)


def client_address(peer: str, forwarded_for: str, trusted: Networks) -> str:
    """The client behind trusted proxies: the last address of X-Forwarded-For that is not itself trusted.

    `peer` is the connection's; `forwarded_for` is "" unless the peer is trusted. A hop that is no address (`unknown`,
    one with a port) is given as it is: nobody knows who stands behind it, and it must not pass for the proxy before it.
    """
    client = peer
    for hop in reversed(forwarded_for.split(",")):
        address = hop.strip()
        if address:
            client = address
            if not trusted.holds(address):
                break
    return client
