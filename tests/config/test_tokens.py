"""What is a token, wherever it is read."""

from __future__ import annotations

import os

import pytest

from bgproxy.config.tokens import LONGEST, SHORTEST, content_of, token_in


@pytest.mark.parametrize("around", ["{}", "{}\n", "{}\r\n", "  {}\t\n\n"])
def test_the_line_end_is_no_part_of_it(around):
    """Whatever editor or `echo` has put around it."""
    assert token_in(around.format("a" * SHORTEST)) == "a" * SHORTEST


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "is empty"),
        (" \n\t", "is empty"),
        ("x" * (SHORTEST - 1), "shorter than 16 characters and could be guessed"),
        ("x" * (LONGEST + 1), "so it is not a token"),
        ("two words of a token", "more than one word"),
        ("schlüssel" * 4, "no header can carry"),
        ("a\0" * 16, "no header can carry"),
        ("line-one-line-one\nline-two", "more than one word"),
    ],
)
def test_what_is_none_says_why_and_not_what_it_was(text, wrong):
    """The remedy is in it, the text is not."""
    with pytest.raises(ValueError, match=wrong) as caught:
        token_in(text)
    assert "openssl rand -hex 32" in str(caught.value)
    if text.strip():
        assert text.strip() not in str(caught.value)


@pytest.mark.parametrize("length", [SHORTEST, LONGEST])
def test_the_shortest_and_the_longest(length):
    """Both are tokens."""
    assert len(token_in("!" * length)) == length


def test_a_file_is_read_no_further_than_a_token_may_go(tmp_path):
    """Whatever somebody has put in its place."""
    (tmp_path / "t").write_bytes(b"x" * 10_000_000)
    content, mode = content_of(tmp_path / "t")
    assert LONGEST < len(content) < 2 * LONGEST
    assert mode & 0o400


def test_a_pipe_is_not_waited_for(tmp_path):
    """Nobody may ever write into it; and a second reading, at a reload, would find nothing."""
    os.mkfifo(tmp_path / "t")
    with pytest.raises(ValueError, match="is not a regular file"):
        content_of(tmp_path / "t")
