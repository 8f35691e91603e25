"""Who a client is: whose headers are believed, and whose address is private."""

from __future__ import annotations

import pytest

from bgproxy.proxy.peers import PRIVATE, Networks, client_address


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.255",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.0.1",
        "::1",
        "fc00::1",
        "fdff::1",
        "fe80::1",
        "fe80::1%eth0",
        "::ffff:10.0.0.1",
    ],
)
def test_private_addresses(address):
    """Loopback, RFC 1918, RFC 4193 and link-local, in IPv4, IPv6 and mapped."""
    assert PRIVATE.holds(address)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "172.15.255.255",
        "172.32.0.1",
        "100.64.0.1",
        "192.169.0.1",
        "0.0.0.0",
        "2001:db8::1",
        "::ffff:8.8.8.8",
        "fec0::1",
        "",
        "unknown",
        "10.0.0.1:80",
        "10.0.0",
        "010.0.0.1",
        "localhost",
        "10.0.0.1, 8.8.8.8",
        "[::1]",
    ],
)
def test_what_is_not_private(address):
    """Public ones, carrier-grade NAT, and whatever is no address at all."""
    assert not PRIVATE.holds(address)


def test_no_network_holds_nothing():
    """The default: nobody is trusted, a Unix peer neither."""
    assert not Networks(()).holds("127.0.0.1")
    assert not Networks(()).holds("")
    assert not Networks(("0.0.0.0/0", "::/0")).holds("")


def test_a_network_may_be_written_with_host_bits():
    """`10.1.2.3/8` is 10.0.0.0/8, and an address alone is itself."""
    networks = Networks(("10.1.2.3/8", "2001:db8::5"))
    assert networks.holds("10.200.0.1")
    assert networks.holds("2001:db8::5")
    assert not networks.holds("2001:db8::6")


def test_what_is_remembered_is_bounded_and_right():
    """A stream of other addresses does not fill the memory, and is judged all the same."""
    networks = Networks(("10.0.0.0/8",))
    for number in range(5000):
        assert networks.holds(f"10.0.{number // 256}.{number % 256}")
        assert not networks.holds(f"11.0.{number // 256}.{number % 256}")
    assert len(networks._known) == 4096


TRUSTED = Networks(("10.0.0.0/8",))


@pytest.mark.parametrize(
    ("forwarded_for", "client"),
    [
        ("", "10.0.0.1"),
        ("1.1.1.1", "1.1.1.1"),
        ("6.6.6.6, 1.1.1.1", "1.1.1.1"),
        ("6.6.6.6, 1.1.1.1, 10.0.0.2", "1.1.1.1"),
        ("1.1.1.1 ,\t10.0.0.3,10.0.0.2", "1.1.1.1"),
        ("10.0.0.4, 10.0.0.3", "10.0.0.4"),
        ("2001:db8::1", "2001:db8::1"),
        ("6.6.6.6, 1.1.1.1,", "1.1.1.1"),
        (",,", "10.0.0.1"),
    ],
)
def test_the_client_is_the_last_hop_that_is_not_trusted(forwarded_for, client):
    """From the right, since what stands further left is anybody's claim; empty elements are none (RFC 9110 5.6.1)."""
    assert client_address("10.0.0.1", forwarded_for, TRUSTED) == client


@pytest.mark.parametrize("hop", ["unknown", "_hidden", "1.1.1.1:5678", "[2001:db8::1]:80", "1.1.1", "\xe9"])
def test_a_hop_that_is_no_address_passes_for_nobody(hop):
    """The client behind it is unknown: not the trusted proxy before it, whose address may be private."""
    for forwarded_for in (hop, f"6.6.6.6, {hop}", f"10.9.9.9, {hop}, 10.0.0.2"):
        address = client_address("10.0.0.1", forwarded_for, TRUSTED)
        assert address == hop
        assert not PRIVATE.holds(address)
