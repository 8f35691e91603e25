"""PROXY headers: what they say, however their bytes are split; and what is no header."""

from __future__ import annotations

import ipaddress
import itertools
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgproxy.proxy.proxy_protocol import MAX_REST, MAX_V1, SIGNATURE, HeaderDecoder, HeaderError, encode


def v2(command=1, family=0x11, rest=b"", *, version=2, length=None):
    """A header of version 2 as its bytes are laid out in section 2.2."""
    size = len(rest) if length is None else length
    return SIGNATURE + bytes([version << 4 | command, family]) + struct.pack(">H", size) + rest


def v4_addresses(source="192.0.2.7", destination="198.51.100.1", ports=(56324, 443)):
    return socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack(">HH", *ports)


def v6_addresses(source="2001:db8::7", destination="2001:db8::1", ports=(56324, 443)):
    packed = [socket.inet_pton(socket.AF_INET6, address) for address in (source, destination)]
    return b"".join(packed) + struct.pack(">HH", *ports)


TLV = b"\x02\x00\x0bexample.org"

#: name: (header, source, destination)
GOOD = {
    "v1 ipv4": (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n", ("192.0.2.7", 56324), ("198.51.100.1", 443)),
    "v1 ipv6": (b"PROXY TCP6 2001:DB8::7 2001:db8::1 0 65535\r\n", ("2001:db8::7", 0), ("2001:db8::1", 65535)),
    "v1 ipv4 in ipv6": (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n", ("192.0.2.7", 1), ("::1", 2)),
    "v1 longest ipv6": (
        b"PROXY TCP6 " + b" ".join([b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] * 2) + b" 65535 65535\r\n",
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535),
    ),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", None, None),
    "v1 unknown with more": (b"PROXY UNKNOWN ffff::1 what ever 1 2\r\n", None, None),
    "v1 unknown longest": (b"PROXY UNKNOWN" + b" " * (MAX_V1 - 15) + b"\r\n", None, None),
    "v2 ipv4": (v2(rest=v4_addresses()), ("192.0.2.7", 56324), ("198.51.100.1", 443)),
    "v2 ipv4 with TLVs": (v2(rest=v4_addresses() + TLV), ("192.0.2.7", 56324), ("198.51.100.1", 443)),
    "v2 ipv6": (v2(family=0x21, rest=v6_addresses()), ("2001:db8::7", 56324), ("2001:db8::1", 443)),
    "v2 ipv4 in ipv6": (v2(family=0x21, rest=v6_addresses("::ffff:1.2.3.4")), ("1.2.3.4", 56324), ("2001:db8::1", 443)),
    "v2 most TLVs": (v2(rest=v4_addresses() + bytes(MAX_REST - 12)), ("192.0.2.7", 56324), ("198.51.100.1", 443)),
    "v2 local": (v2(command=0, family=0), None, None),
    "v2 local with an address": (v2(command=0, rest=v4_addresses()), None, None),
    "v2 local of no known family": (v2(command=0, family=0x99, rest=b"xyz"), None, None),
    "v2 unspecified": (v2(family=0, rest=TLV), None, None),
    "v2 udp": (v2(family=0x12, rest=v4_addresses()), None, None),
    "v2 unix": (v2(family=0x31, rest=bytes(216)), None, None),
}

#: name: what comes, a part of the reason
BAD = {
    "http": (b"GET / HTTP/1.1\r\n", "does not begin"),
    "tls": (b"\x16\x03\x01\x02\x00", "does not begin"),
    "v1 lower case": (b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n", "does not begin"),
    "v1 nearly": (b"PROXYTCP4", "does not begin"),
    "v1 of another family": (b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", "family"),
    "v1 without a family": (b"PROXY \r\n", "family"),
    "v1 too few words": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "exactly two"),
    "v1 too many words": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", "exactly two"),
    "v1 two spaces": (b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", "exactly two"),
    "v1 trailing space": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", "exactly two"),
    "v1 a name": (b"PROXY TCP4 localhost 1.2.3.4 1 2\r\n", "no IPv4 address"),
    "v1 leading zero": (b"PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n", "no IPv4 address"),
    "v1 ipv6 as ipv4": (b"PROXY TCP4 ::1 ::1 1 2\r\n", "no IPv4 address"),
    "v1 ipv4 as ipv6": (b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", "no IPv6 address"),
    "v1 zone": (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "no IPv6 address"),
    "v1 port too large": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", "no port"),
    "v1 port with a sign": (b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", "no port"),
    "v1 port with a leading zero": (b"PROXY TCP4 1.2.3.4 1.2.3.4 080 2\r\n", "no port"),
    "v1 port of other digits": ("PROXY TCP4 1.2.3.4 1.2.3.4 \u0661 2\r\n".encode(), "no port"),
    "v1 address of other bytes": (b"PROXY TCP4 1.2.3.\xb2 1.2.3.4 1 2\r\n", "no IPv4 address"),
    "v1 bare LF": (b"PROXY UNKNOWN\n", "bare LF"),
    "v1 bare LF before the end": (b"PROXY UNKNOWN a\nb\r\n", "bare LF"),
    "v1 too long": (b"PROXY UNKNOWN" + b" " * (MAX_V1 - 14) + b"\r\n", "more than 107"),
    "v2 version 1": (v2(version=1, rest=v4_addresses()), "version 1"),
    "v2 another command": (v2(command=2, rest=v4_addresses()), "neither LOCAL nor PROXY"),
    "v2 unknown family": (v2(family=0x41, rest=v4_addresses()), "unknown family"),
    "v2 unknown transport": (v2(family=0x13, rest=v4_addresses()), "unknown family"),
    "v2 too short for ipv4": (v2(rest=v4_addresses()[:-1]), "too short"),
    "v2 too short for ipv6": (v2(family=0x21, rest=v4_addresses()), "too short"),
    "v2 too long": (v2(length=MAX_REST + 1), "announces"),
    "v2 spoilt signature": (SIGNATURE[:-1] + b"x", "does not begin"),
}


def decode(pieces):
    """What the pieces say, and what of them is the client's."""
    decoder = HeaderDecoder()
    for number, piece in enumerate(pieces):
        found = decoder.feed(piece)
        if found is not None:
            return found, piece[decoder.used :] + b"".join(pieces[number + 1 :])
        assert decoder.used == len(piece)
    return None, b""


@pytest.mark.parametrize("name", GOOD)
def test_good_headers(name):
    """Both versions say who the client is; LOCAL, UNKNOWN and what is no TCP say nothing. What follows is the client's."""
    header, source, destination = GOOD[name]
    found, rest = decode([header + b"GET / HTTP/1.1\r\n"])
    assert (found.source, found.destination) == (source, destination)
    assert rest == b"GET / HTTP/1.1\r\n"


@pytest.mark.parametrize("name", GOOD)
def test_byte_by_byte(name):
    """A header that comes a byte at a time is complete with its last byte, and not before."""
    header, source, _ = GOOD[name]
    decoder = HeaderDecoder()
    for at in range(len(header) - 1):
        assert decoder.feed(header[at : at + 1]) is None
    assert decoder.feed(header[-1:]).source == source
    assert decoder.used == 1


@pytest.mark.parametrize("name", BAD)
def test_bad_headers(name):
    """What is no header is refused with the reason, in one piece and byte by byte."""
    data, reason = BAD[name]
    with pytest.raises(HeaderError, match=reason):
        decode([data])
    with pytest.raises(HeaderError, match=r"."):
        decode([data[at : at + 1] for at in range(len(data))])


ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6).filter(lambda address: address.ipv4_mapped is None))


@given(st.data())
def test_any_address_in_any_split(data):
    """Whatever the addresses, in either version, cut anywhere: the same is read."""
    address = data.draw(ADDRESSES)
    port = data.draw(st.integers(0, 65535))
    kind = type(address)
    other = kind(1)
    if data.draw(st.booleans()):
        header = f"PROXY TCP{address.version} {address} {other} {port} 1\r\n".encode()
    else:
        addresses = address.packed + other.packed + struct.pack(">HH", port, 1)
        header = v2(family=0x11 if kind is ipaddress.IPv4Address else 0x21, rest=addresses + data.draw(st.binary()))
    whole = header + data.draw(st.binary(max_size=20))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=8)) | {0, len(whole)})
    found, rest = decode([whole[start:end] for start, end in itertools.pairwise(cuts)])
    assert found.source == (str(address), port)
    assert found.destination == (str(other), 1)
    assert rest == whole[len(header) :]


@given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]))
def test_anything_else_is_refused_or_waited_for(tail, beginning):
    """Random bytes raise nothing but `HeaderError`, and the same whether they come whole or byte by byte."""
    data = beginning + tail
    outcomes = []
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        try:
            found, rest = decode(pieces)
            outcomes.append((found and found.source, rest))
        except HeaderError:
            outcomes.append("refused")
    assert outcomes[0] == outcomes[1]


# --- writing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        (("192.0.2.7", 5000), ("192.0.2.1", 443), (("192.0.2.7", 5000), ("192.0.2.1", 443))),
        (("2001:db8::7", 1), ("2001:db8::1", 65535), (("2001:db8::7", 1), ("2001:db8::1", 65535))),
        (("fe80::7%eth0", 1), ("fe80::1", 2), (("fe80::7", 1), ("fe80::1", 2))),
        (("::ffff:192.0.2.7", 1), ("::ffff:192.0.2.1", 2), (("192.0.2.7", 1), ("192.0.2.1", 2))),
        (("192.0.2.7", 1), ("2001:db8::1", 2), (("192.0.2.7", 1), ("2001:db8::1", 2))),
        (None, ("192.0.2.1", 2), (None, None)),
        (("/run/x", 1), ("192.0.2.1", 2), (None, None)),
    ],
    ids=["IPv4", "IPv6", "zone", "IPv4 over IPv6", "one of each", "no address", "no address of IP"],
)
def test_what_is_written_is_read_as_it_was_meant(version, source, destination, expected):
    """By the decoder above, whole, with nothing left."""
    header = encode(version, source, destination)
    decoder = HeaderDecoder()
    told = decoder.feed(header)
    assert (told.source, told.destination, decoder.used) == (*expected, len(header))


def test_headers_are_those_of_the_specification():
    """Byte for byte, as its examples have them (sections 2.1 and 2.2)."""
    assert encode("v1", ("255.255.255.255", 65535), ("255.255.255.255", 65535)) == (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"
    )
    assert encode("v2", ("1.2.3.4", 1), ("5.6.7.8", 258)) == (
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x01\x02"
    )
