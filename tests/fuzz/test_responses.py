"""Properties of what upstreams may send: one answer to one request, whatever it is, and never a second one."""

from __future__ import annotations

import pytest
from fuzz.seeds import RESPONSES
from hypothesis import example, given
from hypothesis import strategies as st
from support.judging import check_response, check_response_at_any_split
from support.nearly import answers, places, responses

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
