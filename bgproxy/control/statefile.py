"""The bytes of the state file: one line that vouches for the rest, then the state as JSON.

    {"bgproxy_state": 1, "bytes": 1234, "sha256": "…"}

The hash is over the number of the format, a line's end, and the rest. Every format keeps this first line, so that an older
program can tell a newer file from a damaged one. The line has one spelling only: whatever is cut or changed is noticed.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Final

from bgproxy.control.clock import rfc3339
from bgproxy.control.state import ServiceRecord, State, StateFormatError, Texts, from_json, to_json
from bgproxy.model.pool import POOLS

FORMAT: Final = 1

_LONGEST_HEADER: Final = 200
_TOLD: Final = 8  # services that a description names


def encode(state: State, texts: Texts | None = None) -> bytes:
    """The whole file; see `to_json`."""
    body = to_json(state, texts).encode(errors="surrogatepass")
    return _header(FORMAT, body) + body


def decode(data: bytes) -> State:
    """The state in a file's bytes; raises `StateFormatError` with what is wrong, fit to stand after the file's name."""
    if not data:
        raise StateFormatError("is empty")
    line, end, body = data.partition(b"\n")
    if not end or len(line) > _LONGEST_HEADER:
        raise StateFormatError("does not begin with the line that every state file has")
    try:
        header = json.loads(line)
        number, length = header["bgproxy_state"], header["bytes"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise StateFormatError("does not begin with the line that every state file has") from None
    if type(number) is not int or type(length) is not int:
        raise StateFormatError("has a damaged first line")
    if length != len(body):
        raise StateFormatError(f"is damaged: {len(body)} bytes follow its first line, which announces {length}")
    if _header(number, body) != line + end:
        raise StateFormatError("is damaged: its checksum does not fit")
    if number != FORMAT:
        raise StateFormatError(
            f"was written by another version of bgproxy (format {number}; this version reads and writes format {FORMAT}): "
            "start that version, or a later one"
        )
    try:
        return from_json(body.decode(errors="surrogatepass"))
    except StateFormatError as error:
        raise StateFormatError(f"has a good checksum, but {error}") from None
    except UnicodeDecodeError:
        raise StateFormatError("has a good checksum, but is not UTF-8") from None


def describe(state: State) -> str:
    """What it says, in a few words for an operator who has to decide."""
    told = [_describe(name, record) for name, record in list(state.services.items())[:_TOLD]]
    if len(state.services) > _TOLD:
        told.append(f"and {len(state.services) - _TOLD} services more")
    return f"generation {state.generation}; " + ("; ".join(told) or "no services")


def _describe(name: str, record: ServiceRecord) -> str:
    since = f" since {rfc3339(record.switched_at)}" if record.switched_at is not None else ""
    return f"{name}: {POOLS[record.live]} is live{since}"


def _header(number: int, body: bytes) -> bytes:
    digest = sha256(b"%d\n" % number + body).hexdigest()
    return b'{"bgproxy_state": %d, "bytes": %d, "sha256": "%b"}\n' % (number, len(body), digest.encode())
