"""Parts of HTTP/1.1 messages, the sound ones and those over which two readers may fall out, and how to spoil a message."""

from __future__ import annotations

from collections.abc import Callable, Sequence

METHODS = [b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS", b"DELETE", b"BREW"]
TARGETS = [b"/", b"/a?b=c&d=%0d%0a", b"//x/../y", b"/a/b;c=1", b'/{"|}', b"/?http://b/"]
ABSOLUTE = [b"http://b.example/x", b"HTTP://b:80", b"http://b/b", b"https://b?q", b"http://shop.test/shop.test"]
ODD_TARGETS = [
    *(b"*", b"a:80", b"", b"/ a", b"/\x00", b"/\x7f", b"/\xe9", b"/#a", b"http://", b"http://u@b/", b"ftp://b/"),
    *(b"http://b,c/", b"http://[::1/", b"//", b"/\t", b"http:/b", b"/" + b"a" * 17000),
]

#: Fields that any request may have.
FIELDS = [
    *(
        b"Accept: */*",
        b"accept:text/html",
        b"User-Agent: \t x y \t",
        b"Cookie: a=b; c",
        b"Cookie:d=e",
        b"X-A:",
        b"x-a: 1",
    ),
    *(b"X-A: \xff\x80\x85\xa0", b"X_B: 1", b"X_Forwarded_For: 6.6.6.6", b"Content_Length: 9", b"Referer: http://a/b"),
    *(
        b"X-Forwarded-For: 6.6.6.6",
        b"X-Forwarded-Host: evil",
        b"Forwarded: for=6.6.6.6",
        b"X-Request-ID: r",
        b"TE: trailers",
    ),
    *(
        b"X-Real-IP: 6.6.6.6",
        b"Via: 1.1 other",
        b"Date: x",
        b"Keep-Alive: 5",
        b"Proxy-Connection: close",
        b"Range: bytes=0-",
    ),
    *(b"Connection: keep-alive", b"Connection: x-a", b"Connection: Host, Content-Length, X-A", b"Connection: ,, ,"),
    *(
        b"Connection: upgrade, HTTP2-Settings",
        b"Upgrade: websocket",
        b"Upgrade: h2c",
        b"HTTP2-Settings: x",
        b"Trailer: X",
    ),
    *(
        b"Max-Forwards: 5",
        b"Authorization: Basic x",
        b"X-Long: " + b"l" * 300,
        b"!#$%&'*+-.^_`|~: odd",
        b"Expect: 100-continue",
    ),
]
#: Fields over which two readers may fall out.
ODD_FIELDS = [
    *(
        b"Content-Length: 5",
        b"Content-Length: 0",
        b"Content-Length: 05",
        b"Content-Length: +5",
        b"Content-Length: 5, 5",
    ),
    *(b"Content-Length:", b"Content-Length: 0x5", b"Content-Length: 1_0", b"Content-Length: 99999999999999999999"),
    *(
        b"Content-Length: -1",
        b"Content-Length: 5 ",
        b"content-length:\t5",
        b"Content-Length: \xb2",
        b"Content-Length: 5\x00",
    ),
    *(
        b"Transfer-Encoding: chunked",
        b"transfer-encoding:CHUNKED ",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding:",
    ),
    *(b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: xchunked"),
    *(b"Transfer-Encoding: chunked;a=b", b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding: ,chunked"),
    *(
        b"Transfer-Encoding : chunked",
        b"Transfer_Encoding: chunked",
        b" Transfer-Encoding: chunked",
        b"Host: b",
        b"Host:",
    ),
    *(
        b"Host: a b",
        b"Host: a,b",
        b"Host: a:99999",
        b"Host: [::1]:80",
        b"host: u@a",
        b"X\x00: 1",
        b"X: \x00",
        b": 1",
        b"X",
    ),
    *(
        b"",
        b"X: a\rb",
        b"X: a\nb",
        b"X: \x7f",
        b"Expect: 200-ok",
        b"Connection: close",
        b"Connection: keep-alive, close",
    ),
    *(b"Connection: transfer-encoding", b"X (a): 1", b"\xe9: 1", b"GET / HTTP/1.1", b"HTTP/1.1 200 OK"),
]
LINE_ENDS = [
    b"\n",
    b"\r",
    b"\r\r\n",
    b"\n\r",
    b"\r\n ",
    b"\r\n\t",
    b" \r\n",
    b"\r\n\r\n",
    b"\r\n\r",
    b"",
    b"\x00\r\n",
    b"\x0b\r\n",
]
NUMBERS = [
    *(
        b"0",
        b"1",
        b"00",
        b"+1",
        b"-1",
        b"0x1",
        b"1_0",
        b" 1",
        b"1 ",
        b"1\t",
        b"",
        b"f",
        b"F",
        b"g",
        b"ffffffffffffffff",
    ),
    *(
        b"10000000000000000",
        b"99999999999999999999",
        b"9" * 400,
        b"\xd9\xa5",
        b"1.0",
        b"1e1",
        b"1,1",
        b"0" * 20,
        b'1;a="\n"',
    ),
]
BYTES = [
    *(b"\x00", b"\t", b"\n", b"\r", b"\x0b", b"\x0c", b" ", b":", b";", b",", b'"', b"\x7f", b"\x80", b"\x85", b"\xa0"),
    *(b"\xff", b"\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
]
REQUEST_LINES = [
    b"%b %b %b" % (method, target, version)
    for method in (b"GET", b"OPTIONS", b"CONNECT", b"TRACE", b"M" * 40, b"G@T", b"")
    for target in (b"/", *ODD_TARGETS, *ABSOLUTE)
    for version in (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 ")
]
STATUS_LINES = [
    *(
        b"HTTP/1.1 200",
        b"HTTP/1.0 200 OK",
        b"HTTP/1.1 101 x",
        b"HTTP/1.1 099 x",
        b"HTTP/1.1 600 x",
        b"HTTP/1.1 20",
        b"HTTP/2 200",
    ),
    *(
        b"HTTP/1.1 204 x",
        b"HTTP/1.1 304 x",
        b"HTTP/1.1  200 x",
        b"HTTP/1.1 200\tx",
        b"http/1.1 200 x",
        b"HTTP/1.1 100 x",
        b"ICY 200",
    ),
]


def spoil(data: bytes, pick: Callable[[int], int]) -> bytes:
    """Change one thing: a byte, a line, a line's end or a number. `pick(n)` chooses a number below n."""

    def one_of(choices: Sequence[bytes]) -> bytes:
        return choices[pick(len(choices))]

    what = pick(11)
    at = pick(len(data) or 1)
    if what == 0:
        return data[:at]
    if what == 1:
        return data[:at] + one_of(BYTES) + data[at + 1 :]
    if what == 2:
        return data[:at] + one_of(BYTES) + data[at:]
    if what == 3:
        ends = data.count(b"\r\n")
        pieces = data.split(b"\r\n", pick(ends) + 1) if ends else [data]
        return b"\r\n".join(pieces[:-1]) + one_of(LINE_ENDS) + pieces[-1]
    if what == 4:
        digits = [place for place in range(len(data)) if data[place : place + 1].isdigit()]
        if digits:
            at = digits[pick(len(digits))]
            data = data[:at] + one_of(NUMBERS) + data[at + 1 :]
        return data
    lines = data.split(b"\r\n")
    index = pick(len(lines))
    if what == 5:
        lines.insert(index, lines[pick(len(lines))])
    elif what == 6:
        other = pick(len(lines))
        lines[index], lines[other] = lines[other], lines[index]
    elif what == 7:
        del lines[index]
    elif what == 8:
        lines[0] = one_of(STATUS_LINES if data.startswith(b"HTTP/") else REQUEST_LINES)
    elif what == 9:
        lines.insert(max(index, 1), one_of(ODD_FIELDS))
    else:
        lines.insert(max(index, 1), one_of(FIELDS))
    return b"\r\n".join(lines)
