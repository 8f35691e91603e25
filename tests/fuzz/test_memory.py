"""The memory of heads, with heads that are nearly right: it never changes what a head means (see tests/proxy/test_heads.py)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.judging import plane
from support.nearly import requests, spoilt

from bgproxy.http1.errors import BadRequest
from bgproxy.proxy.heads import Listener, RequestHeads

LISTENER = Listener(8080, unix=False)


def new(*, trusted):
    found = RequestHeads(plane().context, LISTENER)
    found.peer = "192.0.2.7"
    found.trusted = trusted
    found.id_prefix = b"id-"
    return found


def take(heads, data):
    """What becomes of a whole head: what goes on and what was decided; or the status that refuses it."""
    heads.number = 0
    try:
        if not heads.meet_again(data):
            heads.judge(data, data.find(b"\r\n"), data.find(b"\r\n\r\n"))
    except BadRequest as error:
        return error.status
    fields = heads.fields
    decided = (
        fields.minor,
        fields.hostname,
        fields.length,
        fields.bodied,
        fields.chunked,
        fields.close,
        fields.upgrade,
    )
    said = (fields.cookies, fields.extra, fields.forwarding, fields.request_id, fields.expect, fields.max_forwards)
    return heads.head(), heads.method, heads.target, heads.head_only, heads.request_id(), decided, said


def head_of(data):
    """Of a request's bytes the head, if there is one that a connection would judge."""
    end = data.find(b"\r\n\r\n")
    return data[: end + 4] if end > 0 and not data.startswith(b"\r\n") else b""


@st.composite
def heads_in_a_row(draw):
    """Each the one before it with a change, or another."""
    sound = requests()
    data = draw(sound)
    row = [data]
    for _ in range(draw(st.integers(1, 5))):
        what = draw(st.integers(0, 5))
        if what <= 2:
            data = draw(spoilt(st.just(data)))
        elif what == 3:
            data = draw(sound)
        row.append(data)
    return [head for head in map(head_of, row) if head]


@given(row=heads_in_a_row(), trusted=st.booleans())
def test_a_head_means_the_same_after_any_others(row, trusted):
    """On a connection with a memory, on one that began with that of another, and on one without."""
    connection = new(trusted=trusted)
    for data in row:
        alone = take(new(trusted=trusted), data)
        successor = new(trusted=trusted)
        if not trusted:
            successor.learn_from(connection)
        assert take(successor, data) == alone
        assert take(connection, data) == alone
