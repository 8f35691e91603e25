"""The parser of a verb."""

from __future__ import annotations

import argparse

import pytest

from bgproxy.cli.exits import UsageError
from bgproxy.cli.parser import Parser, if_match, service_and_pool


def test_a_mistake_is_raised():
    """With the usage, and where to read more."""
    parser = Parser("switch", "Does it.")
    with pytest.raises(UsageError, match=r"(?s)unknown option '--x'\nusage: bgproxy switch.*`bgproxy switch --help`"):
        parser.parse_args(["--x"])


def test_options_are_not_guessed():
    """--forc is not --force: what works today must not become ambiguous tomorrow."""
    parser = Parser("switch", "Does it.")
    parser.add_argument("--force", action="store_true")
    with pytest.raises(UsageError):
        parser.parse_args(["--forc"])


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], (None, None)),
        (["shop"], ("shop", None)),
        (["green"], (None, "green")),
        (["shop", "blue"], ("shop", "blue")),
        (["green", "green"], ("green", "green")),
    ],
)
def test_service_and_pool(words, found):
    """Either may be left out; a lone pool's name is the pool."""
    assert service_and_pool(Parser("x", "x"), words) == found


def test_if_match():
    """A generation becomes an entity tag; none, no header."""
    assert if_match(argparse.Namespace(if_generation=7)) == {"If-Match": '"7"'}
    assert if_match(argparse.Namespace(if_generation=None)) == {}


def test_examples_are_aligned():
    """Commands and what they do stand in columns at the end of the help."""
    parser = Parser("x", "Does it.")
    parser.examples(("bgproxy x", "one"), ("bgproxy x --long", "two"))
    assert parser.format_help().endswith("examples:\n  bgproxy x          one\n  bgproxy x --long   two\n")


def test_what_was_meant():
    """A slip in an option, a word too many, and a number that is none, in our words."""
    parser = Parser("deploy", "Does it.")
    parser.add_argument("--version")
    parser.add_argument("--limit", type=int)
    for typed, says in (
        (["--verison", "2"], "unknown option '--verison'; did you mean --version?\n"),
        (["--verison=2"], "unknown option '--verison'; did you mean --version?\n"),
        (["x"], "'x' is one word too many\n"),
        (["--limit", "ten"], "argument --limit: not a whole number: 'ten'\n"),
    ):
        with pytest.raises(UsageError) as caught:
            parser.parse_args(typed)
        assert str(caught.value).startswith(says)


def test_examples_on_a_narrow_terminal(monkeypatch):
    """What a command does stands above it, where both do not fit into a line."""
    parser = Parser("switch", "Does it.")
    monkeypatch.setenv("COLUMNS", "80")
    parser.examples(("bgproxy switch", "short"))
    assert parser.epilog == "examples:\n  bgproxy switch   short"
    monkeypatch.setenv("COLUMNS", "20")
    parser.examples(("bgproxy switch", "short"))
    assert parser.epilog == "examples:\n  # short\n  bgproxy switch"
