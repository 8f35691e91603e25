"""The PROXY protocol: the address of a client, said by a proxy before the client's own bytes.

Source: "The PROXY protocol, versions 1 & 2" (doc/proxy-protocol.txt of HAProxy). Sans-I/O: bytes in, addresses out. Whether
a peer may say such a thing is not decided here (`bgproxy.proxy.introduced`).
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

#: Section 2.2: how a header of version 2 begins.
SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
#: Section 2.1: how one of version 1 begins, and its longest line with the CRLF.
_V1: Final = b"PROXY "
MAX_V1: Final = 107

#: Bytes of a version 2 header up to its addresses.
_FIXED: Final = 16
#: Bytes that may follow those: the addresses (216 of Unix sockets are the longest) and their TLVs. The protocol would allow 65535.
MAX_REST: Final = 216 + 4096

#: Families and transports (the 14th byte) that the protocol knows, with the length of their two addresses.
_ADDRESSES: Final = {0x00: 0, 0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}
_TCP4: Final = 0x11
_TCP6: Final = 0x21

_LOCAL: Final = 0
_PROXY: Final = 1

#: No sign, no leading zero (section 2.1).
_PORT: Final = re.compile(rb"0|[1-9][0-9]{0,4}")
_HEX_ADDRESS: Final = re.compile(rb"[0-9a-fA-F:.]{2,39}")


class HeaderError(ValueError):
    """What came is no PROXY header; the text says why."""


class Announced:
    """What a header says: both ends of the client's connection, numeric host and port.

    Both are None where the peer speaks for itself (LOCAL, a health check of the proxy's own) or the client has no address
    that means something here (UNKNOWN, Unix sockets, datagrams): then the connection's own addresses hold.
    """

    def __init__(self, source: tuple[str, int] | None = None, destination: tuple[str, int] | None = None) -> None:
        self.source = source
        self.destination = destination

    def __repr__(self) -> str:
        return f"<Announced {self.source} to {self.destination}>"


class HeaderDecoder:
    """Finds the header at the beginning of a connection, however its bytes were split."""

    def __init__(self) -> None:
        self.used = 0  # bytes of the last piece that are the header's; what follows them is the client's
        self._buffer = b""

    def feed(self, data: bytes) -> Announced | None:
        """Take the next piece; None while more is needed, and then all of the piece is the header's.

        Raises:
            HeaderError: this is no header, whatever may still come.
        """
        before = len(self._buffer)
        buffer = self._buffer = self._buffer + data
        self.used = len(data)
        if buffer.startswith(SIGNATURE[: len(buffer)]):
            end = _end_of_v2(buffer)
        elif buffer.startswith(_V1[: len(buffer)]):
            end = _end_of_v1(buffer)
        else:
            raise HeaderError("it does not begin with a PROXY header")
        if end < 0:
            return None
        self.used = end - before
        self._buffer = b""
        header = buffer[:end]
        return _read_v1(header[:-2]) if header.startswith(_V1) else _read_v2(header)


# --- version 1: a line ----------------------------------------------------------------------------------------------


def _end_of_v1(buffer: bytes) -> int:
    """Where the line ends; -1 if that is still to come."""
    end = buffer.find(b"\n", 0, MAX_V1)
    if end == -1:
        if len(buffer) >= MAX_V1:
            raise HeaderError(f"a PROXY line of more than {MAX_V1} bytes")
        return -1
    if buffer[end - 1 : end] != b"\r":
        raise HeaderError("a bare LF in the PROXY line")
    return end + 1


def _read_v1(line: bytes) -> Announced:
    words = line.split(b" ")
    family = words[1]
    if family == b"UNKNOWN":  # whatever follows it is to be ignored
        return Announced()
    if family not in (b"TCP4", b"TCP6"):
        raise HeaderError("a PROXY line of a family that is neither TCP4 nor TCP6 nor UNKNOWN")
    if len(words) != 6:
        raise HeaderError("a PROXY line without exactly two addresses and two ports")
    address = _v4 if family == b"TCP4" else _v6
    return Announced((address(words[2]), _port(words[4])), (address(words[3]), _port(words[5])))


def _v4(text: bytes) -> str:
    try:
        return str(IPv4Address(text.decode("ascii")))
    except ValueError:
        raise HeaderError("a PROXY line with something that is no IPv4 address") from None


def _v6(text: bytes) -> str:
    if _HEX_ADDRESS.fullmatch(text) is None:  # a zone, for one, has no meaning on another machine
        raise HeaderError("a PROXY line with something that is no IPv6 address")
    try:
        return _plain(IPv6Address(text.decode("ascii")))
    except ValueError:
        raise HeaderError("a PROXY line with something that is no IPv6 address") from None


def _port(text: bytes) -> int:
    if _PORT.fullmatch(text) is None or int(text) > 65535:
        raise HeaderError("a PROXY line with something that is no port")
    return int(text)


# --- version 2: binary ----------------------------------------------------------------------------------------------


def _end_of_v2(buffer: bytes) -> int:
    """Where the header ends; -1 if that is still to come. What can be judged is judged at once."""
    if len(buffer) > 12:
        if buffer[12] >> 4 != 2:
            raise HeaderError(f"a PROXY header of version {buffer[12] >> 4}")
        if buffer[12] & 15 > _PROXY:
            raise HeaderError("a PROXY header whose command is neither LOCAL nor PROXY")
    if len(buffer) < _FIXED:
        return -1
    length = int.from_bytes(buffer[14:16], "big")
    if length > MAX_REST:
        raise HeaderError(f"a PROXY header that announces {length} bytes: more than {MAX_REST}")
    if buffer[12] & 15 != _LOCAL:  # of a local connection, the addresses are to be ignored
        needed = _ADDRESSES.get(buffer[13], -1)
        if needed < 0:
            raise HeaderError("a PROXY header of an unknown family or transport")
        if length < needed:
            raise HeaderError("a PROXY header too short for its addresses")
    end = _FIXED + length
    return end if len(buffer) >= end else -1


def _read_v2(header: bytes) -> Announced:
    if header[12] & 15 == _LOCAL:
        return Announced()
    if header[13] == _TCP4:
        hosts = [str(IPv4Address(header[16:20])), str(IPv4Address(header[20:24]))]
        at = 24
    elif header[13] == _TCP6:
        hosts = [_plain(IPv6Address(header[16:32])), _plain(IPv6Address(header[32:48]))]
        at = 48
    else:
        return Announced()
    # What follows the addresses (TLVs: the name asked for in TLS, an id, a checksum) is passed over.
    source = (hosts[0], int.from_bytes(header[at : at + 2], "big"))
    return Announced(source, (hosts[1], int.from_bytes(header[at + 2 : at + 4], "big")))


def _plain(address: IPv6Address) -> str:
    """An address as it would be without the proxy: one of IPv4 that came as IPv6 is one of IPv4."""
    mapped = address.ipv4_mapped
    return str(address if mapped is None else mapped)


# --- writing --------------------------------------------------------------------------------------------------------


def encode(version: str, source: tuple[str, int] | None, destination: tuple[str, int] | None) -> bytes:
    """The header that announces a client's connection, `version` "v1" or "v2"; addresses are numeric.

    Without both addresses (the client came over a Unix socket) it says that there is nothing to say: UNKNOWN, or LOCAL.
    """
    hosts = None if source is None or destination is None else _pair(source[0], destination[0])
    if hosts is None or source is None or destination is None:
        return b"PROXY UNKNOWN\r\n" if version == "v1" else SIGNATURE + b"\x20\0\0\0"
    wide = isinstance(hosts[0], IPv6Address)
    if version == "v1":
        return f"PROXY TCP{6 if wide else 4} {hosts[0]} {hosts[1]} {source[1]} {destination[1]}\r\n".encode()
    addresses = hosts[0].packed + hosts[1].packed + source[1].to_bytes(2, "big") + destination[1].to_bytes(2, "big")
    family = _TCP6 if wide else _TCP4
    return SIGNATURE + bytes((0x21, family)) + len(addresses).to_bytes(2, "big") + addresses


def _pair(source: str, destination: str) -> tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address] | None:
    """Both addresses in one family, since a header has but one; None for what is no address."""
    try:
        one, other = ip_address(_plain_text(source)), ip_address(_plain_text(destination))
    except ValueError:
        return None
    if isinstance(one, IPv4Address) and isinstance(other, IPv4Address):
        return one, other
    return _widened(one), _widened(other)


def _plain_text(host: str) -> str:
    """An address without its zone, which means nothing elsewhere; one of IPv4 that came over IPv6 is one of IPv4."""
    host = host.partition("%")[0]
    return host[7:] if host[:7].lower() == "::ffff:" and "." in host else host


def _widened(address: IPv4Address | IPv6Address) -> IPv6Address:
    return address if isinstance(address, IPv6Address) else IPv6Address(f"::ffff:{address}")
