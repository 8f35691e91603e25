"""Which bytes may stand where (RFC 9110 section 5, RFC 9112 sections 2 to 5, RFC 3986).

Each set is used as `data.translate(None, SET)`: what is left over is illegal, found at the speed of C. Where it is
asked for every request, a table made by `keeping` is quicker: it changes every illegal byte and no other, so that
`data.translate(TABLE) == data` says that all are legal.
"""

from __future__ import annotations

from typing import Final


def keeping(allowed: bytes) -> bytes:
    """A table for `bytes.translate` that changes the bytes which are not allowed."""
    return bytes(byte if byte in allowed else byte ^ 0x80 for byte in range(256))


DIGITS: Final = b"0123456789"
HEXDIGITS: Final = b"0123456789abcdefABCDEF"
ALPHA: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

#: tchar, RFC 9110 section 5.6.2: methods and field names.
TOKEN: Final = b"!#$%&'*+-.^_`|~" + DIGITS + ALPHA

#: A request target: visible ASCII without `#`. Wider than RFC 3986, because clients send `|`, `{` and `"` raw and every
#: known proxy lets them through; what could be mistaken for a delimiter (space, CTL, DEL, 8-bit) is not in it.
TARGET: Final = bytes(byte for byte in range(0x21, 0x7F) if byte != 0x23)

#: A header section: field values (HTAB, SP, VCHAR, obs-text) and the CRLF between lines.
SECTION: Final = b"\t\r\n" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))

#: The same without CRLF: deleting these leaves the line ends of a section, and whatever should not be there.
LINE: Final = SECTION.replace(b"\r", b"").replace(b"\n", b"")

#: One line of a header section, and a request target, as tables.
LINE_TABLE: Final = keeping(LINE)
TARGET_TABLE: Final = keeping(TARGET)

#: uri-host with an optional port, RFC 9110 section 7.2: reg-name, IPv4, `[IPv6]`; no userinfo, path, space or comma.
HOST: Final = b"-._~!$&'()*+;=%:[]" + DIGITS + ALPHA

#: The white space that may surround a value. Not what `bytes.strip()` takes: 0x0b, 0x0c and 0x85 belong to the value.
OWS: Final = b" \t"
