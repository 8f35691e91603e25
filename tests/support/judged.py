"""A judged head: all that becomes of it, so that two ways to the same head can be compared.

What a connection remembers of heads must never change what one of them means (`bgproxy.proxy.heads`); this is the one place
that says what a head means.
"""

from __future__ import annotations

from typing import NamedTuple

from bgproxy.http1.errors import BadRequest
from bgproxy.proxy.context import Context
from bgproxy.proxy.heads import Listener, RequestHeads

LISTENER = Listener(8080, unix=False)


class Judged(NamedTuple):
    """What goes on to the upstream, and everything that was decided."""

    head: bytes
    method: bytes
    target: bytes
    head_only: bool
    request_id: bytes
    minor: int
    hostname: bytes
    length: int
    bodied: bool
    chunked: bool
    close: bool
    upgrade: bytes
    cookies: bytes
    extra: dict[bytes, bytes] | None
    forwarding: tuple[tuple[bytes, bytes], ...]
    named: bytes  # the request id as sent
    expect: bool
    max_forwards: int


def new_heads(context: Context, *, peer: str = "192.0.2.7", trusted: bool = False) -> RequestHeads:
    """A connection's heads, without a connection."""
    found = RequestHeads(context, LISTENER)
    found.peer = peer
    found.trusted = trusted
    found.id_prefix = b"id-"
    return found


def judged(heads: RequestHeads, data: bytes) -> Judged | int:
    """What becomes of a whole head, as if it were the first of its connection; or the status that refuses it."""
    heads.number = 0
    try:
        if not heads.meet_again(data):
            heads.judge(data, data.find(b"\r\n"), data.find(b"\r\n\r\n"))
    except BadRequest as error:  # at times what is no mistake: LastHop
        return error.status
    assert heads.number == 1
    fields = heads.fields
    return Judged(
        heads.head(),
        heads.method,
        heads.target,
        heads.head_only,
        heads.request_id(),
        fields.minor,
        fields.hostname,
        fields.length,
        fields.bodied,
        fields.chunked,
        fields.close,
        fields.upgrade,
        fields.cookies,
        fields.extra,
        fields.forwarding,
        fields.request_id,
        fields.expect,
        fields.max_forwards,
    )
