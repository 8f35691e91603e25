"""http.md rows 26 to 37: where a body ends, in requests and in responses."""

from __future__ import annotations

import asyncio

import pytest
from support.dataplane import get, read_head, until
from support.witness import DATED, before, front, request

from bgproxy.config import schema

POST = b"POST / HTTP/1.1"
CHUNKED = b"Transfer-Encoding: chunked"
SMUGGLED = get("/smuggled")


async def broken(*lines: bytes, body: bytes = b"") -> None:
    """An upstream's answer with these field lines is 502, and its connection is closed."""
    async with before(DATED + b"\r\n".join([*lines, b"", body])) as plane:
        wire = await plane.connect()
        wire.send(get())
        answer = await wire.response()
        assert answer.status == 502, lines
        assert answer.get("proxy-status") == "bgproxy; error=http_protocol_error"
        await until(lambda: not plane.context.servers)
        assert [reason for _, reason in plane.failures]


async def test_row_26_not_both_transfer_encoding_and_content_length() -> None:
    """400 in either order, whatever they say, and what follows is not read as a request."""
    async with front() as shop:
        for length in (b"Content-Length: 5", b"Content-Length: 0", b"content-length: 999"):
            await shop.refused(request(length, CHUNKED, line=POST, body=b"0\r\n\r\n" + SMUGGLED), 400)
            await shop.refused(request(CHUNKED, length, line=POST, body=b"0\r\n\r\n" + SMUGGLED), 400)


async def test_row_27_no_transfer_encoding_in_http_1_0() -> None:
    """400, kept alive or not."""
    async with front() as shop:
        await shop.refused(request(CHUNKED, line=b"POST / HTTP/1.0", body=b"0\r\n\r\n"), 400)
        await shop.refused(request(CHUNKED, b"Connection: keep-alive", line=b"POST / HTTP/1.0", body=b"0\r\n\r\n"), 400)


async def test_row_28_chunked_is_last_and_once() -> None:
    """A last coding that is not chunked, chunked twice, identity, and all that looks like chunked: 400."""
    values = (
        *(b"gzip", b"chunked, chunked", b"identity", b"identity, chunked", b"chunked, identity", b"chunked, gzip", b""),
        *(b"xchunked", b"chunked-x", b'"chunked"', b"chunked,", b", chunked", b"chunked;a=b", b"chun ked"),
        *(b"\x0bchunked", b"chunked\xa0", b"\x85chunked"),
    )
    async with front() as shop:
        for value in values:
            data = request(b"Transfer-Encoding: " + value, line=POST, body=b"0\r\n\r\n" + SMUGGLED)
            await shop.refused(data, 400)
        await shop.refused(request(CHUNKED, CHUNKED, line=POST, body=b"0\r\n\r\n" + SMUGGLED), 400)
        await shop.refused(request(CHUNKED, b"Transfer-Encoding: gzip", line=POST, body=b"0\r\n\r\n"), 400)
        for value in (b"Chunked", b"CHUNKED", b" \tchunked\t "):
            sent = await shop.forwarded(request(b"Transfer-Encoding: " + value, line=POST, body=b"1\r\nx\r\n0\r\n\r\n"))
            assert (sent.all(b"transfer-encoding"), sent.body) == ([b"chunked"], b"x")


async def test_row_29_an_unknown_coding() -> None:
    """Before a last chunked: 501."""
    async with front() as shop:
        for value in (b"gzip, chunked", b"x-new,chunked", b"deflate;q=1, chunked"):
            await shop.refused(request(b"Transfer-Encoding: " + value, line=POST, body=b"0\r\n\r\n"), 501)
        await shop.refused(request(b"Transfer-Encoding: gzip", CHUNKED, line=POST, body=b"0\r\n\r\n"), 501)


async def test_row_30_a_length_is_digits() -> None:
    """A sign, a prefix, a space within, none, or more than any machine counts: 400."""
    values = (
        *(b"+5", b"-0", b"-5", b"0x5", b"1_0", b"5 6", b"", b"9" * 19, b"9" * 400, b"5.0", b"5e0", b"5;a", b"five"),
        *(b"\xb2", b"5\xa0", b"\x0b5", b'"5"', b"5,", b",5"),
    )
    async with front() as shop:
        for value in values:
            await shop.refused(request(b"Content-Length: " + value, line=POST, body=b"hello" + SMUGGLED), 400)
        sent = await shop.forwarded(request(b"Content-Length:  5\t", line=POST, body=b"hello"))
        assert sent.body == b"hello"


async def test_row_31_one_length() -> None:
    """Twice is 400, in two lines or in one, even where they agree."""
    async with front() as shop:
        for first, second in ((b"5", b"6"), (b"5", b"5"), (b"0", b"5")):
            lines = (b"Content-Length: " + first, b"Content-Length: " + second)
            await shop.refused(request(*lines, line=POST, body=b"hello" + SMUGGLED), 400)
            one = b"Content-Length: %b, %b" % (first, second)
            await shop.refused(request(one, line=POST, body=b"hello" + SMUGGLED), 400)


async def test_row_32_a_response_that_could_be_read_in_two_ways() -> None:
    """Bad or repeated lengths, codings that are not chunked alone, both at once: 502, and its connection is closed."""
    await broken(b"Content-Length: 1", b"Content-Length: 2", body=b"ab")
    await broken(b"Content-Length: 1", b"Content-Length: 1", body=b"a")
    await broken(b"Content-Length: 1", CHUNKED, body=b"0\r\n\r\n")
    for value in (b"+1", b"-1", b"0x1", b"1, 1", b"", b"9" * 19):
        await broken(b"Content-Length: " + value, body=b"a")
    for value in (b"gzip", b"gzip, chunked", b"chunked, chunked", b"identity", b"", b"xchunked"):
        await broken(b"Transfer-Encoding: " + value, body=b"0\r\n\r\n")


async def broken_within(body: bytes) -> None:
    """A chunked answer that turns out malformed: 502 if nothing of it was sent, else the client's connection is cut."""
    head = DATED + CHUNKED + b"\r\n\r\n"
    async with before(head + body) as plane:
        assert (await plane.ask(get())).status == 502
    begun = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(head + b"1\r\nx\r\n")
        await begun.wait()
        writer.write(body)
        assert await reader.read() == b""

    async with before(script) as plane:
        wire = await plane.connect()
        wire.send(get())
        assert (await wire.head()).status == 200
        assert await wire.reader.readexactly(6) == b"1\r\nx\r\n"
        begun.set()
        assert await wire.ended() == b""


async def test_row_33_a_chunk_size_is_hexadecimal_digits() -> None:
    """No sign, prefix, space or underscore, 16 digits at the most: 400, and no whole request reaches the upstream."""
    sizes = (
        *(
            b"",
            b"+5",
            b"-5",
            b"0x5",
            b" 5",
            b"5 ",
            b"5\t",
            b"5_0",
            b"g",
            b"5.",
            b"\x0b5",
            b"5\x00",
            b"0" * 17,
            b"f" * 16,
        ),
        *(b"5 ;a=b", b"\xb5", b"5,5"),
    )
    async with front() as shop:
        for size in sizes:
            await shop.refused(request(CHUNKED, line=POST, body=size + b"\r\nhello\r\n0\r\n\r\n"), 400)
            await shop.refused(request(CHUNKED, line=POST, body=b"1\r\nx\r\n" + size + b"\r\nhello\r\n0\r\n\r\n"), 400)
        await shop.refused(request(CHUNKED, line=POST, body=b"5\nhello\r\n0\r\n\r\n"), 400)
        sent = await shop.forwarded(request(CHUNKED, line=POST, body=b"0000000000000005\r\nhello\r\n00\r\n\r\n"))
        assert sent.body == b"hello"
    for size in (b"+5", b"0x5", b" 5", b"5 "):
        await broken_within(size + b"\r\nhello\r\n0\r\n\r\n")


async def test_row_34_chunk_extensions_stay_here() -> None:
    """They are not forwarded, in either direction, and bounded: 256 bytes a chunk (400), 16 KiB a body (413)."""
    extended = b'5;a=b;c="d"\r\nhello\r\n0;last\r\n\r\n'
    async with front() as shop:
        sent = await shop.forwarded(request(CHUNKED, line=POST, body=extended))
        assert sent.body == b"hello"
        assert shop.witness.raw[-1].endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        await shop.refused(request(CHUNKED, line=POST, body=b"5;" + b"a" * 300 + b"\r\nhello\r\n0\r\n\r\n"), 400)
        await shop.refused(request(CHUNKED, line=POST, body=b"5;" + b"a" * 300), 400)
        many = b"".join(b"1;" + b"a" * 200 + b"\r\nx\r\n" for _ in range(100))
        await shop.refused(request(CHUNKED, line=POST, body=many + b"0\r\n\r\n"), 413)
        for extension in (b";a\nb", b";", b";a;", b";=b", b";a=", b';a="b', b';a="b"c', b";a b"):
            await shop.refused(request(CHUNKED, line=POST, body=b"5" + extension + b"\r\nhello\r\n0\r\n\r\n"), 400)
    async with before(DATED + CHUNKED + b"\r\n\r\n" + extended) as plane:
        wire = await plane.connect()
        wire.send(get())
        await wire.head()
        assert await wire.reader.readuntil(b"0\r\n\r\n") == b"5\r\nhello\r\n0\r\n\r\n"
    for extension in (b";", b';a="b'):
        await broken_within(b"5" + extension + b"\r\nhello\r\n0\r\n\r\n")


async def test_row_35_chunk_data_ends_with_crlf() -> None:
    """LF alone, CR alone, other bytes, none: 400."""
    async with front() as shop:
        for end in (b"\n", b"\r", b"XX", b"", b"\rX", b"\n\r", b"XX\r\n"):
            await shop.refused(request(CHUNKED, line=POST, body=b"5\r\nhello" + end + b"0\r\n\r\n" + SMUGGLED), 400)
    await broken_within(b"5\r\nhelloXX0\r\n\r\n")


async def test_row_36_trailers() -> None:
    """Those that frame, route or prove something are dropped, none becomes a header, and there are not too many."""
    bad = (
        *(b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Host: evil", b"Authorization: x", b"Cookie: a=b"),
        *(b"X-Forwarded-For: 6.6.6.6", b"Content_Length: 5", b"Connection: close", b"Trailer: x", b"Set-Cookie: a=b"),
    )
    trailers = b"\r\n".join([*bad[:5], b"X-Sum: 1", *bad[5:], b"x-sum: 2", b"", b""])
    async with front() as shop:
        sent = await shop.forwarded(request(CHUNKED, line=POST, body=b"1\r\nx\r\n0\r\n" + trailers))
        assert sent.trailers == [(b"X-Sum", b"1"), (b"x-sum", b"2")]
        assert sent.all(b"x-sum") == []
        assert sent.all(b"x-forwarded-for") == [b"127.0.0.1"]
        for line in (b"X y: z", b"X", b"X : y", b"X: \x00", b"X: y\nZ: z", b" folded: y"):
            await shop.refused(request(CHUNKED, line=POST, body=b"0\r\n" + line + b"\r\n\r\n"), 400)
        await shop.refused(request(CHUNKED, line=POST, body=b"0\r\n" + b"X: y\r\n" * 2000 + b"\r\n"), 431)
    async with before(DATED + CHUNKED + b"\r\n\r\n1\r\nx\r\n0\r\n" + trailers) as plane:
        answer = await plane.ask(get())
        assert answer.trailers == [b"X-Sum: 1", b"x-sum: 2"]
        assert answer.get("x-sum") is None


@pytest.mark.parametrize("sent", ["announced", "streamed", "in pieces"])
async def test_row_37_a_body_over_the_limit(sent: str) -> None:
    """413, and the connection ends: by its announced length or as it streams; at the limit it is served."""
    async with front(limits=schema.Limits(body_bytes=10)) as shop:
        if sent == "announced":
            await shop.refused(request(b"Content-Length: 11", line=POST, body=b"a" * 11), 413)
            await shop.refused(request(b"Content-Length: 999999999999", line=POST), 413)
            assert (await shop.forwarded(request(b"Content-Length: 10", line=POST, body=b"a" * 10))).body == b"a" * 10
        elif sent == "streamed":
            body = b"6\r\n" + b"a" * 6 + b"\r\n"
            await shop.refused(request(CHUNKED, line=POST, body=body * 2 + b"0\r\n\r\n"), 413)
            assert (await shop.forwarded(request(CHUNKED, line=POST, body=body + b"0\r\n\r\n"))).body == b"a" * 6
        else:
            wire = await shop.plane.connect()
            wire.send(request(CHUNKED, line=POST, body=b"6\r\naaaaaa\r\n"))
            await until(lambda: shop.witness.received)
            wire.send(b"6\r\naaaaaa\r\n")
            answer = await wire.response()
            assert (answer.status, answer.get("connection")) == (413, "close")
            assert await wire.ended() == b""
            await until(lambda: shop.witness.unfinished)
            assert shop.witness.requests == []
            await shop.serves_on()
