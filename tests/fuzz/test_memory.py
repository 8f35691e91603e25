"""The memory of heads, with heads that are nearly right: it never changes what a head means (see tests/proxy/test_heads.py)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.judged import judged, new_heads
from support.judging import plane
from support.nearly import requests, spoilt

#: Heads that are alike to a careless memory, and those that are refused after something of them was decided.
TELLING = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET http://b/ HTTP/1.0\r\n\r\n",
    b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nConnection: x-a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX-A: 22\r\nConnection: x-a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX-A: 22\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX-A: \x01\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent: 5\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"OPTIONS / HTTP/1.1\r\nHost: b\r\nMax-Forwards: 0\r\n\r\n",
    b"OPTIONS / HTTP/1.1\r\nHost: b\r\nMax-Forwards: 1\r\n\r\n",
    b"OPTIONS / HTTP/1.1\r\nHost: b\r\nMax-Forwards: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: b\r\nMax-Forwards: 0\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nHost: a\r\nCookie: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nCookie: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6\r\nX-Request-ID: r\r\n\r\n",
]


def new(*, trusted):
    return new_heads(plane().context, trusted=trusted)


def test_heads_that_are_nearly_alike_in_any_order():
    """Each after every two others, on the same connection or on one that begins with its memory, as it is alone."""
    alone = [judged(new(trusted=False), head) for head in TELLING]
    for first in TELLING:
        for second in TELLING:
            for head, expected in zip(TELLING, alone, strict=True):
                connection = new(trusted=False)
                judged(connection, first)
                judged(connection, second)
                successor = new(trusted=False)
                successor.learn_from(connection)
                assert judged(successor, head) == expected, (first, second, head)
                assert judged(connection, head) == expected, (first, second, head)


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
        alone = judged(new(trusted=trusted), data)
        successor = new(trusted=trusted)
        if not trusted:
            successor.learn_from(connection)
        assert judged(successor, data) == alone
        assert judged(connection, data) == alone
