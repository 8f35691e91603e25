"""YAML to nodes: texts as written, lines, duplicates, merges."""

from __future__ import annotations

from bgproxy.config import nodes


def test_scalars_stay_text():
    """No scalar is turned into a number, a boolean or a time."""
    root = nodes.parse("a: off\nb: 1.10\nc: 0o17\nd: 12:30\ne: 'x'\nf: 1_000\n", "f")
    assert {key: entry.value.text for key, entry in root.entries.items()} == {
        "a": "off",
        "b": "1.10",
        "c": "0o17",
        "d": "12:30",
        "e": "x",
        "f": "1_000",
    }


def test_only_plain_scalars_are_null():
    """Nothing, ~ and null say nothing; quoted they are texts."""
    root = nodes.parse("- \n- ~\n- null\n- ''\n- 'null'\n- no\n", "f")
    assert [item.is_null for item in root.items] == [True, True, True, False, False, False]


def test_lines():
    """Every entry and item knows the line that it stands on, counted from 1."""
    root = nodes.parse("# comment\na:\n  - x\n  - y\nb: {c: 1,\n    d: 2}\n", "f")
    assert root.entries["a"].line == 2
    assert [item.line for item in root.entries["a"].value.items] == [3, 4]
    assert [entry.line for entry in root.entries["b"].value.entries.values()] == [5, 6]


def test_duplicates_keep_the_first():
    """Of two entries with one key the first is kept; both lines are known."""
    root = nodes.parse("a: 1\nb: 2\na: 3\n", "f")
    assert root.entries["a"].value.text == "1"
    assert root.duplicates == [("a", 3, 1)]


def test_merges_fill_in():
    """`<<` adds what the mapping does not say itself, wherever it stands; the first of several wins."""
    root = nodes.parse(
        "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz: {<<: [*x, *y], a: 0}\nw: {<<: *x, v: {<<: *y}}\n", "f"
    )

    def values(key):
        return {name: entry.value.text for name, entry in root.entries[key].value.entries.items() if name != "v"}

    assert values("z") == {"a": "0", "b": "1", "c": "2"}
    assert values("w") == {"a": "1", "b": "1"}


def test_nothing_is_none():
    """A text without content has no root."""
    assert nodes.parse("", "f") is None
    assert nodes.parse("---\n", "f") is None
