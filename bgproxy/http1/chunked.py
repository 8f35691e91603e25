"""The chunked coding, followed without being taken apart (RFC 9112 section 7).

`ChunkedBody` walks over the bytes of a body as they come and says what may go on. As long as a peer writes plain
chunks, what goes on is what came. Chunk extensions are never forwarded (http.md row 34), trailer fields are judged one
by one (row 36), and the receiving side may be one that takes no chunks (HTTP/1.0), which is then sent the data alone.
"""

from __future__ import annotations

import re
from typing import Final

from bgproxy.http1.bytesets import HEXDIGITS, OWS, SECTION
from bgproxy.http1.errors import ProtocolError
from bgproxy.http1.names import NOT_IN_TRAILERS, OURS_PREFIX, NameTable

#: Longest chunk-size line with its extensions.
MAX_SIZE_LINE: Final = 256
#: What all extensions of one body may come to.
MAX_EXTENSIONS: Final = 16 * 1024
#: What the trailer section may come to.
MAX_TRAILERS: Final = 8 * 1024
#: Bytes of data below which a chunk is tiny: its coding is most of it.
TINY: Final = 16
_MAX_SIZE_DIGITS: Final = 16
_MAX_SIZE: Final = 2**60  # no arithmetic anywhere overflows, here or behind us

_SIZE: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILERS: Final = 3
_DONE: Final = 4

_CR: Final = 13
_LF: Final = 10
_CODING: Final = 5  # bytes of a tiny chunk's coding: its one digit and two CRLFs
#: chunk-ext (RFC 9112 section 7.1.1). Two readers may fall out over one that is none, such as a quote that is not closed.
_EXTENSIONS: Final = re.compile(
    rb"(?:[ \t]*;[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+"
    rb"(?:[ \t]*=[ \t]*(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+"
    rb'|"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"))?)+'
)
#: What a byte is as the one digit of a chunk size; -1 for one that is none.
_DIGITS: Final = [int(chr(byte), 16) if byte in HEXDIGITS else -1 for byte in range(256)]


class ChunkedBody:
    """One chunked body. `feed` it; when `done`, `rest` holds the bytes that came behind it."""

    def __init__(self, names: NameTable, *, data_only: bool = False) -> None:
        self.names = names
        self.data_only = data_only  # give the data without its coding
        self.done = False
        self.rest = b""
        self.received = 0  # bytes of data, without the coding
        self.tiny = 0  # chunks of less than `TINY` bytes; whoever feeds it may begin anew
        self._state = _SIZE
        self._left = 0  # of the current chunk
        self._held = b""  # an incomplete line
        self._extensions = 0
        self._trailers = 0

    def feed(self, data: bytes) -> bytes:
        """The next bytes of the connection; returns what may be forwarded of them (maybe b"").

        Raises `ProtocolError` (400) on anything but a well-formed body; what was returned before it may have been sent.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        out: list[bytes] = []
        digit = _DIGITS
        size = len(data)
        at = 0  # what is judged
        start = 0  # what is judged and not in `out` yet
        while at < size:
            if self._state == _DATA:
                take = size - at
                if take >= self._left:
                    take = self._left
                    self._state = _DATA_END
                self._left -= take
                self.received += take
                if self.data_only:
                    out.append(data[at : at + take])
                at += take
                if self.data_only:
                    start = at
            elif self._state == _DATA_END:
                if size - at < 2:
                    if data[at : at + 1] != b"\r":
                        raise ProtocolError(400, "chunk data does not end with CRLF")
                    break
                if data[at : at + 2] != b"\r\n":
                    raise ProtocolError(400, "chunk data does not end with CRLF")
                at += 2
                if self.data_only:
                    start = at
                self._state = _SIZE
            elif self._state == _SIZE:
                # Chunks of less than 16 bytes, one behind the other, as an attack sends them: at the least cost.
                first = at
                chunks = 0
                while at + 5 < size and data[at + 1] == _CR and data[at + 2] == _LF:
                    small = digit[data[at]]
                    end = at + 3 + small
                    if small <= 0 or end + 2 > size or data[end] != _CR or data[end + 1] != _LF:
                        break
                    if self.data_only:
                        out.append(data[at + 3 : end])
                        start = end + 2
                    chunks += 1
                    at = end + 2
                self.tiny += chunks
                self.received += at - first - _CODING * chunks
                if at == size:
                    break
                end = data.find(b"\r\n", at, at + MAX_SIZE_LINE + 2)
                if end == -1:
                    self._check_partial_size(data[at:])
                    break
                line = data[at:end]
                digits = line.partition(b";")[0]
                if len(digits) != len(line):
                    if digits.endswith((b" ", b"\t")):  # BWS before the semicolon: "bad" by name, and refused
                        raise ProtocolError(400, "white space behind a chunk size")
                    self._extensions += len(line) - len(digits)
                    if self._extensions > MAX_EXTENSIONS:
                        raise ProtocolError(413, "too many chunk extensions")
                    if _EXTENSIONS.fullmatch(line, len(digits)) is None:
                        raise ProtocolError(400, "a chunk extension that is none")
                    if not self.data_only:  # the size goes on without its extensions
                        out.append(data[start:at] + digits + b"\r\n")
                    start = end + 2
                self._left = self._size(digits)
                if self._left < TINY:
                    self.tiny += 1
                at = end + 2
                if self.data_only:
                    start = at
                if self._left:
                    self._state = _DATA
                else:
                    self._state = _TRAILERS
            else:  # _TRAILERS
                end = data.find(b"\r\n", at)
                if end == -1:
                    if size - at > MAX_TRAILERS:
                        raise ProtocolError(431, "the trailer section is too long")
                    if data.find(b"\n", at) != -1:  # now, since the end of such a section may never come
                        raise ProtocolError(400, "a bare LF in a trailer")
                    break
                if end == at:
                    at += 2
                    if not self.data_only:
                        out.append(data[start:at])
                    start = at
                    self.done = True
                    self._state = _DONE
                    self.rest = data[at:]
                    break
                self._trailers += end + 2 - at
                if self._trailers > MAX_TRAILERS:
                    raise ProtocolError(431, "the trailer section is too long")
                if self._forbidden(data[at:end]) or self.data_only:
                    if not self.data_only:
                        out.append(data[start:at])
                    start = end + 2
                at = end + 2
        if not self.done:
            if start < at and not self.data_only:
                out.append(data[start:at])
            self._held = data[at:]
        if len(out) == 1:
            return out[0]
        return b"".join(out)

    def _size(self, digits: bytes) -> int:
        """1*HEXDIG, no sign, prefix or space, 16 digits at most (RFC 9112 section 7.1; http.md row 33)."""
        if not digits or digits.translate(None, HEXDIGITS):
            raise ProtocolError(400, "a chunk size that is not hexadecimal")
        size = int(digits, 16) if len(digits) <= _MAX_SIZE_DIGITS else _MAX_SIZE
        if size >= _MAX_SIZE:
            raise ProtocolError(400, "a chunk size beyond all bounds")
        return size

    def _check_partial_size(self, line: bytes) -> None:
        """Refuse early what cannot become a size line: a peer that never ends it must not be waited for."""
        if line.endswith(b"\r"):
            line = line[:-1]  # of the CRLF that may be cut in two here
        if len(line) > MAX_SIZE_LINE:
            raise ProtocolError(400, "a chunk size line that is too long")
        if b"\n" in line:
            raise ProtocolError(400, "a bare LF behind a chunk size")
        digits = line.partition(b";")[0]
        if len(digits) > _MAX_SIZE_DIGITS or digits.translate(None, HEXDIGITS):
            raise ProtocolError(400, "a chunk size that is not hexadecimal")

    def _forbidden(self, line: bytes) -> bool:
        """Whether a trailer line is dropped; malformed ones raise."""
        name, separator, value = line.partition(b":")
        kind = self.names.known.get(name, -1)
        if kind == -1:
            kind = self.names.learn(name)
        if not separator or kind == -1:
            raise ProtocolError(400, "a trailer line that is none")
        if value.strip(OWS).translate(None, SECTION) or b"\r" in line or b"\n" in line:
            raise ProtocolError(400, "a control character in a trailer")
        lower = name.lower()
        dashed = lower.replace(b"_", b"-")
        return lower in NOT_IN_TRAILERS or dashed in NOT_IN_TRAILERS or dashed.startswith(OURS_PREFIX)


def chunk(data: bytes) -> bytes:
    """`data` as one chunk; never the last one: no data is no chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


#: The end of a body that has no trailers.
LAST_CHUNK: Final = b"0\r\n\r\n"
