"""Strategies for hypothesis: HTTP/1.1 that is right, and HTTP/1.1 that nearly is."""

from __future__ import annotations

from hypothesis import strategies as st
from support.odd import ABSOLUTE, FIELDS, METHODS, TARGETS, spoil

places = st.lists(st.integers(0, 5000), max_size=8)
DATA = st.one_of(
    st.binary(max_size=30), st.sampled_from([b"\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"x" * 9000])
)


@st.composite
def chunked(draw: st.DrawFn) -> bytes:
    """A chunked body that is right."""
    sizes = st.sampled_from([b"%x", b"%X", b"0%x", b"000%x"])
    extensions = st.sampled_from([b"", b"", b";a", b';a="b"', b";" + b"e" * 100, b'; a = "\xff\\""'])
    trailers = st.sampled_from(
        [b"X-Sum: 1", b"X:", b"Content-Length: 3", b"Host: evil", b"X_Forwarded_For: 1", b"Y: \xff"]
    )
    body = b""
    for data in draw(st.lists(DATA.filter(bool), max_size=4)):
        body += draw(sizes) % len(data) + draw(extensions) + b"\r\n" + data + b"\r\n"
    lines = draw(st.lists(trailers, max_size=2))
    return (
        body
        + draw(st.sampled_from([b"0", b"00"]))
        + draw(extensions)
        + b"\r\n"
        + b"".join(line + b"\r\n" for line in (*lines, b""))
    )


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request that is right, and that wants the connection kept: it must be forwarded, and answered."""
    method = draw(st.sampled_from(METHODS))
    target = draw(st.sampled_from([*TARGETS, *TARGETS, *ABSOLUTE]))
    lines = draw(st.lists(st.sampled_from(FIELDS), max_size=5, unique=True))
    framing = draw(st.integers(0, 4))
    body = b""
    if framing == 0:
        body = draw(DATA)
        lines.append(b"Content-Length: %d" % len(body))
    elif framing == 1:
        body = draw(chunked())
        lines.append(draw(st.sampled_from([b"Transfer-Encoding: chunked", b"transfer-encoding:CHUNKED"])))
    lines.append(draw(st.sampled_from([b"Host: shop.test", b"host:a.b:80 ", b"HOST: [::1]"])))
    lines = draw(st.permutations(lines))
    return b"%b %b HTTP/1.1\r\n" % (method, target) + b"".join(line + b"\r\n" for line in (*lines, b"")) + body


@st.composite
def responses(draw: st.DrawFn, *, bodies: bool = True, announced: bool = False) -> bytes:
    """An answer that is right, of any framing; `bodies`: not one to HEAD; `announced`: its head says where it ends."""
    interims = draw(
        st.lists(
            st.sampled_from(
                [b"100 Continue\r\n\r\n", b"103 x\r\nLink: <a>\r\n\r\n", b"102\r\n\r\n", b"100 \r\n\r\n\r\n"]
            ),
            max_size=2,
        )
    )
    fields = [
        *(b"Date: x", b"Server: y", b"Set-Cookie: a=b", b"Set-Cookie: c=d", b"Connection: close", b"Connection: x-a"),
        *(
            b"X-A: 1",
            b"X-A:\t\xff ",
            b"Keep-Alive: 5",
            b"Content_Length: 3",
            b"Upgrade: h2c",
            b"Trailer: X",
            b"Via: 1.0 z",
        ),
    ]
    lines = draw(st.lists(st.sampled_from(fields), max_size=4))
    status = draw(
        st.sampled_from([b"200 OK", b"200", b"404 ", b"500 \xe9\t!", b"204 No", b"304 Not Modified", b"301 x"])
    )
    body = b""
    framing = draw(st.integers(0, 1 if announced else 2)) if bodies and status[:3] not in (b"204", b"304") else 3
    if framing == 0:
        body = draw(DATA)
        lines.append(b"Content-Length: %d" % len(body))
    elif framing == 1:
        body = draw(chunked())
        lines.append(b"Transfer-Encoding: chunked")
    elif framing == 2:
        body = draw(DATA)
    version = b"1.1" if framing == 1 else draw(st.sampled_from([b"1.1", b"1.1", b"1.0"]))
    head = b"HTTP/%b %b\r\n" % (version, status) + b"".join(
        line + b"\r\n" for line in (*draw(st.permutations(lines)), b"")
    )
    return b"".join(b"HTTP/1.1 " + interim for interim in interims) + head + body


@st.composite
def spoilt(draw: st.DrawFn, sound: st.SearchStrategy[bytes]) -> bytes:
    """What is right, changed in one to three places."""
    data = draw(sound)
    for _ in range(draw(st.integers(1, 3))):
        data = spoil(data, lambda most: draw(st.integers(0, most - 1)))
    return data


def streams(most: int) -> st.SearchStrategy[bytes]:
    """What one client may send: sound requests one behind the other, or spoilt ones, or rubbish."""
    sound = st.lists(requests(), min_size=1, max_size=most).map(b"".join)
    return st.one_of(sound, spoilt(sound), spoilt(sound), spoilt(sound), st.binary(max_size=60))


def answers() -> st.SearchStrategy[bytes]:
    """What an upstream may send: sound answers, with too much behind them, spoilt ones, or rubbish."""
    sound = responses()
    surplus = st.tuples(sound, sound).map(b"".join)
    return st.one_of(sound, surplus, spoilt(sound), spoilt(sound), spoilt(surplus), st.binary(max_size=60))
