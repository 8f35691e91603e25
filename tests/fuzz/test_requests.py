"""Properties of what clients may send: through the whole data plane, at any split, in any order of things."""

from __future__ import annotations

import pytest
from fuzz.seeds import REQUESTS
from hypothesis import example, given
from hypothesis import strategies as st
from support.judging import KINDS, check_refused, check_requests, check_requests_at_any_split, places_of
from support.nearly import places, requests, streams
from support.odd import FIELDS

kinds = st.lists(st.integers(0, KINDS - 1), min_size=1, max_size=4)
orders = st.integers(0, 1000)


@given(data=streams(3), cuts=places, kinds=kinds, order=orders)
@example(data=b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", cuts=[2, 4], kinds=[0], order=0)
@example(data=b"OPTIONS http://b/b HTTP/1.1\r\nHost: a\r\n\r\n", cuts=[], kinds=[0], order=0)
@example(data=b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nrubbish\r\n\r\n", cuts=[], kinds=[0], order=0)
def test_what_goes_on_is_what_a_strict_reader_read(data, cuts, kinds, order):
    """One message in is one out, the same to h11, answered in its turn; nothing depends on the split; nothing is left."""
    check_requests_at_any_split(data, cuts, kinds, order)


@given(sent=st.lists(requests(), min_size=1, max_size=6), cuts=places, kinds=kinds, order=orders, apart=st.booleans())
def test_sound_requests_are_answered_in_order(sent, cuts, kinds, order, apart):
    """Pipelined, cut anywhere or between two of them: as many answers as requests, none of them ours."""
    data = b"".join(sent)
    ends = [sum(map(len, sent[:count])) for count in range(1, len(sent))]
    outcome = check_requests(data, ends if apart else cuts, kinds, order)
    finals = [each for each in outcome if isinstance(each, str) or each[0] >= b"200"]
    assert len(finals) == len(sent)
    assert not {"ours", "refused"} & {each for each in finals if isinstance(each, str)}


@given(data=streams(2), kinds=kinds)
def test_byte_by_byte_is_as_good_as_whole(data, kinds):
    """The finest split of all."""
    data = data[:2000]
    check_requests_at_any_split(data, list(range(len(data))), kinds)


@pytest.mark.parametrize("name", REQUESTS)
def test_the_seeds_hold_too(name):
    """What fuzzing begins with, and what it has found before."""
    data = REQUESTS[name]
    cuts, kinds, _ = places_of(data)
    check_requests_at_any_split(data, cuts, kinds)
    check_requests_at_any_split(data, list(range(len(data))), kinds)


LENGTHS = [b"Content-Length: 5", b"content-length:5", b"Content-Length: 0", b"CONTENT-LENGTH: 6 "]
CODINGS = [b"Transfer-Encoding: chunked", b"transfer-encoding:CHUNKED"]


@given(
    pair=st.one_of(
        st.lists(st.sampled_from(LENGTHS), min_size=2, max_size=2),
        st.lists(st.sampled_from(CODINGS), min_size=2, max_size=2),
        st.tuples(st.sampled_from(LENGTHS), st.sampled_from(CODINGS)).map(list),
    ),
    others=st.lists(st.sampled_from(FIELDS), max_size=3, unique=True),
    body=st.sampled_from([b"hello", b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n"]),
    cuts=places,
    data=st.data(),
)
def test_a_request_with_two_framings_is_refused(pair, others, body, cuts, data):
    """Two lengths, alike or not, two codings, or one of each, anywhere among others: 400, and nothing is forwarded."""
    lines = data.draw(st.permutations([*pair, *others, b"Host: a"]))
    sent = b"POST / HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body
    check_refused(sent, cuts, 400)


@given(
    others=st.lists(st.sampled_from(FIELDS), max_size=2, unique=True),
    coding=st.sampled_from(CODINGS),
    stays=st.booleans(),
    cuts=places,
)
def test_a_coding_in_an_old_request_is_refused(others, coding, stays, cuts):
    """A proxy of HTTP/1.0 on the way would not have known it: 400 (http.md row 27)."""
    lines = [b"Host: a", *([b"Connection: keep-alive"] if stays else []), *others, coding]
    check_refused(b"POST / HTTP/1.0\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n0\r\n\r\n", cuts, 400)
