"""WebSocket frame boundaries (RFC 6455 section 5.2): followed, so that a Close frame can be put between two frames.

The frames themselves are left alone.
"""

from __future__ import annotations

import os
from typing import Final

_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
_MASKED: Final = 0x80
_CLOSE: Final = 0x8

GOING_AWAY: Final = 1001
SERVICE_RESTART: Final = 1012


class FrameTracker:
    """One direction of a WebSocket."""

    def __init__(self) -> None:
        self.left = 0  # bytes of the current frame's payload that have not come
        self.head = b""  # an incomplete frame head
        self.closing = False  # a Close frame has gone by: nothing may follow it

    @property
    def boundary(self) -> bool:
        """Whether the bytes so far end with a whole frame."""
        return not self.left and not self.head

    def feed(self, data: bytes) -> None:
        """The next bytes of the direction."""
        if self.left >= len(data):  # the middle of a large frame: nothing to look at
            self.left -= len(data)
            return
        if self.head:
            data = self.head + data
            self.head = b""
        at = self.left
        self.left = 0
        size = len(data)
        while at < size:
            need = 2
            if size - at >= need:
                short = data[at + 1] & 0x7F
                extended = 2 if short == _LENGTH_16 else 8 if short == _LENGTH_64 else 0
                need += extended + (4 if data[at + 1] & _MASKED else 0)
            if size - at < need:
                self.head = data[at:]
                return
            length = int.from_bytes(data[at + 2 : at + 2 + extended], "big") if extended else short
            if data[at] & 0x0F == _CLOSE:
                self.closing = True
            at += need + length
        self.left = at - size


def close_frame(code: int, *, masked: bool) -> bytes:
    """A Close frame; what a client sends, and so what goes to an upstream, is masked (RFC 6455 section 5.3)."""
    payload = code.to_bytes(2, "big")
    if not masked:
        return b"\x88\x02" + payload
    key = os.urandom(4)
    return b"\x88\x82" + key + bytes(byte ^ key[index] for index, byte in enumerate(payload))
