"""What a connection remembers of its heads never changes what a head means."""

from __future__ import annotations

import asyncio
import functools
import random

import pytest
from support.judged import judged, new_heads

from bgproxy.proxy.context import Context
from bgproxy.proxy.heads import Listener, RequestHeads
from bgproxy.switchboard.board import Switchboard

BROWSER = (
    b"Host: shop.example\r\nUser-Agent: Firefox\r\nAccept: */*\r\nReferer: http://shop.example/1\r\n"
    b"Cookie: a=b\r\ntraceparent: 00-1\r\nConnection: keep-alive\r\n\r\n"
)


@functools.cache
def context() -> Context:
    """A worker's, which these tests do not change."""
    found = Context(asyncio.new_event_loop(), Switchboard(1), 0, 1)
    found.loop.close()
    found.short_head = 16384
    return found


def heads(*, peer: str = "192.0.2.7", trusted: bool = False) -> RequestHeads:
    """A connection's heads, without a connection."""
    return new_heads(context(), peer=peer, trusted=trusted)


def test_a_head_goes_on_with_what_we_add():
    """Who the client is, how it came, the request's id; Connection is ours (product.md section 5)."""
    connection = heads()
    connection.judge(b"GET /a?b HTTP/1.1\r\n" + BROWSER, 17, len(BROWSER) + 15)
    assert connection.head() == (
        b"GET /a?b HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: Firefox\r\nAccept: */*\r\n"
        b"Referer: http://shop.example/1\r\nCookie: a=b\r\ntraceparent: 00-1\r\n"
        b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: shop.example\r\n"
        b"X-Forwarded-Port: 8080\r\nVia: 1.1 %b\r\nX-Request-ID: id-1\r\n\r\n" % context().pseudonym
    )


def test_the_same_block_is_met_again_with_another_request_line():
    """One comparison, and the line alone is judged."""
    connection = heads()
    first = judged(connection, b"GET /1 HTTP/1.1\r\n" + BROWSER)
    assert connection.meet_again(b"HEAD /2 HTTP/1.1\r\n" + BROWSER)
    assert (connection.method, connection.target, connection.head_only) == (b"HEAD", b"/2", True)
    connection.number = 1
    assert connection.head() == first.head.replace(b"GET /1 ", b"HEAD /2 ")


@pytest.mark.parametrize(
    "line",
    [
        b"GET /\x00 HTTP/1.1\r\n",
        b"GET  / HTTP/1.1\r\n",
        b"GET / HTTP/1.0\r\n",
        b"GET / HTTP/1.1 \r\n",
        b"GET / HTTP/1.1\n",
        b"GET /\r\n\r\nGET / HTTP/1.1\r\n",
        b"G\rT / HTTP/1.1\r\n",
        b"GET http://a/ HTTP/1.1\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"\r\nGET / HTTP/1.1\r\n",
        b"GET /#a HTTP/1.1\r\n",
        b" / HTTP/1.1\r\n",
        b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n",
    ],
)
def test_no_other_request_line_passes_with_a_block_that_is_known(line):
    """Whatever is unusual about it is for the full judgement."""
    connection = heads()
    judged(connection, b"GET / HTTP/1.1\r\n" + BROWSER)
    assert not connection.meet_again(line + BROWSER)


def test_two_requests_in_one_piece_are_not_met_as_one():
    """The second ends with the known block, and so does the piece."""
    connection = heads()
    short = b"Host:a\r\n\r\n"
    judged(connection, b"GET / HTTP/1.1\r\n" + short)
    assert connection.meet_again(b"GET / HTTP/1.1\r\n" + short)
    assert not connection.meet_again(b"GET / HTTP/1.1\r\n" + short + b"GET / HTTP/1.1\r\n" + short)


def test_values_that_nobody_looks_at_may_change():
    """A trace id, a referer: the rest of what was decided holds, and the new values go on."""
    connection = heads()
    judged(connection, b"GET / HTTP/1.1\r\n" + BROWSER)
    known = connection.fields
    other = BROWSER.replace(b"00-1", b"00-22").replace(b"example/1", b"example/2")
    assert connection.meet_again(b"GET / HTTP/1.1\r\n" + other)
    assert connection.fields is known
    assert b"traceparent: 00-22\r\n" in connection.head()
    assert b"example/2\r\n" in connection.head()
    assert b"00-1" not in connection.head()


def test_a_refused_block_leaves_nothing_to_be_met():
    """Its bytes must not be taken for those that were judged before it."""
    connection = heads()
    judged(connection, b"GET / HTTP/1.1\r\n" + BROWSER)
    bad = BROWSER.replace(b"00-1", b"0\x001")
    assert judged(connection, b"GET / HTTP/1.1\r\n" + bad) == 400
    assert not connection.meet_again(b"GET / HTTP/1.1\r\n" + bad)
    assert judged(connection, b"GET / HTTP/1.1\r\n" + bad) == 400


def test_what_was_decided_by_an_old_table_is_not_met_again():
    """A service that asks for another header makes every block another matter."""
    connection = heads()
    judged(connection, b"GET / HTTP/1.1\r\n" + BROWSER)
    connection.forget()
    known = connection.fields
    assert not connection.meet_again(b"GET / HTTP/1.1\r\n" + BROWSER)
    judged(connection, b"GET / HTTP/1.1\r\n" + BROWSER)
    assert connection.fields is not known


def test_a_connection_may_begin_with_what_another_knew():
    """Its heads go on with its own ids, and as if it had judged them itself."""
    first, second = heads(), heads()
    second.id_prefix = b"other-"
    judged(first, b"GET / HTTP/1.1\r\n" + BROWSER)
    second.learn_from(first)
    assert second.meet_again(b"GET / HTTP/1.1\r\n" + BROWSER)
    assert b"X-Request-ID: other-1\r\n" in second.head()
    assert b"X-Forwarded-For: 192.0.2.7\r\n" in second.head()


LINES = [
    *(b"Host: a", b"Host: b.example:80", b"Host: a b", b"Accept: */*", b"Accept: text/html", b"User-Agent: x"),
    *(b"User-Agent: y", b"Cookie: a=b", b"Cookie: c=d", b"X-Trace: 1", b"X-Trace: 22", b"x-trace: 3", b"X-Trace : 3"),
    *(b"Connection: close", b"Connection: keep-alive", b"Connection: x-trace", b"Connection: upgrade", b"Upgrade: x"),
    *(b"Content-Length: 5", b"Content-Length: 6", b"Transfer-Encoding: chunked", b"X-Forwarded-For: 1.2.3.4"),
    *(b"X-Forwarded-For: 5.6.7.8", b"X-Request-ID: r1", b"X-Request-ID: r2", b"Expect: 100-continue", b"TE: trailers"),
    *(b"X-Trace: \x00", b"X-Trace: a\rb", b"X-Trace", b"X_Forwarded_For: 1", b"Max-Forwards: 3", b"Via: 1.1 x"),
    *(b"Max-Forwards: 0", b"Authorization: x"),
]
REQUEST_LINES = [
    *(b"GET / HTTP/1.1", b"GET /a HTTP/1.1", b"POST / HTTP/1.1", b"GET / HTTP/1.0", b"OPTIONS * HTTP/1.1"),
    *(b"TRACE / HTTP/1.1", b"OPTIONS / HTTP/1.1"),
    *(b"GET http://c.example/x HTTP/1.1", b"BREW / HTTP/1.1", b"GET /\x01 HTTP/1.1"),
]


@pytest.mark.parametrize("trusted", [False, True])
def test_a_long_memory_and_none_decide_alike(trusted):
    """However heads follow upon each other on a connection, each becomes what it becomes on a new one."""
    chance = random.Random(20)
    connection = heads(trusted=trusted)
    block = [b"Host: a"]
    seen: set[object] = set()
    for _ in range(6000):
        # Mostly a small change of the block before, at times none, at times all of it.
        what = chance.random()
        if what < 0.55:
            block = block.copy()
            block[chance.randrange(len(block))] = chance.choice(LINES)
        elif what < 0.65:
            block = [*block, chance.choice(LINES)]
        elif what < 0.75:
            block = [b"Host: a", *chance.sample(LINES, chance.randrange(5))]
        line = REQUEST_LINES[0] if chance.random() < 0.7 else chance.choice(REQUEST_LINES)
        data = line + b"\r\n" + b"".join(each + b"\r\n" for each in block) + b"\r\n"
        found = judged(connection, data)
        assert found == judged(heads(trusted=trusted), data), data
        seen.add(found)
        if isinstance(found, int):  # such a connection is closed; its memory may live on in the next one
            after = heads(trusted=trusted)
            if not trusted:
                after.learn_from(connection)
            connection = after
    assert len(seen) > 500


@pytest.mark.parametrize("trusted", [False, True])
def test_over_tls_the_upstream_is_told_so(trusted):
    """X-Forwarded-Proto is the listener's, unless a trusted proxy says otherwise."""
    connection = RequestHeads(context(), Listener(8443, unix=False, tls=True))
    connection.peer, connection.trusted, connection.id_prefix = "192.0.2.7", trusted, b"id-"
    connection.judge(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 14, 23)
    assert b"\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a\r\nX-Forwarded-Port: 8443\r\n" in connection.head()
