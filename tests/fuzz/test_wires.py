"""Properties of what an idle pool's upstreams may send to the controller, which asks them in checks, comparisons and warm-ups."""

from __future__ import annotations

import pytest
from fuzz.seeds import RESPONSES
from hypothesis import given
from hypothesis import strategies as st
from support.judging import places_of
from support.nearly import answers, places, responses
from support.wired import check_wire

methods = st.sampled_from([b"GET", b"GET", b"HEAD"])


@given(data=answers(), cuts=places, method=methods)
def test_any_bytes_are_an_answer_or_none(data, cuts, method):
    """Never a traceback or a wait without end, and what is taken means the same to h11."""
    check_wire(data, cuts, method)


@given(data=responses(), cuts=places)
def test_a_sound_answer_is_taken(data, cuts):
    """In whatever pieces it comes."""
    assert len(check_wire(data, cuts)) > 1


@given(data=responses(), bodies=st.booleans())
def test_byte_by_byte_is_as_good_as_whole(data, bodies):
    """The finest split of all."""
    data = data[:2000]
    check_wire(data, list(range(len(data))), b"GET" if bodies else b"HEAD")


@pytest.mark.parametrize("name", RESPONSES)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_the_seeds_hold_too(name, method):
    """What fuzzing begins with, and what it has found before."""
    data = RESPONSES[name]
    check_wire(data, places_of(data)[0], method)
    check_wire(data, list(range(len(data))), method)
