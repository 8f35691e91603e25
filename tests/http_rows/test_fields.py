"""http.md rows 14 to 25: field lines, in requests and in responses."""

from __future__ import annotations

import pytest
from support.dataplane import get, until
from support.witness import DATED, before, front, request

from bgproxy.config import schema

#: What may stand in a value beyond ASCII, in an order that puts the white space of other alphabets at the ends.
OBS_TEXT = b"\x85" + bytes(range(0x80, 0x100)) + b"\xa0"
CONTROLS = [byte for byte in (*range(0x20), 0x7F) if byte not in b"\t\r\n\0"]


async def answered(*lines: bytes) -> tuple[int, bytes]:
    """What a client gets of an upstream's answer with these field lines: its status, and its head as it came."""
    response = DATED + b"".join(line + b"\r\n" for line in lines) + b"Content-Length: 2\r\n\r\nok"
    async with before(response) as plane:
        wire = await plane.connect()
        wire.send(get("/first"))
        answer = await wire.response()
        if answer.status == 502:
            assert answer.get("proxy-status") == "bgproxy; error=http_protocol_error"
            await until(lambda: not plane.context.servers)
        else:
            assert (answer.status, answer.body) == (200, b"ok")
        wire.send(get("/next"))  # the client's connection goes on, either way
        assert (await wire.response()).status == answer.status
        return answer.status, answer.raw


async def test_row_14_no_white_space_before_a_requests_colon() -> None:
    """It would be another name to some: 400."""
    async with front() as shop:
        for line in (b"X : y", b"X\t: y", b"Content-Length : 0", b"Transfer-Encoding : chunked", b"X\x0b: y", b" : y"):
            await shop.refused(request(line), 400)
        await shop.refused(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400)


async def test_row_15_no_white_space_before_a_responses_colon() -> None:
    """502, and its connection is not used again."""
    for line in (b"X : y", b"X\t: y", b"Transfer-Encoding : chunked"):
        assert (await answered(line))[0] == 502


async def test_row_16_no_folded_line_in_a_request() -> None:
    """400, whichever line is continued."""
    async with front() as shop:
        for fold in (b" folded", b"\tfolded", b" ", b" X: y"):
            await shop.refused(request(b"X: y", fold), 400)
            await shop.refused(request(fold, b"X: y"), 400)
        await shop.refused(request(b"Transfer-Encoding:", b" chunked", line=b"POST / HTTP/1.1"), 400)


async def test_row_17_no_folded_line_in_a_response() -> None:
    """502."""
    for fold in (b" folded", b"\tfolded", b" "):
        assert (await answered(b"X: y", fold))[0] == 502


async def test_row_18_no_cr_lf_or_nul_in_a_value() -> None:
    """400 to a client, 502 for an upstream; whatever stands around it."""
    async with front() as shop:
        for value in (b"a\rb", b"a\nb", b"a\x00b", b"\r", b"\x00", b"a\r\rX: y", b"a\nX: y", b"a\r"):
            await shop.refused(request(b"X: " + value, b"Y: z"), 400)
            await shop.refused(request(b"Cookie: " + value), 400)
    for value in (b"a\rb", b"a\nb", b"a\x00b", b"a\nSet-Cookie: x=y"):
        assert (await answered(b"X: " + value))[0] == 502


async def test_row_19_no_other_control_in_a_value() -> None:
    """Each of them, DEL too: 400 or 502; a tab is none of them."""
    async with front() as shop:
        for byte in CONTROLS:
            await shop.refused(request(b"X: a%bb" % bytes([byte])), 400)
        assert (await shop.forwarded(request(b"X: a\tb"))).all(b"x") == [b"a\tb"]
    for byte in (0x01, 0x08, 0x0B, 0x0C, 0x1B, 0x1F, 0x7F):
        assert (await answered(b"X: a%bb" % bytes([byte])))[0] == 502
    assert b"\r\nX: a\tb\r\n" in (await answered(b"X: a\tb"))[1]


async def test_row_20_a_bare_lf_ends_no_line() -> None:
    """Wherever it stands in a head: 400, also where the end of the head never comes."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nX: y\r\nContent-Length: 0\r\n\r\n"
    async with front() as shop:
        ends = [at for at in range(len(head)) if head.startswith(b"\r\n", at)]
        for end in ends:
            await shop.refused(head[:end] + head[end + 1 :] + get("/smuggled"), 400)
        await shop.refused(head.replace(b"\r\n", b"\n"), 400)
        await shop.refused(b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n", 400)
    for response in (b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"):
        async with before(response) as plane:
            assert (await plane.ask(get())).status == 502


async def test_row_21_a_field_name_is_a_token() -> None:
    """An empty name, a byte that is no tchar, a line without a colon: 400 or 502."""
    bad = (b": y", b"X", b"X y: z", b"X(y): z", b"X\xe9: z", b"X\x00: y", b'"X": y', b"X/Y: z", b"X@Y: z", b"=: y")
    async with front() as shop:
        for line in bad:
            await shop.refused(request(line), 400)
            await shop.refused(request(b"A: b", line, b"C: d"), 400)
        assert (await shop.forwarded(request(b"!#$%&'*+-.^_`|~9: z"))).all(b"!#$%&'*+-.^_`|~9") == [b"z"]
    for line in bad[:4]:
        assert (await answered(line))[0] == 502


async def test_row_22_bytes_beyond_ascii_are_kept() -> None:
    """All of 0x80 to 0xFF, also those that other alphabets call white space, at the ends of a value: byte for byte."""
    line = b"X:  \t" + OBS_TEXT + b" \t"
    async with front() as shop:
        await shop.forwarded(request(line))
        assert b"\r\n" + line + b"\r\n" in shop.witness.raw[-1]
        host = await shop.forwarded(request(b"Cookie: a=" + OBS_TEXT))
        assert host.all(b"cookie") == [b"a=" + OBS_TEXT]
    assert b"\r\n" + line + b"\r\n" in (await answered(line))[1]


async def test_row_23_the_limits_of_a_head() -> None:
    """The section as a whole, one field, the number of fields: 431, and the connection ends; just below, it is served."""
    limits = schema.Limits(header_bytes=4096, headers=10)
    async with front(limits=limits) as shop:
        await shop.forwarded(request(b"X: " + b"y" * 3900))
        await shop.refused(request(b"X: " + b"y" * 4100), 431)
        await shop.refused(request(*(b"X%d: " % number + b"y" * 600 for number in range(7))), 431)
        await shop.forwarded(request(*(b"X: y" for _ in range(9))))
        await shop.refused(request(*(b"X: y" for _ in range(10))), 431)
        await shop.refused(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 5000, 431)  # and its end need not come


async def test_row_24_repeated_fields_keep_their_order() -> None:
    """Nothing is joined, sorted or respelt; each Set-Cookie stays a line of its own."""
    lines = (b"X-B: 1", b"Cookie: a=b", b"x-b: 2", b"X-A: 3", b"X-B:", b"X-B: 4, 5", b"cookie: c=d")
    async with front() as shop:
        await shop.forwarded(request(*lines))
        assert b"\r\nHost: shop.test\r\n" + b"\r\n".join(lines) + b"\r\n" in shop.witness.raw[-1]
    lines = (
        b"Set-Cookie: a=b",
        b"X: 1",
        b"Set-Cookie: c=d; Path=/",
        b"set-cookie: a=b",
        b"X: 2",
        b"Vary: a",
        b"Vary: b",
    )
    assert b"\r\n" + b"\r\n".join(lines) + b"\r\n" in (await answered(*lines))[1]


@pytest.mark.parametrize("trusted", [(), ("127.0.0.0/8",)])
async def test_row_25_an_underscore_is_no_dash(trusted: tuple[str, ...]) -> None:
    """An alias of a name that decides something is dropped, also from a trusted peer; others go on as they are."""
    aliases = (
        *(
            b"X_Forwarded_For: 6.6.6.6",
            b"X_Forwarded-Proto: https",
            b"Content_Length: 7",
            b"Transfer_Encoding: chunked",
        ),
        *(b"X_Real_IP: 6.6.6.6", b"x_request_id: evil", b"X_BGProxy_Pool: green", b"Max_Forwards: 0"),
    )
    async with front(trusted_proxies=trusted) as shop:
        sent = await shop.forwarded(request(*aliases, b"X_Mine: 1"))
        assert [name for name, _ in sent.fields if b"_" in name] == [b"X_Mine"]
        assert sent.body == b""
        assert sent.all(b"x-forwarded-for") == [b"127.0.0.1"]
        assert sent.all(b"x-forwarded-proto") == [b"http"]
