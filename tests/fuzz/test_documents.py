"""Properties of JSON answers: paths into them, and the comparison of two of them."""

from __future__ import annotations

import gzip
import json
import time
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.json_documents import DOCUMENTS, STEPS, ignored, leads, normal, places, replaced, without, written

from bgproxy.config.jsonpath import MAX_STEPS, Path, find, follow, parse
from bgproxy.control.deployments.comparing import Reply, Rules, differences
from bgproxy.control.deployments.words import brief

JSON = ("Content-Type", "application/problem+json; charset=utf-8")
paths = STEPS.map(lambda steps: Path("", steps))


# --- paths --------------------------------------------------------------------------------------------------------------


@given(data=st.data(), steps=STEPS)
def test_a_path_is_read_as_it_was_meant(data, steps):
    """However it is written: dots, brackets, either mark, escapes, blanks; and it prints as it was written."""
    text = data.draw(written(steps))
    path = parse(text)
    assert path.steps == steps
    assert str(path) == text


@given(document=DOCUMENTS, steps=STEPS)
def test_what_a_path_leads_to_is_what_a_second_reader_finds(document, steps):
    """In the order of the document; and step by step as at once."""
    found = [value for place, value in places(document) if leads(steps, place, document)]
    assert find(Path("", steps), document) == found
    for place, _ in places(document):
        left, value = (steps,), document
        for key in place:
            left, value = follow(left, key, len(value)), value[key]
        assert (() in left) == leads(steps, place, document)


@given(text=st.text("$.[]'\"*?:,\\ u0adDc89-\x00\n\x1bé😀", max_size=30).map(lambda text: "$" + text))
def test_any_text_is_a_path_or_a_mistake(text):
    """A mistake says in which step, and moves no cursor."""
    path, mistake = tried(text)
    if path is None:
        assert mistake.isprintable()
        assert 0 < int(mistake.rpartition("(in the step at character ")[2].rstrip(")")) <= len(text) + 1
    else:
        assert parse(str(path)) == path
        assert len(path.steps) <= MAX_STEPS


def tried(text):
    """The path that a text is, or what is wrong with it."""
    try:
        return parse(text), ""
    except ValueError as error:
        return None, str(error)


@pytest.mark.parametrize(
    "text",
    [
        "$" + "[" * 100_000,
        "$['" + "a" * 100_000,
        "$['" + "a" * 100_000 + "']x",
        "$['" + "\\'" * 100_000,
        "$['" + "\\u0041" * 50_000 + "\\ud800']",
        "$[" + "9" * 100_000 + "]",
        "$." + "a" * 100_000 + " " * 100_000 + "b",
        "$" + " " * 100_000 + "x",
        "$" + ".a" * 100_000,
        "." * 100_000,
    ],
    ids=lambda text: text[:8],
)
def test_no_text_takes_long(text):
    """Nor makes a long message of itself."""
    began = time.process_time()
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert time.process_time() - began < 0.5
    assert len(str(caught.value)) < 400


# --- documents ----------------------------------------------------------------------------------------------------------


def _utf16(data: bytes) -> bytes:
    return data.decode().encode("utf-16")


def _deflated(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(data) + coder.flush()


CODINGS = {
    "": bytes,
    "identity": bytes,
    "gzip": gzip.compress,
    "x-gzip": lambda data: gzip.compress(data[:3]) + gzip.compress(data[3:]),
    "deflate": zlib.compress,
    "Deflate": _deflated,
}


@st.composite
def replies(draw, document):
    """An answer with this document, written in one of many ways."""
    text = json.dumps(
        document,
        indent=draw(st.sampled_from([None, 0, 1])),
        ensure_ascii=draw(st.booleans()),
        sort_keys=draw(st.booleans()),
    )
    data = draw(st.sampled_from([bytes, lambda data: b"\xef\xbb\xbf" + data, _utf16]))(text.encode())
    coding = draw(st.sampled_from(sorted(CODINGS)))
    fields = (JSON, ("Content-Encoding", coding)) if coding else (JSON,)
    return Reply(status=200, headers=fields, body=CODINGS[coding](data))


def told(live, idle, ignore):
    """What differs, and what is told of it the other way round."""
    rules = Rules((), tuple(ignore))
    found, other = differences(live, idle, rules), differences(idle, live, rules)
    assert sorted((each.what, each.live, each.idle) for each in found) == sorted(
        (each.what, each.idle, each.live) for each in other
    )
    return found


@given(data=st.data(), document=DOCUMENTS, ignore=st.lists(paths, max_size=4))
def test_the_same_is_the_same_however_it_is_written(data, document, ignore):
    """And whatever is ignored."""
    assert told(data.draw(replies(document)), data.draw(replies(document)), ignore) == []


@given(data=st.data(), document=DOCUMENTS, ignore=st.lists(paths, max_size=3))
def test_one_difference_is_found_where_it_is(data, document, ignore):
    """Unless it is ignored, or something above it is; and nothing else is told."""
    place, value = data.draw(st.sampled_from(places(document)))
    in_object = bool(place) and isinstance(place[-1], str)
    other = without(document, place) if in_object and data.draw(st.booleans()) else replaced(document, place, "planted")
    found = told(data.draw(replies(document)), data.draw(replies(other)), ignore)
    if ignored([path.steps for path in ignore], place, document):
        assert found == []
    else:
        (difference,) = found
        assert difference.what == brief(normal(place))
        if not isinstance(value, dict | list):
            assert difference.live == brief(json.dumps(value, ensure_ascii=False))
        assert difference.idle in ('"planted"', "(none)")


@given(bodies=st.tuples(*[st.one_of(st.binary(max_size=40), st.text(max_size=20).map(str.encode))] * 2), data=st.data())
def test_any_bytes_can_be_compared(bodies, data):
    """Whatever their fields say of them: bodies that are the same are, others differ unless they are read as the same; nothing breaks."""
    fields = st.tuples(
        st.tuples(st.just("Content-Type"), st.sampled_from(["application/json", "text/html", ""])),
        st.tuples(st.just("Content-Encoding"), st.sampled_from(["", "gzip", "deflate", "br", "gzip, br", "x"])),
    )
    live, idle = (Reply(status=200, headers=data.draw(fields), body=body) for body in bodies)
    told(live, idle, [parse("$.a[*].b")])
    assert differences(live, live, Rules((), ())) == []
