"""Properties of what upstreams may send: one answer to one request, whatever it is, and never a second one."""

from __future__ import annotations

import pytest
from fuzz.seeds import RESPONSES
from hypothesis import example, given
from hypothesis import strategies as st
from support.judging import Sent, check_response, check_response_at_any_split, check_what_is_kept
from support.nearly import DATA, answers, places, responses

methods = st.sampled_from([b"GET", b"GET", b"HEAD", b"POST"])
minors = st.sampled_from([1, 1, 0])
orders = st.integers(0, 1000)


@given(data=answers(), cuts=places, method=methods, minor=minors, primed=st.booleans(), order=orders)
@example(
    data=b"HTTP/1.1 100 x\r\n\r\n\r\n\r\nHTTP/1.1 204 x\r\n\r\n",
    cuts=[20, 22],
    method=b"GET",
    minor=1,
    primed=False,
    order=0,
)
def test_an_answer_is_relayed_as_a_strict_reader_read_it(data, cuts, method, minor, primed, order):
    """The same to h11, or 502, or cut short; what is behind it reaches nobody; the next request gets its own answer."""
    check_response_at_any_split(data, cuts, method, minor, primed=primed, order=order)


@given(data=responses(), cuts=places, primed=st.booleans(), order=orders)
def test_a_sound_answer_is_relayed(data, cuts, primed, order):
    """Not refused, not cut short."""
    outcome = check_response(data, cuts, primed=primed, order=order)
    assert not {"refused", "repeated", "cut short"} & {each for each in outcome if isinstance(each, str)}


@pytest.mark.parametrize("name", RESPONSES)
@pytest.mark.parametrize("minor", [0, 1])
def test_the_seeds_hold_too(name, minor):
    """What fuzzing begins with, and what it has found before."""
    data = RESPONSES[name]
    for method in (b"GET", b"HEAD"):
        check_response_at_any_split(data, list(range(len(data))), method, minor)


OK = b"HTTP/1.1 200 OK\r\n"
SOUND = {
    "a length": OK + b"Content-Length: 5\r\n\r\nhello",
    "a length, dated": OK + b"Date: x\r\nContent-Length: 5\r\n\r\nhello",
    "no length": OK + b"Date: x\r\nContent-Length: 0\r\n\r\n",
    "chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n5;a\r\nhello\r\n0\r\nX: 1\r\n\r\n",
    "no content": b"HTTP/1.1 204 x\r\nDate: x\r\n\r\n",
    "not modified": b"HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n",
    "an interim one": b"HTTP/1.1 103 x\r\n\r\n" + OK + b"Date: x\r\nContent-Length: 2\r\n\r\nok",
    "the last one": OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok",
    "1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("behind", [b"", b"x", b"\r\n", OK + b"Content-Length: 4\r\n\r\nevil"])
@pytest.mark.parametrize("minor", [0, 1])
def test_nothing_follows_an_answer(name, behind, minor):
    """Cut anywhere, with or without more behind it: a connection with surplus bytes carries nothing more, any other does."""
    data = SOUND[name]
    for at in range(len(data) + 1):
        check_what_is_kept([Sent(data, behind, [at], minor=minor)])
    check_what_is_kept([Sent(data, behind, list(range(len(data + behind))), minor=minor)])


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("minor", [0, 1])
def test_an_answer_means_the_same_after_its_like(name, method, minor):
    """A connection remembers the last head: no less, no more and nothing before an answer is passed over for that."""
    data = SOUND[name]
    end = (data.rfind if name == "an interim one" else data.find)(b"\r\n\r\n") + 4
    same = Sent(data if method == b"GET" else data[:end], method=method, minor=minor)
    first = [Sent(data), Sent(data)]
    for last in (
        same,
        Sent(same.data, b"x", method=method, minor=minor),
        Sent(same.data, b"x", [len(same.data)], method=method, minor=minor),
        Sent(same.data, same.data, method=method, minor=minor),
        Sent(same.data, cuts=[end, 3], method=method, minor=minor),
        Sent(b"H" + data, cuts=[1], method=method, minor=minor),
        Sent(OK + b"X: \x00" + data, cuts=[len(OK) + 4], method=method, minor=minor),
    ):
        check_what_is_kept([*first, last])
        check_what_is_kept([*first, last, Sent(data)])


@st.composite
def sent_in_a_row(draw):
    """Answers of upstreams that announce their ends, each the same as before, another, or malformed; some with more behind."""
    row = []
    for _ in range(draw(st.integers(1, 4))):
        method = b"GET" if draw(st.integers(0, 3)) else b"HEAD"
        sound = responses(announced=True) if method == b"GET" else responses(bodies=False)
        data = row[-1].data if row and row[-1].method == method and draw(st.booleans()) else draw(sound)
        behind = draw(st.one_of(st.just(b""), st.just(b""), DATA, responses()))
        row.append(Sent(data, behind, draw(places), method, draw(minors)))
    return row


@given(row=sent_in_a_row(), order=orders)
def test_surplus_bytes_cost_the_connection(row, order):
    """And nobody else is answered with them; without any the connection is kept, if it may be."""
    check_what_is_kept(row, order=order)


@pytest.mark.parametrize("begun", [b"H", b"\r\n", b"HTTP/1.1 200 OK\r\nDate: x\r\n"])
def test_an_answer_that_has_begun_is_not_asked_for_again(begun):
    """Not a byte of it may have come: else 502."""
    assert check_response(b"", [], primed=True) == ["repeated"]
    assert check_response(begun, [], primed=True) == ["refused"]


@pytest.mark.parametrize(
    "second", [b"Content-Length: 5", b"content-length:6", b"Content-Length: 0", b"Transfer-Encoding: chunked"]
)
@pytest.mark.parametrize("between", [b"", b"X-A: 1\r\n"])
@pytest.mark.parametrize("swapped", [False, True])
def test_an_answer_with_two_framings_is_refused(second, between, swapped):
    """Two lengths, alike or not, or a length and a coding, in either order: 502, whatever the body is."""
    first = b"Content-Length: 5"
    if swapped:
        first, second = second, first
    for body in (b"hello", b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"):
        data = OK + first + b"\r\n" + between + second + b"\r\n\r\n" + body
        outcome = check_response_at_any_split(data, [len(data) // 2, len(data) - 3])
        assert outcome in (["refused"], ["cut short"])
        assert check_response(data, []) == outcome
