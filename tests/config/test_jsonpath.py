"""Paths into JSON documents: the part of RFC 9535 that is understood, and words for the part that is not."""

from __future__ import annotations

import json

import pytest

from bgproxy.config.jsonpath import MAX_STEPS, find, follow, parse

SHOP = {
    "total": 12,
    "items": [{"id": 1, "tags": ["a", "b"]}, {"id": 2, "tags": []}, "loose", None],
    "a name": {"": 0, "dotted.name": 1, "it's": 2, 'a"b': 3, "ä": 4, "☺": 5, "😀": 6, "\\": 7},
    "null": None,
    "0": "a name, no index",
}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$", [SHOP]),
        ("$.total", [12]),
        (" $.total ", [12]),
        ("$ .items [ 0 ] .id", [1]),
        ("$.items[0].id", [1]),
        ("$.items[-1]", [None]),
        ("$.items[-4].id", [1]),
        ("$.items[*].id", [1, 2]),
        ("$.items.*.id", [1, 2]),
        ("$.items[*].tags[*]", ["a", "b"]),
        ("$['total']", [12]),
        ('$["total"]', [12]),
        ("$['a name']['']", [0]),
        ("$['a name']['dotted.name']", [1]),
        (r"$['a name']['it\'s']", [2]),
        ("""$["a name"]["it's"]""", [2]),
        (r'$["a name"]["a\"b"]', [3]),
        ("$['a name'].ä", [4]),
        ("$['a name'].☺", [5]),
        (r"$['a name']['\u00e4']", [4]),
        (r"$['a name']['\ud83d\ude00']", [6]),
        (r"$['a name']['\\']", [7]),
        ("$['0']", ["a name, no index"]),
        ("$.null", [None]),
        # RFC 9535 section 2.3: what does not fit is no mistake, there is only nothing there.
        ("$.nowhere", []),
        ("$.total.deeper", []),
        ("$.items.id", []),
        ("$.items['0']", []),
        ("$[0]", []),
        ("$.items[4]", []),
        ("$.items[-5]", []),
        ("$.total[*]", []),
        ("$.items[2][0]", []),
    ],
)
def test_what_a_path_leads_to(text, found):
    """Names lead into objects, indexes into arrays, the wildcard into both, in the document's order."""
    assert find(parse(text), SHOP) == found


def test_every_member_of_an_object():
    """The wildcard takes objects as it takes arrays."""
    assert find(parse("$[*]"), {"a": 1, "b": [2]}) == [1, [2]]
    assert find(parse("$.*"), {"a": 1}) == [1]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        (r"$['\u0041\ud83d\ude00\u0042']", ("A😀B",)),
        ("$[0]['a'].*", (0, "a", None)),
        (r"$['\b\f\n\r\t\/']", ("\b\f\n\r\t/",)),
        (r"$['\u0061\u0062']", ("ab",)),
    ],
)
def test_how_a_path_is_read(text, steps):
    """Steps are names, indexes and None; escapes are those of JSON."""
    assert parse(text).steps == steps
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "does not begin with $: write $.total"),
        ("total", "does not begin with $: write $.total"),
        (".total", "write $.total"),
        ("[0]", "write $[0]"),
        ("$total", "write .total"),
        ("$.", "nothing after a dot"),
        ("$.a.", "nothing after a dot"),
        ("$.0", "'0' after a dot: write a name there"),
        (
            "$.a-b",
            "write ['a-b'], since a name after a dot has letters, digits and _ only (in the step at character 4)",
        ),
        ("$.items[0].0", "(in the step at character 11)"),
        ("$[" + "9" * 5000 + "]", "too large: …"),
        ("a\x1b[31m", "write $.…"),
        ("$['a']\x1b", "write ['…']"),
        ("$.a b", "write .b"),
        ("$..a", "'..' are not understood here; names, [0]"),
        ("$[?@.a]", "filters are not understood"),
        ("$[1:2]", "slices are not understood"),
        ("$[:2]", "slices are not understood"),
        ("$[0,1]", "several selectors"),
        ("$['a','b']", "several selectors"),
        ("$[]", "no step in its brackets"),
        ("$[", "no step in its brackets"),
        ("$[a]", "no step in its brackets: write [0], [*] or ['name']"),
        ("$[-0]", "no step in its brackets"),
        ("$[01]", "not closed"),
        ("$['a'", "not closed"),
        ("$['a", "no step in its brackets"),
        ("$['a\x00']", "no step in its brackets"),
        (r"$['\x']", r"unknown escape: \x"),
        (r"$['\"']", "unknown escape"),
        (r"$['\ud83d']", "half of a surrogate pair"),
        (r"$['\ud83dx']", "half of a surrogate pair"),
        (r"$['\ude00\ud83d']", "half of a surrogate pair"),
        ("$[9007199254740992]", "too large"),
        ("$" + ".a" * (MAX_STEPS + 1), "more than 64 steps"),
    ],
)
def test_what_is_no_path(text, says):
    """A ValueError names what is wrong, and how to write it."""
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("texts", "key", "size", "left"),
    [
        ([], "a", 1, ()),
        (["$.a", "$.a.b", "$.b", "$[0]", "$"], "a", 1, ((), ("b",))),
        (["$[*].b", "$.*", "$[0]"], "a", 1, (("b",), ())),
        (["$[0]", "$[-3].x", "$[-2]", "$[*]", "$['0']"], 0, 3, ((), ("x",), ())),
        (["$[-1]", "$[2].y"], 2, 3, ((), ("y",))),
    ],
)
def test_what_is_left_to_go(texts, key, size, left):
    """Of the paths that lead through a child; an empty one leads to it."""
    assert follow([parse(text).steps for text in texts], key, size) == left


def test_deep_documents_do_not_matter():
    """A document may be as deep as `json.loads` reads: the path's length says how far it is walked."""
    deep = json.loads("[" * 900 + "]" * 900)
    assert find(parse("$[0][0][0]"), deep) != []
    longest = parse("$" + "[0]" * MAX_STEPS)
    assert len(find(longest, deep)) == 1
