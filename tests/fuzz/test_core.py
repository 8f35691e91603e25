"""Properties of the sans-I/O core alone: whatever the bytes, an answer or a `ProtocolError`, and nothing else."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.judging import cut
from support.nearly import DATA, chunked, places, spoilt
from support.odd import BYTES, FIELDS, NUMBERS, ODD_FIELDS, ODD_TARGETS
from support.strict import ends_of_chunks, read_request

from bgproxy.http1.chunked import ChunkedBody
from bgproxy.http1.errors import BadRequest, BadResponse, ProtocolError
from bgproxy.http1.names import NameTable
from bgproxy.http1.request import (
    cookie_value,
    hostname_of,
    parse_content_length,
    parse_request_fields,
    parse_request_line,
    printable,
    split_absolute,
    without_empty_lines,
)
from bgproxy.http1.response import parse_response_head

LEGAL = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
POST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
texts = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([*NUMBERS, *ODD_TARGETS, *ODD_FIELDS, *FIELDS]),
    st.lists(st.sampled_from([*BYTES, b"HTTP/", b"1.1", b"GET", b"/", b"http://", b"[", b"]", b"%", b"a=b"])).map(
        b"".join
    ),
)
lines = st.one_of(st.sampled_from([*FIELDS, *ODD_FIELDS, b"Host: a"]), texts)


@given(text=texts)
def test_no_text_makes_a_parser_fail(text):
    """Each parser of a part takes any bytes, and refuses with 400, 501, 505 or by its value."""
    for parser in (parse_request_line, without_empty_lines, split_absolute, hostname_of):
        with contextlib.suppress(BadRequest):
            parser(text)
    assert parse_content_length(text) == (int(text) if text.isdigit() and len(text) <= 18 else -1)
    assert b";" not in cookie_value(text, b"a")
    assert printable(text).isprintable()


@given(block=st.lists(lines, max_size=6), minor=st.integers(0, 1), authority=st.sampled_from([b"", b"b.example"]))
def test_no_block_makes_the_parsers_of_heads_fail(block, minor, authority):
    """Requests' and responses': a result with lines that end and nothing else between them, or a refusal."""
    data = b"".join(line + b"\r\n" for line in block)
    with contextlib.suppress(BadRequest):
        fields = parse_request_fields(data, minor, NameTable(frozenset({b"x-a"})), 100, authority)
        assert not fields.forwarded or fields.forwarded.endswith(b"\r\n")
        assert b"\r\n\r\n" not in fields.forwarded
        assert not fields.forwarded.replace(b"\r\n", b"").translate(None, LEGAL)
        assert fields.length == -1 or not fields.chunked
    with contextlib.suppress(BadResponse):
        response = parse_response_head(b"HTTP/1.%d 200 OK\r\n" % minor + data, NameTable())
        assert response.forwarded.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\n\r\n" not in response.forwarded
        assert response.forwarded.count(b"\n") == response.forwarded.count(b"\r") == response.forwarded.count(b"\r\n")


def feed(pieces, *, data_only):
    """What goes on, what is behind, the bytes of data; or that it was refused, or is not at its end."""
    body = ChunkedBody(NameTable(), data_only=data_only)
    out = b""
    try:
        for at, piece in enumerate(pieces):
            out += body.feed(piece)
            if body.done:
                return out, body.rest + b"".join(pieces[at + 1 :]), body.received
    except ProtocolError:
        return "refused"
    return "waits"


@given(
    data=st.one_of(chunked(), spoilt(chunked()), st.lists(st.sampled_from([*NUMBERS, *BYTES])).map(b"".join)),
    behind=DATA,
    cuts=places,
)
def test_a_chunked_body_is_the_same_at_any_split(data, behind, cuts):
    """And to a strict reader it holds the data that we counted, whether or not the coding goes on."""
    data += behind
    whole = feed([data], data_only=False)
    assert feed(cut(data, cuts), data_only=False) == whole
    bare = feed(cut(data, cuts), data_only=True)
    if isinstance(whole, str):
        assert bare == whole
        return
    read = read_request(POST + whole[0])
    assert read.end == len(POST) + len(whole[0])
    assert bare == (read.body, whole[1], len(read.body))
    assert whole[2] == len(read.body)
    assert data.endswith(whole[1])


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nhello\r\n2\r\nab\r\n0\r\n\r\n",
        b"10\r\n0123456789abcdef\r\n0\r\nX: 1\r\nY:\r\n\r\n",
        b"0000000000000005\r\nhello\r\n0000000000000000\r\n\r\n",
        b'2;a=b;c="\\"d"\r\nab\r\n0;e\r\n\r\n',
    ],
)
@pytest.mark.parametrize("split", ["whole", "bytes"])
def test_every_change_of_a_byte_is_judged_as_the_grammar_does(body, split):
    """A byte less, more or other, anywhere: taken if and only if a strict reader takes it, and to the same end."""
    behind = b"GET / HTTP/1.1"
    for at in range(len(body)):
        for byte in (b"", *(b"%c" % char for char in b'\x00\t\n\r "+-.0125:;=Gafx\\\x7f\xb2')):
            for after in (at, at + 1):
                data = body[:at] + byte + body[after:] + behind
                pieces = [data] if split == "whole" else cut(data, list(range(len(data))))
                told = feed(pieces, data_only=False)
                end = ends_of_chunks(data)
                assert isinstance(told, str) == (end < 0), data
                if not isinstance(told, str):
                    assert told[1] == data[end:], data
                    body_read = read_request(POST + told[0]).body
                    assert feed(pieces, data_only=True)[0] == body_read, data
                    assert told[2] == len(body_read), data
