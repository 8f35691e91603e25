"""http.md rows 1 to 13: the request line, and who it is for."""

from __future__ import annotations

from support.dataplane import get
from support.witness import front, request


async def test_row_01_host_is_there_once_and_valid() -> None:
    """None, two (also the same twice), or an invalid one: 400, and the connection ends."""
    async with front() as shop:
        await shop.refused(b"GET / HTTP/1.1\r\n\r\n", 400)
        await shop.refused(b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400)
        await shop.refused(b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nhost: b\r\n\r\n", 400)
        for value in (b"", b"a b", b"a:b", b"a:99999", b"[::1", b"a]", b"a%", b"a%zz", b"\xffa", b'a"b', b"<a>"):
            await shop.refused(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % value, 400)
        sent = await shop.forwarded(b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n")
        assert sent.all(b"host") == [b"[::1]:80"]


async def test_row_02_a_host_is_a_host_and_nothing_more() -> None:
    """An http:// target without a host; user information, a path, a space or a comma in Host: 400."""
    async with front() as shop:
        for target in (b"http:///x", b"http://", b"http://?a", b"http://me@shop.test/", b"http://a b/", b"http://a,b/"):
            await shop.refused(request(line=b"GET %b HTTP/1.1" % target), 400)
        for value in (b"me@shop.test", b"shop.test/x", b"shop.test x", b"a,b", b"shop.test?x", b"shop.test#x", b"a\\b"):
            await shop.refused(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % value, 400)


async def test_row_03_the_authority_of_an_absolute_target_is_the_host() -> None:
    """The upstream's Host is the target's authority, never the client's Host; which must be valid all the same."""
    async with front() as shop:
        sent = await shop.forwarded(b"GET http://one.test:81/a?b HTTP/1.1\r\nHost: two.test\r\n\r\n")
        assert sent.start == (b"GET", b"/a?b")
        assert sent.all(b"host") == [b"one.test:81"]
        assert sent.all(b"x-forwarded-host") == [b"one.test:81"]
        assert b"two.test" not in shop.witness.raw[-1]
        sent = await shop.forwarded(b"GET HTTPS://one.test?q HTTP/1.1\r\nX: y\r\nHost: two.test\r\n\r\n")
        assert (sent.start[1], sent.all(b"host")) == (b"/?q", [b"one.test"])
        await shop.refused(b"GET http://one.test/ HTTP/1.1\r\n\r\n", 400)
        await shop.refused(b"GET http://one.test/ HTTP/1.1\r\nHost: a b\r\n\r\n", 400)
        await shop.refused(b"GET ftp://one.test/ HTTP/1.1\r\nHost: one.test\r\n\r\n", 400)


async def test_row_04_the_asterisk_goes_with_options() -> None:
    """`OPTIONS *` goes on as it is, as does OPTIONS for a URL without a path; with any other method it is 400."""
    async with front() as shop:
        assert (await shop.forwarded(get("*", method="OPTIONS"))).start == (b"OPTIONS", b"*")
        assert (await shop.forwarded(get("http://shop.test", method="OPTIONS"))).start == (b"OPTIONS", b"*")
        for target in ("http://shop.test/shop.test", "http://shop.test/"):
            path = target.removeprefix("http://shop.test").encode()
            assert (await shop.forwarded(get(target, method="OPTIONS"))).start == (b"OPTIONS", path)
        for method in ("GET", "POST", "TRACE", "BREW"):
            await shop.refused(get("*", method=method), 400)
        await shop.refused(get("**", method="OPTIONS"), 400)


async def test_row_05_there_is_no_tunnel_by_connect() -> None:
    """CONNECT and authority-form are refused, and what follows is not read as anything."""
    async with front() as shop:
        await shop.refused(get("shop.test:80", method="CONNECT") + get("/smuggled"), 501)
        await shop.refused(get("/", method="CONNECT"), 501)
        await shop.refused(get("shop.test:80"), 400)
        await shop.refused(get("shop.test"), 400)


async def test_row_06_no_raw_space_control_or_eight_bit_in_a_target() -> None:
    """Each control character, the space, DEL and bytes beyond ASCII: 400."""
    async with front() as shop:
        for byte in (*range(0x21), 0x7F, 0x80, 0x85, 0xA0, 0xC3, 0xFF):
            await shop.refused(b"GET /a%bb HTTP/1.1\r\nHost: a\r\n\r\n" % bytes([byte]), 400)
        await shop.refused(b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400)


async def test_row_07_a_target_goes_on_byte_for_byte() -> None:
    """Escapes are not decoded, dots and slashes are not tidied, nothing is added or taken away."""
    targets = (
        *(
            b"/a%20b%2Fc%2f%C3%A9",
            b"//a//b/",
            b"/./a/../b/..",
            b"/%2e%2e/%00",
            b"/a%0d%0aX-Evil:%201",
            b"/?",
            b"/a?b?c",
        ),
        *(b"/;a=b,c", b"/%", b"/%zz", b"/?q=a+b&c=%26", b'/"<>\\^`{|}', b"/a//?x=http://y//", b"/~*!$'()"),
    )
    async with front() as shop:
        for target in targets:
            sent = await shop.forwarded(request(line=b"GET %b HTTP/1.1" % target))
            assert sent.start == (b"GET", target)
            assert b"X-Evil" not in [name for name, _ in sent.fields]


async def test_row_08_versions_that_are_not_spoken() -> None:
    """Another `HTTP/d.d` is 505; HTTP/0.9, no minor version, lower case and other rubbish is 400."""
    async with front() as shop:
        for version in (b"HTTP/2.0", b"HTTP/1.2", b"HTTP/0.9", b"HTTP/3.0"):
            await shop.refused(request(line=b"GET / " + version), 505)
        await shop.refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505)
        versions = (b"HTTP/1", b"http/1.1", b"HTTP/111", b"HTTP/1.10", b"HTTP/01.1", b"HTTP/1.1 ", b"HTTP 1.1", b"1.1")
        for version in (*versions, b"HTTP/+1.1", b"ICE/1.0", b"HTTPS/1.1", b"HTTP/1,1", b"HTTP/1.x"):
            await shop.refused(request(line=b"GET / " + version), 400)
        await shop.refused(b"GET /\r\n", 400)
        await shop.refused(b"GET /\r\nHost: a\r\n\r\n", 400)


async def test_row_09_request_lines_of_8000_octets_and_more() -> None:
    """8000 octets work, as RFC 9112 section 3 recommends, and 16 KiB do; beyond, it is 414 and not read to its end."""
    async with front() as shop:
        for length in (8000, 16 * 1024):
            target = b"/".ljust(length - len(b"GET  HTTP/1.1"), b"x")
            assert (await shop.forwarded(request(line=b"GET %b HTTP/1.1" % target))).start[1] == target
        target = b"/".ljust(16 * 1024, b"x")
        await shop.refused(request(line=b"GET %b HTTP/1.1" % target), 414)
        await shop.refused(b"GET /" + b"x" * 17_000, 414)


async def test_row_10_a_method_is_a_token_of_bounded_length() -> None:
    """More than 32 bytes: 501; no token: 400."""
    async with front() as shop:
        await shop.refused(get(method="M" * 33), 501)
        for method in (b"", b"G@T", b"GE\tT", b"(GET)", b"GET:", b"G\x00T", b"G\xc9T", b'"GET"', b"GET,"):
            await shop.refused(request(line=method + b" / HTTP/1.1"), 400)


async def test_row_11_an_unknown_method_is_the_upstreams_to_judge() -> None:
    """Any token goes on as it is, its case included."""
    async with front() as shop:
        for method in ("BREW", "get", "M" * 32, "M-SEARCH", "PROPFIND", "!#$%&'*+.^_`|~0"):
            assert (await shop.forwarded(get("/a", method=method))).start == (method.encode(), b"/a")


async def test_row_12_empty_lines_before_a_request() -> None:
    """One or two are passed over (two, as the known proxies do); three, a line of white space or a lone CR or LF are 400."""
    async with front() as shop:
        for before in (b"\r\n", b"\r\n\r\n"):
            assert (await shop.forwarded(before + get("/a"))).start == (b"GET", b"/a")
        for before in (b"\r\n\r\n\r\n", b" \r\n", b"\t\r\n", b" ", b"\n", b"\r", b"\r\r\n", b"\x00"):
            await shop.refused(before + get("/a"), 400)


async def test_row_13_no_white_space_behind_the_request_line() -> None:
    """What could be taken for a continued request line, or for a field that is hidden: 400."""
    async with front() as shop:
        for space in (b" ", b"\t", b"\x0b", b"  \t"):
            await shop.refused(b"GET / HTTP/1.1\r\n%bX: y\r\nHost: a\r\n\r\n" % space, 400)
            await shop.refused(b"GET / HTTP/1.1\r\n%b\r\nHost: a\r\n\r\n" % space, 400)
