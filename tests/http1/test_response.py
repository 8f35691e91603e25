"""Response heads: what is relayed, what is 502, and which bytes go on (numbers: rows of the rules in docs)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgproxy.http1.errors import BadResponse
from bgproxy.http1.names import NameTable
from bgproxy.http1.response import MAX_FIELDS, is_event_stream, parse_response_head

BOUNDED = settings(max_examples=100, deadline=None, derandomize=True, database=None)


def parse(*lines, status=b"HTTP/1.1 200 OK"):
    return parse_response_head(b"".join(line + b"\r\n" for line in (status, *lines)), NameTable())


def refused(*lines, status=b"HTTP/1.1 200 OK"):
    with pytest.raises(BadResponse) as caught:
        parse(*lines, status=status)
    assert caught.value.status == 502
    return caught.value.detail


# --- the status line ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"HTTP/1.1 200 OK", 200),
        (b"HTTP/1.1 404 ", 404),
        (b"HTTP/1.1 301", 301),
        (b"HTTP/1.1 599 What\tever \xe9", 599),
        (b"HTTP/1.1 200  two spaces", 200),
    ],
)
def test_a_status_line_goes_on_as_it_came(line, status):
    """The reason phrase is the upstream's, and may be missing with its space."""
    response = parse(status=line)
    assert response.status == status
    assert response.forwarded == line + b"\r\n"
    assert response.untouched


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"HTTP/1.1",
        b"HTTP/1.1 ",
        b"HTTP/1.1 20",
        b"HTTP/1.1 2000",
        b"HTTP/1.1 2x0 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1\t200 OK",
        b"HTTP/1.1 200\tOK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 600 OK",
        b"HTTP/1.1 \xb2\xb2\xb2 OK",
        b"HTTP/1.1 -20 OK",
        b"HTTP/2.0 200 OK",
        b"HTTP/0.9 200 OK",
        b"http/1.1 200 OK",
        b"RTSP/1.0 200 OK",
        b" HTTP/1.1 200 OK",
        b"<html>",
    ],
)
def test_what_is_no_status_line_is_rubbish(line):
    """Row 62: 502."""
    refused(status=line)


def test_a_1_0_answer_goes_on_as_1_1():
    """The version is ours to say (RFC 9110 section 6.2); the connection closes unless it says keep-alive."""
    response = parse(b"A: b", status=b"HTTP/1.0 200 Fine")
    assert response.forwarded == b"HTTP/1.1 200 Fine\r\nA: b\r\n"
    assert response.close
    assert not response.untouched
    assert not parse(b"Connection: Keep-Alive", status=b"HTTP/1.0 200 OK").close


@pytest.mark.parametrize(
    ("status", "bodyless"), [(100, True), (103, True), (204, True), (304, True), (200, False), (205, False)]
)
def test_which_answers_have_no_body(status, bodyless):
    """Row 46: 1xx, 204 and 304 have none, whatever the fields say."""
    assert parse(b"Content-Length: 5", status=b"HTTP/1.1 %d X" % status).bodyless is bodyless


@pytest.mark.parametrize("status", [100, 103, 204])
def test_an_answer_that_cannot_have_a_body_announces_none(status):
    """Row 46: Content-Length is not forwarded where none may be sent (RFC 9110 section 8.6); 304 keeps it."""
    assert parse(b"Content-Length: 5", status=b"HTTP/1.1 %d X" % status).forwarded == b"HTTP/1.1 %d X\r\n" % status
    assert parse(b"Content-Length: 5", status=b"HTTP/1.1 304 X").untouched


# --- fields -------------------------------------------------------------------------------------------------------------


def test_what_needs_no_edit_goes_on_to_the_byte():
    """Row 24: order, case, white space, 8-bit bytes, and every Set-Cookie on a line of its own."""
    head = (
        b"HTTP/1.1 200 OK\r\nset-cookie:a=1\r\nSet-Cookie: b=2\r\nX: \xff\x85 \r\nServer: odd\r\nContent-Length:\t5\r\n"
    )
    response = parse_response_head(head, NameTable())
    assert response.forwarded is head
    assert response.untouched
    assert response.length == 5


@pytest.mark.parametrize(
    "line", [b"A : b", b"A\t: b", b" folded", b"\tfolded", b"no colon", b": b", b"A B: c", b"\xe9: a"]
)
def test_a_line_that_is_no_field_is_rubbish(line):
    """Rows 15, 17: 502, not stripped and not unfolded."""
    refused(line)
    refused(b"A: b", line)


@pytest.mark.parametrize("byte", [*(set(range(32)) - {9}), 127])
def test_no_control_character_stands_in_a_value(byte):
    """Rows 18, 59: a split of the response is refused, not forwarded."""
    refused(b"A: b" + bytes([byte]) + b"c")


def test_too_many_fields_are_rubbish():
    """A bound of ours: the operator's is for requests."""
    parse(*[b"A: b"] * (MAX_FIELDS - 1))
    refused(*[b"A: b"] * MAX_FIELDS)


def test_a_date_is_noticed():
    """Row 45: an answer without one gets one."""
    assert parse(b"date: Mon, 23 Nov 2026 00:00:00 GMT").dated
    assert not parse(b"X-Date: x").dated


# --- framing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"+5", b"-1", b"0x5", b"5 6", b"5,5", b"", b"1_0", b"\xb2", b"1" * 19])
def test_a_length_that_is_no_number_is_rubbish(value):
    """Row 32."""
    refused(b"Content-Length: " + value)


@pytest.mark.parametrize("second", [b"5", b"6"])
def test_a_second_length_is_rubbish(second):
    """Row 32, were it the same."""
    refused(b"Content-Length: 5", b"content-length: " + second)


def test_a_chunked_answer_is_known_and_its_line_is_left_to_us():
    """The connection writes the coding that the client gets."""
    response = parse(b"transfer-encoding: Chunked", b"A: b")
    assert response.chunked
    assert response.forwarded == b"HTTP/1.1 200 OK\r\nA: b\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        (b"Transfer-Encoding: gzip",),
        (b"Transfer-Encoding: gzip, chunked",),
        (b"Transfer-Encoding: chunked, chunked",),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: identity",),
        (b"Transfer-Encoding: chunked;a",),
        (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    ],
)
def test_a_coding_that_is_not_one_chunked_is_rubbish(lines):
    """Row 32: 502, and no guess where the body ends."""
    refused(*lines)


def test_an_empty_coding_is_rubbish_too():
    """Row 32: a field that is there and says nothing frames nothing."""
    refused(b"Transfer-Encoding:")
    refused(b"Transfer-Encoding:", b"Content-Length: 5")


def test_a_coding_in_1_0_is_rubbish():
    """RFC 9112 section 6.1: an HTTP/1.0 message with Transfer-Encoding has faulty framing."""
    refused(b"Transfer-Encoding: chunked", status=b"HTTP/1.0 200 OK")


@pytest.mark.parametrize(("status", "wrong"), [(204, True), (101, True), (103, True), (304, False)])
def test_a_coding_where_no_body_can_be(status, wrong):
    """RFC 9112 section 6.1: not in 1xx and 204; in 304 it says what a GET would have had."""
    if wrong:
        refused(b"Transfer-Encoding: chunked", status=b"HTTP/1.1 %d X" % status)
    else:
        assert parse(b"Transfer-Encoding: chunked", status=b"HTTP/1.1 %d X" % status).bodyless


# --- Connection ---------------------------------------------------------------------------------------------------------


def test_hop_by_hop_fields_do_not_go_on():
    """Row 38, in this direction too."""
    response = parse(
        b"Connection: close, X-Mine",
        b"x-mine: 1",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: x",
        b"Upgrade: h2",
        b"A: b",
    )
    assert response.forwarded == b"HTTP/1.1 200 OK\r\nA: b\r\n"
    assert response.close
    assert response.upgrade == b"h2"


@pytest.mark.parametrize(
    "name", [b"Set-Cookie", b"Content-Length", b"Content-Type", b"Content-Encoding", b"Cache-Control"]
)
def test_connection_cannot_take_away_what_clients_decide_by(name):
    """Row 39 for answers."""
    assert name + b": 5" in parse(b"Connection: " + name, name + b": 5").forwarded


def test_the_status_line_is_never_nominated():
    """A phrase that looks like a field is none."""
    response = parse(b"Connection: http/1.1 200 a", b"A: b", status=b"HTTP/1.1 200 a: b")
    assert response.forwarded == b"HTTP/1.1 200 a: b\r\nA: b\r\n"


@pytest.mark.parametrize(
    ("lines", "status", "close"),
    [
        ((), b"HTTP/1.1 200 OK", False),
        ((b"Connection: CLOSE",), b"HTTP/1.1 200 OK", True),
        ((b"Connection: keep-alive", b"Connection: close"), b"HTTP/1.1 200 OK", True),
        ((b"Connection: keep-alive, close",), b"HTTP/1.0 200 OK", True),
        ((b"Connection: x",), b"HTTP/1.0 200 OK", True),
    ],
)
def test_who_closes(lines, status, close):
    """1.1 stays unless told otherwise, 1.0 goes unless told otherwise."""
    assert parse(*lines, status=status).close is close


@pytest.mark.parametrize(
    ("line", "events"),
    [
        (b"Content-Type: text/event-stream", True),
        (b"CONTENT-TYPE:Text/Event-Stream; charset=utf-8", True),
        (b"Content-Type: text/html", False),
        (b"X-Content-Type: text/event-stream", False),
    ],
)
def test_streams_of_events_are_known_by_their_type(line, events):
    """With parameters too, and in any case."""
    assert is_event_stream(parse(b"Date: x", line)) is events


# --- properties ---------------------------------------------------------------------------------------------------------


@BOUNDED
@given(
    tail=st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.sampled_from(
                [b"Connection: A", b"A: b", b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Date: x"]
            ),
        ),
        max_size=5,
    )
)
def test_bytes_are_relayed_whole_or_refused(tail):
    """Whatever passes has only whole lines, no control character, and one way to read its length."""
    try:
        response = parse(*tail)
    except BadResponse:
        return
    out = response.forwarded
    assert out.endswith(b"\r\n")
    assert out.count(b"\r\n") == out.count(b"\n") == out.count(b"\r")
    assert all(b":" in line for line in out.split(b"\r\n")[1:-1])
    assert not (response.chunked and response.length != -1)
    assert b"transfer-encoding" not in out.lower()
