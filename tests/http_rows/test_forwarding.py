"""http.md rows 38 to 44: what is for one hop, who may say who a client is, and how far a request may go."""

from __future__ import annotations

from support.dataplane import DataPlane, get
from support.witness import DATED, Witness, before, front, own_answer, request

from bgproxy.config import schema

#: What Connection may name in vain (CVE-2024-45410).
KEPT = (
    b"Cookie: a=b",
    b"Authorization: Basic x",
    b"Content-Type: text/x",
    b"Cache-Control: no-cache",
    b"Via: 1.1 other",
)
OURS = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"x-request-id", b"via")
TRACE = b"TRACE /a HTTP/1.1"
OPTIONS = b"OPTIONS /a HTTP/1.1"


async def test_row_38_hop_by_hop_fields_end_here() -> None:
    """What Connection names, and what is known to be for one connection: in requests, and in responses."""
    hops = (
        *(b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive", b"TE: trailers", b"Upgrade: x", b"X-Mine: 1"),
        *(b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA", b"x-mine: 2", b"X-Yours: 3"),
    )
    async with front() as shop:
        sent = await shop.forwarded(request(b"Connection: X-Mine,, keep-alive", b"connection: x-yours", *hops, b"X: y"))
        assert [name for name, _ in sent.fields if name.lower() not in OURS] == [b"Host", b"X"]
    lines = (b"Connection: x-mine", *hops, b"connection: X-Yours", b"X: y", b"Content-Length: 2", b"", b"ok")
    async with before(DATED + b"\r\n".join(lines)) as plane:
        answer = await plane.ask(get())
        assert [name for name, _ in answer.headers] == ["date", "x", "content-length"]
        assert answer.body == b"ok"


async def test_row_39_connection_cannot_take_away_what_is_decided_by() -> None:
    """Host, framing, cookies, authorization, what we say of the client: all of it arrives."""
    named = b", ".join(
        [b"host", b"content-length", b"cookie", b"authorization", b"content-type", b"cache-control", *OURS]
    )
    async with front() as shop:
        data = request(b"Connection: " + named, *KEPT, b"Content-Length: 2", line=b"POST / HTTP/1.1", body=b"ok")
        sent = await shop.forwarded(data)
        names = [name.lower() for name, _ in sent.fields]
        assert {b"host", b"content-length", b"cookie", b"authorization", b"content-type", *OURS} <= set(names)
        assert (sent.body, sent.all(b"x-forwarded-for")) == (b"ok", [b"127.0.0.1"])
        lines = (b"Connection: transfer-encoding", b"Transfer-Encoding: chunked")
        sent = await shop.forwarded(request(*lines, line=b"POST / HTTP/1.1", body=b"2\r\nok\r\n0\r\n\r\n"))
        assert (sent.all(b"transfer-encoding"), sent.body) == ([b"chunked"], b"ok")
    lines = (b"Connection: content-length, set-cookie, date", b"Set-Cookie: a=b", b"Content-Length: 2", b"", b"ok")
    async with before(DATED + b"\r\n".join(lines)) as plane:
        answer = await plane.ask(get())
        assert [name for name, _ in answer.headers] == ["date", "set-cookie", "content-length"]
        assert answer.body == b"ok"


async def test_row_40_te_is_stripped() -> None:
    """`trailers` too: trailers are forwarded without being asked for, and nothing else could be kept."""
    async with front() as shop:
        for value in (b"trailers", b"gzip", b"trailers, deflate;q=0.5", b"chunked"):
            for lines in ((b"TE: " + value,), (b"te: " + value, b"Connection: TE")):
                sent = await shop.forwarded(request(*lines))
                assert sent.all(b"te") == sent.all(b"connection") == []


async def test_row_41_who_the_client_is() -> None:
    """What an untrusted peer says of it is replaced or removed; a trusted one's is kept, and its own address appended."""
    lines = (
        *(b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: evil.test"),
        *(b"X-Forwarded-Port: 443", b"Forwarded: for=1.2.3.4", b"X-Real-IP: 1.2.3.4", b"X-Request-ID: mine"),
        b"x-forwarded-for: 5.6.7.8",
    )
    async with front() as shop:
        sent = await shop.forwarded(request(*lines))
        assert sent.all(b"x-forwarded-for") == [b"127.0.0.1"]
        assert sent.all(b"x-forwarded-proto") == [b"http"]
        assert sent.all(b"x-forwarded-host") == [b"shop.test"]
        assert sent.all(b"x-forwarded-port") == [b"%d" % shop.plane.port]
        assert sent.all(b"forwarded") == sent.all(b"x-real-ip") == []
        assert len(sent.all(b"x-request-id")) == 1
        raw = shop.witness.raw[-1]
        assert not any(word in raw for word in (b"1.2.3.4", b"5.6.7.8", b"evil", b"443", b"mine"))
    async with front(trusted_proxies=("127.0.0.0/8",)) as shop:
        sent = await shop.forwarded(request(*lines))
        assert sent.all(b"x-forwarded-for") == [b"1.2.3.4, 5.6.7.8, 127.0.0.1"]
        assert sent.all(b"x-forwarded-proto") == [b"https"]
        assert sent.all(b"x-forwarded-host") == [b"evil.test"]
        assert sent.all(b"x-forwarded-port") == [b"443"]
        assert sent.all(b"forwarded") == [b"for=1.2.3.4"]
        assert sent.all(b"x-real-ip") == [b"1.2.3.4"]
        assert sent.all(b"x-request-id") == [b"mine"]


async def test_our_own_fields_are_no_clients() -> None:
    """X-BGProxy-*: an upstream may skip side effects for the mark of a mirrored request. The mark of a trusted peer, another bgproxy, is kept."""
    lines = (b"X-BGProxy-Mirror: 1", b"x-bgproxy-pool: blue", b"X-BGProxy-Later: 1", b"X_BGProxy_Mirror: 1")
    async with front() as shop:
        sent = await shop.forwarded(request(*lines))
        assert b"bgproxy" not in shop.witness.raw[-1].lower().replace(b"via: 1.1 bgproxy-", b"")
    async with front(trusted_proxies=("127.0.0.0/8",)) as shop:
        sent = await shop.forwarded(request(*lines))
        assert sent.all(b"x-bgproxy-mirror") == [b"1"]
        assert sent.all(b"x-bgproxy-pool") == sent.all(b"x-bgproxy-later") == sent.all(b"x_bgproxy_mirror") == []


async def test_row_42_via_is_added_and_loops_end() -> None:
    """Each bgproxy has a name of its own in Via; one that meets its own name again answers 508 (Loop Detected)."""
    async with front() as inner, DataPlane() as outer:
        await outer.serve(inner.plane.port)
        names = [plane.context.pseudonym for plane in (outer, inner.plane)]
        assert names[0] != names[1]
        answer = await outer.ask(request(b"Via: 1.0 fred, 1.1 bgproxy (what?)", line=b"GET /a HTTP/1.1"))
        assert (answer.status, answer.body) == (200, b"/a")
        assert inner.witness.last.all(b"via") == [b"1.0 fred, 1.1 bgproxy (what?)", *(b"1.1 " + name for name in names)]
        own = inner.plane.context.pseudonym
        for value in (b"1.1 " + own, b"1.0 fred,1.1\t" + own.upper() + b" (x)", b"HTTP/1.1 %b, 1.1 x" % own):
            refused = await inner.refused(request(b"Via: " + value, b"Content-Length: 5"), 508)
            assert refused.get("proxy-status") == "bgproxy; error=proxy_loop_detected"
        assert inner.plane.failures == []
    async with DataPlane() as plane:  # its only upstream is itself
        await plane.serve(plane.port)
        answer = await plane.ask(get())
        assert answer.status == 508
        assert answer.get("proxy-status") == "bgproxy; error=proxy_loop_detected"
        assert plane.context.accepted == 2
        assert plane.context.pseudonym == plane.board.pseudonym  # the same in all workers


async def test_row_43_max_forwards_counts_trace_and_options() -> None:
    """At 0 they are answered here, else they go on with one less; other methods carry it as it is."""
    async with front() as shop:
        for line in (TRACE, OPTIONS, b"OPTIONS * HTTP/1.1", b"TRACE http://shop.test/a HTTP/1.1"):
            for value, less in ((b"1", b"0"), (b"10", b"9"), (b"007", b"6")):
                sent = await shop.forwarded(request(b"A: b", b"max-Forwards:  " + value, b"C: d", line=line))
                assert sent.fields[1:4] == [(b"A", b"b"), (b"max-Forwards", less), (b"C", b"d")]
            for value in (b"", b"x", b"-1", b"1, 1", b"9" * 19):
                await shop.refused(request(b"Max-Forwards: " + value, line=line), 400)
            await shop.refused(request(b"Max-Forwards: 1", b"Max-Forwards: 1", line=line), 400)
        refused = await shop.refused(request(b"Max-Forwards: 0", b"Cookie: secret", line=TRACE), 405)
        assert "GET" in refused.get("allow")
        assert b"secret" not in refused.raw + refused.body
        for value in (b"0", b"x", b"7"):
            sent = await shop.forwarded(request(b"Max-Forwards: " + value))
            assert sent.all(b"max-forwards") == [value]


async def test_row_43_options_that_goes_no_further_is_answered() -> None:
    """200 with Allow, and the connection ends; the same block with another method in between is another matter."""
    async with front() as shop:
        wire = await shop.plane.connect()
        for line, left in ((b"GET / HTTP/1.1", b"0"), (b"OPTIONS / HTTP/1.1", b"2"), (b"GET / HTTP/1.1", b"2")):
            wire.send(request(b"Max-Forwards: " + left, line=line))
            assert (await wire.response()).body == b"/"
        assert [sent.all(b"max-forwards") for sent in shop.witness.requests] == [[b"0"], [b"1"], [b"2"]]
        wire.send(request(b"Max-Forwards: 0"))
        assert (await wire.response()).body == b"/"
        wire.send(request(b"Max-Forwards: 0", b"Content-Length: 40", line=OPTIONS, body=get("/smuggled")))
        answer = await wire.response()
        assert (answer.status, answer.body, answer.get("connection")) == (200, b"", "close")
        assert "GET" in answer.get("allow")
        assert answer.get("x-request-id")
        assert await wire.ended() == b""
        assert len(shop.witness.requests) == 4
        await shop.serves_on()
        assert shop.plane.context.bad_requests == 0


async def test_row_44_trace_has_no_body_and_echoes_no_secret() -> None:
    """A body is 400; what goes on has no cookie and no authorization in it, so that no upstream can show them."""
    secrets = (b"Cookie: a=secret", b"AUTHORIZATION: Basic secret", b"Proxy-Authorization: secret", b"cookie: b=secret")
    rules = {"sessions": schema.Sessions(mode="cookie")}
    async with front() as shop:
        for lines, body in (
            ((b"Content-Length: 5",), b"hello"),
            ((b"Transfer-Encoding: chunked",), b"0\r\n\r\n"),
        ):
            await shop.refused(request(*lines, line=TRACE, body=body), 400)
        sent = await shop.forwarded(request(*secrets, b"X: y", b"Content-Length: 0", line=TRACE))
        assert b"secret" not in shop.witness.raw[-1]
        assert sent.all(b"x") == [b"y"]
        # Neither is a block that a GET came with before taken for a good one, nor the other way round.
        wire = await shop.plane.connect()
        for line, seen in ((b"GET / HTTP/1.1", True), (b"TRACE / HTTP/1.1", False), (b"GET / HTTP/1.1", True)):
            wire.send(request(*secrets, line=line))
            assert (await wire.response()).status == 200
            assert (b"secret" in shop.witness.raw[-1]) is seen
    async with DataPlane() as plane:  # a session's cookie is obeyed all the same
        witnesses = [Witness(own_answer) for _ in range(3)]
        await plane.serve([await plane.upstream(witness.script) for witness in witnesses], **rules)
        pinned = (await plane.ask(get())).get("set-cookie").split(";")[0].encode()
        for _ in range(5):
            assert (await plane.ask(request(b"Cookie: " + pinned, line=TRACE))).status == 200
        assert sorted(len(witness.requests) for witness in witnesses) == [0, 0, 6]
        assert all(not sent.all(b"cookie") for witness in witnesses for sent in witness.requests)
