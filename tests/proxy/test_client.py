"""What a client gets: answers in order, its own errors, and the headers that the upstream is told of it."""

from __future__ import annotations

import asyncio
from itertools import product

import pytest
from support.dataplane import OK, DataPlane, get, until
from support.loopless import Plane

from bgproxy.config import schema
from bgproxy.proxy.client import ClientConnection
from bgproxy.proxy.client_state import HEAD, IDLE, LINGERING


async def test_a_request_is_forwarded_and_answered() -> None:
    """A GET goes to the live pool, byte for byte, with the forwarding headers; its answer comes back untouched."""
    async with DataPlane() as plane:
        blue = await plane.upstream(OK)
        await plane.serve(blue)
        answer = await plane.ask(get("/a%20b?c=//d", "X-Odd:  \tkept \xe9"))
        assert answer.raw + answer.body == OK
        head = blue.heads[0]
        assert head.startswith(b"GET /a%20b?c=//d HTTP/1.1\r\nHost: shop.test\r\nX-Odd:  \tkept \xe9\r\n")
        assert b"\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: shop.test\r\n" in head
        ours = b"\r\nX-Forwarded-Port: %d\r\nVia: 1.1 %b\r\nX-Request-ID: "
        assert ours % (plane.port, plane.board.pseudonym) in head


async def test_connections_are_kept_on_both_sides() -> None:
    """Ten requests over one client connection use one upstream connection; every request id is another."""
    async with DataPlane() as plane:
        blue = await plane.upstream(OK)
        await plane.serve(blue)
        wire = await plane.connect()
        for _ in range(10):
            wire.send(get())
            assert (await wire.response()).body == b"ok"
        assert blue.connections == 1
        assert len({head.rpartition(b"X-Request-ID: ")[2] for head in blue.heads}) == 10
        wire.close()


async def test_hop_by_hop_headers_are_removed() -> None:
    """What Connection names and what is hop-by-hop does not go on; what it may not name does."""
    async with DataPlane() as plane:
        blue = await plane.upstream(OK)
        await plane.serve(blue)
        await plane.ask(
            get("/", "Connection: keep-alive, X-Mine, Cookie", "X-Mine: 1", "Cookie: a=b", "Keep-Alive: 5", "TE: gzip")
        )
        head = blue.heads[0].lower()
        assert b"x-mine" not in head
        assert b"keep-alive" not in head
        assert b"\nte:" not in head
        assert b"connection" not in head
        assert b"cookie: a=b" in head


@pytest.mark.parametrize(
    ("trusted", "expected"),
    [((), b"X-Forwarded-For: 127.0.0.1\r\n"), (("127.0.0.0/8",), b"X-Forwarded-For: 1.2.3.4, 127.0.0.1\r\n")],
)
async def test_forwarding_headers_are_replaced_unless_the_peer_is_trusted(
    trusted: tuple[str, ...], expected: bytes
) -> None:
    """An untrusted peer's X-Forwarded-For is replaced, a trusted one's is appended to; aliases are dropped."""
    async with DataPlane(trusted_proxies=trusted) as plane:
        blue = await plane.upstream(OK)
        await plane.serve(blue)
        await plane.ask(
            get("/", "X-Forwarded-For: 1.2.3.4", "X_Forwarded_For: 6.6.6.6", "X-Real-IP: 9.9.9.9", "X-Request-ID: mine")
        )
        head = blue.heads[0]
        assert expected in head
        assert head.lower().count(b"forwarded-for") == 1
        assert b"6.6.6.6" not in head
        assert (b"9.9.9.9" in head) == bool(trusted)
        assert (b"X-Request-ID: mine\r\n" in head) == bool(trusted)


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Requests sent ahead are taken up one after the other; a bad one is refused after the good ones are answered."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            target = (await reader.readuntil(b"\r\n\r\n")).split()[1]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target))

    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(echo))
        wire = await plane.connect()
        wire.send(b"".join(get(f"/{number}") for number in range(200)) + b"BAD\r\n\r\n")
        for number in range(200):
            assert (await wire.response()).body == b"/%d" % number
        refused = await wire.response()
        assert refused.status == 400
        assert refused.get("connection") == "close"
        assert await wire.ended() == b""


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501),
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\n\r\n", 417),
    ],
)
async def test_what_is_malformed_is_refused_and_the_connection_ends(data: bytes, status: int) -> None:
    """A malformed request gets its status, a body that says why, Proxy-Status, and a connection that closes."""
    async with DataPlane() as plane:
        blue = await plane.upstream(OK)
        await plane.serve(blue)
        wire = await plane.connect()
        wire.send(data)
        answer = await wire.response()
        assert answer.status == status
        assert answer.get("connection") == "close"
        assert answer.get("proxy-status").startswith("bgproxy; error=")
        assert answer.get("x-request-id")
        assert str(status).encode() in answer.body
        assert await wire.ended() == b""
        assert blue.heads == []
        wire.close()


async def test_a_half_closed_client_still_gets_its_answer() -> None:
    """A client that has sent its request and its FIN reads the whole answer (RFC 9112 section 9.6)."""
    gate = asyncio.Event()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await gate.wait()
        writer.write(OK)

    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(late))
        wire = await plane.connect()
        wire.send(get())
        wire.writer.write_eof()
        await until(lambda: plane.clients[0].eof)
        gate.set()
        assert (await wire.response()).body == b"ok"
        assert await wire.ended() == b""


async def test_http_1_0_clients_get_what_they_understand() -> None:
    """A 1.0 client gets no chunks and a closed connection, or a kept one where it asked and the length is known."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    async with DataPlane() as plane:
        blue = await plane.upstream(chunked)
        await plane.serve(blue)
        answer = await plane.ask(get(version="HTTP/1.0"))
        assert answer.closed
        assert answer.body == b"abcde"
        assert blue.heads[0].startswith(b"GET / HTTP/1.1\r\n")
        await plane.serve(await plane.upstream(OK))
        wire = await plane.connect()
        wire.send(get("/", "Connection: keep-alive", version="HTTP/1.0"))
        answer = await wire.response()
        assert answer.get("connection") == "keep-alive"
        wire.send(get(version="HTTP/1.0"))
        answer = await wire.response()
        assert answer.get("connection") == "close"
        assert await wire.ended() == b""


async def test_absolute_form_names_the_host() -> None:
    """The authority of a URL in the request line replaces Host, for routing and for the upstream."""
    async with DataPlane() as plane:
        blue = await plane.upstream(OK)
        await plane.serve(blue, hosts=("shop.test",))
        answer = await plane.ask(b"GET http://shop.test/x?y HTTP/1.1\r\nHost: other\r\n\r\n")
        assert answer.status == 200
        assert blue.heads[0].startswith(b"GET /x?y HTTP/1.1\r\nHost: shop.test\r\n")
        assert b"other" not in blue.heads[0]


async def test_options_asterisk_is_forwarded() -> None:
    """`OPTIONS *` goes on as it is (RFC 9112 section 3.2.4)."""
    async with DataPlane() as plane:
        blue = await plane.upstream(OK)
        await plane.serve(blue)
        assert (await plane.ask(get("*", method="OPTIONS"))).status == 200
        assert blue.heads[0].startswith(b"OPTIONS * HTTP/1.1\r\n")


async def test_a_changed_header_is_judged_anew() -> None:
    """The memory of the last head holds for equal bytes alone: another header goes on, another host goes elsewhere."""
    async with DataPlane() as plane:
        blue = await plane.upstream(OK)
        await plane.serve(blue, hosts=("shop.test",))
        wire = await plane.connect()
        for extra, status in (("A: 1", 200), ("A: 1", 200), ("A: 2", 200)):
            wire.send(get("/", extra))
            assert (await wire.response()).status == status
        wire.send(b"GET / HTTP/1.1\r\nHost: elsewhere\r\nA: 2\r\n\r\n")
        assert (await wire.response()).status == 404
        assert [b"A: 1\r\n" in head for head in blue.heads] == [True, True, False]
        wire.close()


async def test_counts_add_up() -> None:
    """After its answers nothing is in flight, and every request is counted under its code."""
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(OK))
        for _ in range(3):
            await plane.ask(get())
        await until(lambda: not plane.context.clients)
        assert plane.blue.in_flight == [0, 0, 0]
        assert sum(plane.blue.codes) == 3
        assert sum(plane.blue.buckets) == 3
        assert plane.blue.upstreams[0].in_flight == 0
        assert plane.blue.unsafe == 0


async def test_any_split_of_the_bytes_gives_the_same() -> None:
    """However the bytes of two requests are split, both arrive alike."""
    data = get("/1", "Content-Length: 4", method="PUT") + b"body" + get("/2")

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(4) if b"Content-Length" in head else b""
            seen.append((head.split(b"\r\n")[0], body))
            writer.write(OK)

    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(script))
        for cut in range(1, len(data)):
            seen: list[tuple[bytes, bytes]] = []
            wire = await plane.connect()
            wire.send(data[:cut])
            await asyncio.sleep(0)
            wire.send(data[cut:])
            assert (await wire.response()).status == 200
            assert (await wire.response()).status == 200
            assert seen == [(b"PUT /1 HTTP/1.1", b"body"), (b"GET /2 HTTP/1.1", b"")]
            wire.close()


async def test_a_kept_connection_sees_a_new_preview_header() -> None:
    """A header that a service has begun to ask for counts for requests over connections that were there before."""
    async with DataPlane() as plane:
        blue = await plane.upstream(OK)
        green = await plane.upstream(OK)
        spec = await plane.serve(blue, green)
        wire = await plane.connect()
        for header in ("X-BGProxy-Pool", "X-New"):
            spec = plane.change(spec, preview=schema.Preview(header=header))
            wire.send(get("/", "X-New: green"))
            assert (await wire.response()).status == 200
        assert (len(blue.heads), len(green.heads)) == (1, 1)


async def test_empty_lines_between_requests_are_ignored() -> None:
    """One or two empty lines before a request are passed over (RFC 9112 section 2.2), three are refused."""
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(OK))
        wire = await plane.connect()
        wire.send(get() + b"\r\n" + get() + b"\r\n\r\n" + get() + b"\r\n\r\n\r\n" + get())
        assert [(await wire.response()).status for _ in range(4)] == [200, 200, 200, 400]


async def test_an_empty_line_is_no_request() -> None:
    """After an empty line a connection is as idle as before: it is closed without a word, not with 408."""
    async with DataPlane(timeouts=schema.Timeouts(header=0.1, client_idle=0.3)) as plane:
        await plane.serve(await plane.upstream(OK))
        wire = await plane.connect()
        wire.send(get())
        await wire.response()
        wire.send(b"\r\n")
        assert await wire.ended() == b""


async def test_an_empty_line_in_two_pieces_is_no_request() -> None:
    """Its CR and its LF come apart: the connection is as idle as if they had come together, and for no longer."""
    async with DataPlane(timeouts=schema.Timeouts(header=0.1, client_idle=0.4)) as plane:
        await plane.serve(await plane.upstream(OK))
        wire = await plane.connect()
        wire.send(get())
        await wire.response()
        (client,) = plane.clients
        deadline = client.deadline
        wire.send(b"\r")
        await until(lambda: client.state == HEAD)
        assert 0.0 < client.deadline < deadline
        wire.send(b"\n")
        await until(lambda: client.state == IDLE)
        assert client.deadline == deadline
        assert await wire.ended() == b""


@pytest.mark.parametrize(("lines", "state"), [(1, IDLE), (2, IDLE), (3, LINGERING)])
def test_empty_lines_mean_the_same_in_any_pieces(lines: int, state: int) -> None:
    """However they are cut, whole ones leave a connection as idle as it was; one too many is refused, once it is whole."""
    text = b"\r\n" * lines
    plane = Plane()
    for ends in product((False, True), repeat=len(text) - 1):
        plane.begin(lambda *_: pytest.fail("nobody asked for anything"), 0)
        wire = plane.client()
        client = wire.protocol
        deadline = client.deadline
        plane.context.now += 1.0
        start = 0
        for end in (*(place for place, is_end in enumerate(ends, 1) if is_end), len(text)):
            assert client.state == (HEAD if start % 2 else IDLE), ends
            client.data_received(text[start:end])
            start = end
        assert client.state == state, ends
        assert (client.deadline == deadline) == (state == IDLE)
        assert wire.got.startswith(b"HTTP/1.1 400 ") == (state == LINGERING)


async def test_a_cr_alone_is_the_beginning_of_a_head() -> None:
    """It has the time of one, and with something else behind it, it is none."""
    async with DataPlane(timeouts=schema.Timeouts(header=0.1)) as plane:
        await plane.serve(await plane.upstream(OK))
        wire = await plane.connect()
        wire.send(b"\r")
        assert (await wire.response()).status == 408
        wire = await plane.connect()
        wire.send(b"\r")
        wire.send(get())
        assert (await wire.response()).status == 400


async def test_options_of_a_url_without_a_path_is_for_the_server() -> None:
    """`OPTIONS http://host` goes on as `OPTIONS *` (RFC 9112 section 3.2.4)."""
    async with DataPlane() as plane:
        blue = await plane.upstream(OK)
        await plane.serve(blue)
        await plane.ask(get("http://shop.test", method="OPTIONS"))
        await plane.ask(get("http://shop.test/", method="OPTIONS"))
        await plane.ask(get("http://shop.test"))
        assert [head.split(b"\r\n")[0] for head in blue.heads] == [
            b"OPTIONS * HTTP/1.1",
            b"OPTIONS / HTTP/1.1",
            b"GET / HTTP/1.1",
        ]


async def test_a_request_without_a_host_gets_one() -> None:
    """HTTP/1.0 without Host is served by the service for any host, and goes on with a Host, as HTTP/1.1 has to."""
    async with DataPlane() as plane:
        blue = await plane.upstream(OK)
        await plane.serve(blue)
        assert (await plane.ask(b"GET / HTTP/1.0\r\n\r\n")).status == 200
        assert b"Host: localhost\r\n" in blue.heads[0]


async def test_the_next_connection_of_an_address_begins_with_what_the_last_knew() -> None:
    """Its requests have their own ids, and are judged anew once a service asks for another header."""
    async with DataPlane() as plane:
        blue = await plane.upstream(OK)
        green = await plane.upstream(OK)
        spec = await plane.serve(blue, green)
        for _ in range(3):
            await plane.ask(get("/", "X-Mine: green"))
            await until(lambda: not plane.context.clients)
        recent = plane.context.recent["127.0.0.1"]
        assert len({id(client.fields) for client in plane.clients}) == 1
        assert len({head.rpartition(b"X-Request-ID: ")[2] for head in blue.heads}) == 3
        plane.change(spec, preview=schema.Preview(header="X-Mine"))
        assert plane.context.recent == {}
        await plane.ask(get("/", "X-Mine: green"))
        await until(lambda: bool(plane.context.recent))
        assert plane.context.recent["127.0.0.1"].fields is not recent.fields
        assert len(green.heads) == 1


async def test_the_memory_of_addresses_is_bounded() -> None:
    """Long heads are not kept, and no more addresses than a fixed number."""
    async with DataPlane() as plane:
        blue = await plane.upstream(OK)
        await plane.serve(blue)
        await plane.ask(get("/", "X-Long: " + "x" * 4096))
        await until(lambda: not plane.context.clients)
        assert plane.context.recent == {}
        await plane.ask(get())
        await until(lambda: not plane.context.clients)
        (client,) = plane.context.recent.values()
        for number in range(1000):
            client.peer = f"192.0.2.{number}"
            plane.context.keep_recent(client)
            assert len(plane.context.recent) <= 256


async def test_requests_wait_while_the_answers_to_those_before_are_unread() -> None:
    """Requests that we answer ourselves cost an upstream nothing, and memory only as much as the client leaves unread."""
    count = 20000
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(OK), hosts=("shop.test",))
        wire = await plane.connect()
        wire.writer.transport.pause_reading()
        wire.send(b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n" * count + get())
        (client,) = plane.clients
        await until(lambda: client.write_paused and not client.transport.is_reading())
        waiting = client.transport.get_write_buffer_size()
        assert client.number < count
        for _ in range(20):
            await asyncio.sleep(0.005)  # what might come must not
        assert client.transport.get_write_buffer_size() == waiting
        wire.writer.transport.resume_reading()
        for _ in range(count):
            assert (await wire.response()).status == 404
        assert (await wire.response()).status == 200
        assert not client.write_paused
        assert client.transport.is_reading()


async def test_an_upstream_is_not_asked_for_a_client_that_does_not_read() -> None:
    """The next request of a client with an unread answer waits here, so that no upstream is blamed for its silence."""
    count = 200
    body = bytes(60000)
    async with DataPlane(timeouts=schema.Timeouts(response=0.1)) as plane:
        await plane.serve(await plane.upstream(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)))
        wire = await plane.connect()
        wire.writer.transport.pause_reading()
        wire.send(get() * count)
        (client,) = plane.clients
        await until(lambda: client.write_paused)
        await asyncio.sleep(0.3)  # more than `response`: nobody must be waited for
        assert client.number < count
        assert plane.failures == []
        wire.writer.transport.resume_reading()
        for _ in range(count):
            assert (await wire.response()).body == body
        assert plane.failures == []


async def test_requests_ahead_of_a_half_close_are_all_answered() -> None:
    """What a client had sent before it ended its side is served; the last answer says that the connection closes."""
    async with DataPlane() as plane:
        blue = await plane.upstream(OK)
        await plane.serve(blue, hosts=("shop.test",))
        wire = await plane.connect()
        wire.send(get("/1") + get("/2") + b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n" + get("/3"))
        wire.writer.write_eof()
        answers = [await wire.response() for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 404, 200]
        assert [answer.get("connection") for answer in answers] == [None, None, None, "close"]
        assert await wire.ended() == b""
        assert len(blue.heads) == 3


@pytest.mark.parametrize(
    "half", [b"GET / HT", b"\r\n", get("/", "Content-Length: 5", method="PUT") + b"ab"], ids=["head", "line", "body"]
)
async def test_what_a_half_close_leaves_incomplete_ends_the_connection(half: bytes) -> None:
    """The requests before it are answered; what can never become whole is not waited for."""
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(OK))
        wire = await plane.connect()
        wire.send(get() + half)
        wire.writer.write_eof()
        assert (await wire.response()).status == 200
        assert await wire.ended() == b""
        await until(lambda: not plane.context.clients)
        assert plane.blue.in_flight == [0, 0, 0]


async def test_who_was_turned_away_leaves_no_memory_behind() -> None:
    """A connection that no reload reaches any more must not hand on what was decided before the reload."""
    async with DataPlane(limits=schema.Limits(connections=2)) as plane:
        await plane.serve(await plane.upstream(OK))
        first = await plane.connect()
        first.send(get())
        assert (await first.response()).status == 200
        first.close()
        await until(lambda: "127.0.0.1" in plane.context.recent)
        learned = ClientConnection(plane.context, plane.listener)
        learned.peer = "127.0.0.1"
        learned.learn_from(plane.context.recent["127.0.0.1"])
        plane.context.remove_names(frozenset({b"x-gone"}))
        learned.connection_lost(None)
        assert not plane.context.recent
