"""The chunked coding: the same at any split, extensions and forbidden trailers left behind (numbers: rows of the rules)."""

from __future__ import annotations

import itertools

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgproxy.http1.chunked import LAST_CHUNK, MAX_EXTENSIONS, MAX_SIZE_LINE, MAX_TRAILERS, ChunkedBody, chunk
from bgproxy.http1.errors import ProtocolError
from bgproxy.http1.names import NameTable

BOUNDED = settings(max_examples=80, deadline=None, derandomize=True, database=None)
NAMES = NameTable()


def run(pieces, *, data_only=False):
    """What goes on of the pieces, what is left behind, whether it is done, the bytes of data, and the error's status."""
    body = ChunkedBody(NAMES, data_only=data_only)
    out = b""
    rest = b""
    try:
        for piece in pieces:
            if body.done:
                rest += piece
                continue
            out += body.feed(piece)
            rest = body.rest
    except ProtocolError as error:
        return out, None, body.done, None, error.status
    return out, rest, body.done, body.received, None


def status_of(data):
    return run([data])[4]


def cut_at(data, places):
    """The data in pieces, cut at some places."""
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(marks)]


def data_of(forwarded):
    """The data and the trailers that a strict server reads."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + forwarded)
    server.next_event()
    data = b""
    while isinstance(event := server.next_event(), h11.Data):
        data += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage), event
    assert server.trailing_data[0] == b""
    return data, list(event.headers)


GOOD = {
    "plain": (b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", None),
    "empty": (b"0\r\n\r\n", None),
    "zeros": (b"05\r\nhello\r\n000\r\n\r\n", None),
    "hexadecimal": (b"a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", None),
    "lines in the data": (b"6\r\n\r\n0\r\n\r\r\n0\r\n\r\n", None),
    "extensions": (b'5;a;b="c; d"\r\nhello\r\n0;last\r\n\r\n', b"5\r\nhello\r\n0\r\n\r\n"),
    "spaces in an extension": (b'5; a \t= b ; c = "d\\""\r\nhello\r\n0\r\n\r\n', b"5\r\nhello\r\n0\r\n\r\n"),
    "eight bits in a quoted extension": (b'5;a="\xff\t!"\r\nhello\r\n0;b=""\r\n\r\n', b"5\r\nhello\r\n0\r\n\r\n"),
    "trailers": (b"1\r\na\r\n0\r\nX-Sum: 1\r\nY:\t2 \r\n\r\n", None),
    "forbidden trailers": (
        b"1\r\na\r\n0\r\nX: 1\r\nContent-Length: 5\r\nHOST: b\r\nY: 2\r\nAuthorization: x\r\nX_Forwarded_For: y\r\n\r\n",
        b"1\r\na\r\n0\r\nX: 1\r\nY: 2\r\n\r\n",
    ),
    "only forbidden trailers": (b"0\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\n\r\n"),
    "the longest size line": (b"1;" + b"a" * (MAX_SIZE_LINE - 2) + b"\r\na\r\n0\r\n\r\n", b"1\r\na\r\n0\r\n\r\n"),
    "the most digits": (b"0000000000000001\r\na\r\n0\r\n\r\n", None),
}


@pytest.mark.parametrize("case", GOOD)
@pytest.mark.parametrize("rest", [b"", b"\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_a_body_is_the_same_at_every_split(case, rest):
    """Cut in two anywhere, or byte by byte: the same goes on, and what comes behind it is left for the next request."""
    data, expected = GOOD[case]
    expected = data if expected is None else expected
    whole = run([data + rest])
    assert whole[:3] == (expected, rest, True)
    received = whole[3]
    stream = data + rest
    for cut in range(1, len(stream)):
        assert run([stream[:cut], stream[cut:]]) == (expected, rest, True, received, None), cut
    assert run([stream[at : at + 1] for at in range(len(stream))]) == (expected, rest, True, received, None)


@pytest.mark.parametrize("case", GOOD)
def test_the_data_alone_for_a_receiver_without_chunks(case):
    """Row 53: without sizes, extensions and trailers, at any split; as many bytes as are counted."""
    data, _ = GOOD[case]
    content, _ = data_of(run([data])[0])
    for cut in range(len(data)):
        out, rest, done, received, error = run([data[:cut], data[cut:]], data_only=True)
        assert (out, rest, done, error) == (content, b"", True, None)
        assert received == len(content)


def test_extensions_are_never_forwarded():
    """Row 34: neither names nor values, at no split."""
    data = b"2;secret=value\r\nab\r\n0;secret\r\n\r\n"
    for cut in range(len(data)):
        assert b"secret" not in run([data[:cut], data[cut:]])[0]


BAD = {
    "no size": b"\r\n",
    "a sign": b"+5\r\nhello\r\n",
    "a minus": b"-5\r\nhello\r\n",
    "a prefix": b"0x5\r\nhello\r\n",
    "an underscore": b"1_0\r\n",
    "a space before": b" 5\r\n",
    "a space behind": b"5 \r\nhello\r\n",
    "a tab behind": b"5\t\r\nhello\r\n",
    "a space before an extension": b"5 ;a\r\nhello\r\n",
    "no digits before an extension": b";a\r\nhello\r\n",
    "not hexadecimal": b"5g\r\n",
    "eight bits": b"\xb2\r\n",
    "a bare LF": b"5\nhello\r\n\r\n",
    "a bare CR": b"5\rhello\r\n\r\n",
    "two CRs": b"5\r\r\nhello\r\n",
    "a bare LF in an extension": b"5;a\nhello\r\n\r\n",
    "a bare CR in an extension": b"5;a\rhello\r\n\r\n",
    "NUL in an extension": b"5;a\x00\r\nhello\r\n",
    "an empty extension": b"5;\r\nhello\r\n",
    "an empty extension behind another": b"5;a;\r\nhello\r\n",
    "an extension without a name": b"5;=a\r\nhello\r\n",
    "an extension without its value": b"5;a=\r\nhello\r\n",
    "two values": b"5;a=b=c\r\nhello\r\n",
    "a space in an extension's name": b"5;a b\r\nhello\r\n",
    "a space behind an extension": b"5;a \r\nhello\r\n",
    "eight bits in an extension": b"5;a=\xff\r\nhello\r\n",
    "a quote that is not closed": b'5;a="b\r\nhello\r\n',
    "a quote that is escaped and not closed": b'5;a="b\\"\r\nhello\r\n',
    "something behind a quote": b'5;a="b"c\r\nhello\r\n',
    "a control character in a quote": b'5;a="\x01"\r\nhello\r\n',
    "too many digits": b"1" * 17 + b"\r\n",
    "zeros without end": b"0" * 17 + b"\r\n",
    "too large": b"f" * 16 + b"\r\n",
    "data too long": b"5\r\nhello!\r\n0\r\n\r\n",
    "data too short": b"5\r\nhell\r\n0\r\n\r\n",
    "LF behind data": b"5\r\nhello\n0\r\n\r\n",
    "CR behind data": b"5\r\nhello\rX0\r\n\r\n",
    "a trailer without colon": b"0\r\nX\r\n\r\n",
    "a folded trailer": b"0\r\nX: 1\r\n 2\r\n\r\n",
    "a trailer without a name": b"0\r\n: 1\r\n\r\n",
    "a space before a trailer's colon": b"0\r\nX : 1\r\n\r\n",
    "a control character in a trailer": b"0\r\nX: \x01\r\n\r\n",
    "a bare LF in a trailer": b"0\r\nX: 1\nY: 2\r\n\r\n",
    "a bare CR in a trailer": b"0\r\nX: 1\rY: 2\r\n\r\n",
    "a bare CR in a dropped trailer": b"0\r\nHost: 1\rY: 2\r\n\r\n",
    "a size line that is too long": b"1;" + b"a" * (MAX_SIZE_LINE - 1) + b"\r\na\r\n0\r\n\r\n",
    "a size line without end": b"1;" + b"a" * MAX_SIZE_LINE * 2,
}


@pytest.mark.parametrize("case", BAD)
def test_a_malformed_body_is_refused_at_every_split(case):
    """Rows 33, 35, 36: 400 wherever it is cut, and nothing goes on that does not go on of the whole."""
    data = BAD[case]
    assert status_of(data) == 400
    longest = run([data[at : at + 1] for at in range(len(data))])
    assert longest[4] == 400
    for cut in range(1, len(data)):
        out, _, done, _, error = run([data[:cut], data[cut:]])
        assert error == 400, cut
        assert not done
        assert longest[0].startswith(out)


@pytest.mark.parametrize(
    ("start", "least"),
    [
        (b"1;" + b"a" * MAX_SIZE_LINE, 400),
        (b"g", 400),
        (b"5\n", 400),
        (b"0" * 17, 400),
        (b"1\r\nab", 400),
        (b"1\r\na\n", 400),
        (b"0\r\n\n", 400),
        (b"0\r\nX: 1\n", 400),
    ],
)
def test_what_can_only_be_refused_is_refused_at_once(start, least):
    """A peer that never ends its line is not waited for."""
    assert status_of(start) == least


def test_extensions_of_all_chunks_together_are_limited():
    """Row 34: 413 beyond the total, however small each is."""
    line = b"1;" + b"a" * 200 + b"\r\na\r\n"
    most = MAX_EXTENSIONS // 201
    assert status_of(line * most + LAST_CHUNK) is None
    assert status_of(line * (most + 1) + LAST_CHUNK) == 413


def test_trailers_are_limited():
    """Row 36: 431 beyond the total, in one line or in many, ended or not."""
    line = b"X: " + b"a" * 59 + b"\r\n"
    most = MAX_TRAILERS // len(line)
    assert status_of(b"0\r\n" + line * most + b"\r\n") is None
    assert status_of(b"0\r\n" + line * (most + 1) + b"\r\n") == 431
    assert status_of(b"0\r\nX: " + b"a" * MAX_TRAILERS) == 431
    assert status_of(b"0\r\nHost: " + b"a" * MAX_TRAILERS + b"\r\n\r\n") == 431  # a dropped one counts as well


@pytest.mark.parametrize("name", [b"X-BGProxy-Mirror", b"x_bgproxy_mirror", b"X-BGProxy-Pool"])
def test_our_own_fields_are_no_trailers_of_clients(name):
    """As in a head, they go no further."""
    body = ChunkedBody(NameTable(frozenset({b"x-bgproxy-pool"})))
    assert body.feed(b"0\r\nX-A: 1\r\n" + name + b": 1\r\n\r\n") == b"0\r\nX-A: 1\r\n\r\n"


def test_bytes_of_data_are_counted_as_they_come():
    """Row 37 rests on it: a limit is met in the middle of a chunk."""
    body = ChunkedBody(NAMES)
    body.feed(b"a\r\n012")
    assert body.received == 3
    body.feed(b"3456789\r\n")
    assert body.received == 10
    assert not body.done


def test_large_data_is_passed_on_without_being_held():
    """No byte of data waits: only an incomplete line does."""
    body = ChunkedBody(NAMES)
    assert body.feed(b"10000\r\n") == b"10000\r\n"
    for _ in range(16):
        piece = b"x" * 4096
        assert body.feed(piece) == piece
    assert body.feed(b"\r") == b""
    assert body.feed(b"\n0\r\n\r\n") == b"\r\n0\r\n\r\n"
    assert body.done


def test_chunks_of_our_own():
    """What is wrapped reads back as it was; nothing is no chunk, since an empty one would end the body."""
    out, rest, done, _, error = run([chunk(b"hello") + chunk(b"") + chunk(b"x" * 300) + LAST_CHUNK], data_only=True)
    assert (out, rest, done, error) == (b"hello" + b"x" * 300, b"", True, None)
    assert chunk(b"") == b""


CHUNKS = st.lists(
    st.tuples(st.binary(min_size=1, max_size=20), st.sampled_from([b"", b";a", b';a="b"', b";" + b"x" * 40])),
    max_size=5,
)
TRAILERS = st.lists(st.sampled_from([b"X: 1", b"Y:", b"Content-Length: 5", b"cookie: a", b"X_Sum: \xff"]), max_size=4)


@BOUNDED
@given(chunks=CHUNKS, trailers=TRAILERS, places=st.lists(st.integers(0, 500), max_size=8), data_only=st.booleans())
def test_any_split_reads_as_the_data_that_was_sent(chunks, trailers, places, data_only):
    """Another strict parser reads the same data out of what goes on, at any split, and only the trailers that may pass."""
    wire = b"".join(b"%x%b\r\n%b\r\n" % (len(data), extension, data) for data, extension in chunks)
    wire += b"0\r\n" + b"".join(line + b"\r\n" for line in trailers) + b"\r\n"
    data = b"".join(data for data, _ in chunks)
    out, rest, done, received, error = run(cut_at(wire + b"next", places), data_only=data_only)
    assert (rest, done, received, error) == (b"next", True, len(data), None)
    if data_only:
        assert out == data
    else:
        allowed = [line for line in trailers if line[:1] in b"XY"]
        assert data_of(out) == (
            data,
            [(line.partition(b":")[0].lower(), line.partition(b":")[2].strip()) for line in allowed],
        )


@BOUNDED
@given(
    pieces=st.lists(
        st.one_of(
            st.binary(max_size=6),
            st.sampled_from(
                [
                    b"5\r\nhello\r\n",
                    b"0\r\n",
                    b"\r\n",
                    b"1;a\r\na\r\n",
                    b"X: 1\r\n",
                    b"5",
                    b"\n",
                    b"\r",
                    b"000001\r\na\r\n",
                ]
            ),
        ),
        max_size=8,
    ),
    places=st.lists(st.integers(0, 200), max_size=6),
)
def test_any_bytes_are_judged_alike_at_any_split(pieces, places):
    """Garbage or not: what is accepted, and what goes on of it, does not depend on how it came; what passes is strict."""
    wire = b"".join(pieces)
    whole = run([wire])
    split = run(cut_at(wire, places))
    assert whole[2:] == split[2:]
    if whole[4] is None:
        assert whole == split
        if whole[2]:
            data_of(whole[0])


@pytest.mark.parametrize("data_only", [False, True])
def test_tiny_chunks_are_counted_and_go_on_as_they_came(data_only):
    """Of one digit, one behind the other, among others, and cut anywhere: the same bytes, the same number."""
    body = (
        b"1\r\na\r\n" * 3
        + b"f\r\n"
        + b"b" * 15
        + b"\r\n"
        + b"10\r\n"
        + b"c" * 16
        + b"\r\n"
        + b"2;x=y\r\ndd\r\n"
        + b"1\r\ne\r\n"
    )
    data = b"a" * 3 + b"b" * 15 + b"c" * 16 + b"dde"
    for size in (1, 2, 3, 5, 7, 100, len(body)):
        chunks = ChunkedBody(NAMES, data_only=data_only)
        out = b"".join(chunks.feed(body[at : at + size]) for at in range(0, len(body), size))
        assert out == (data if data_only else body.replace(b";x=y", b""))
        assert chunks.received == len(data)
        assert chunks.tiny == 6
        assert not chunks.done


@pytest.mark.parametrize("bad", [b"1\r\nxx\r\n", b"1\r\nx\n\n", b"g\r\nx\r\n", b"1\n\nx\r\n", b"1\rXx\r\n"])
def test_a_bad_chunk_among_tiny_ones_is_refused(bad):
    """The quick way for tiny chunks takes nothing that the other way refuses."""
    chunks = ChunkedBody(NAMES)
    with pytest.raises(ProtocolError):
        chunks.feed(b"1\r\nx\r\n" * 5 + bad + b"1\r\nx\r\n" * 5)
