"""The classes of what is in flight; a drain has a deadline for each."""

from __future__ import annotations

from typing import Final

REQUESTS: Final = 0  # a request and its bounded answer
STREAMS: Final = 1  # an answer that has begun and has no announced end: SSE, chunked, close-delimited
WEBSOCKETS: Final = 2  # every upgraded connection

CLASS_NAMES: Final = ("requests", "streams", "websockets")
