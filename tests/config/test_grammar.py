"""Which names and paths fit, and what is said of those that do not: what was found, and what to write."""

from __future__ import annotations

import pytest

from bgproxy.config.grammar import PATH, PATH_AND_QUERY, TOKEN, path_mistake, token_mistake


@pytest.mark.parametrize("name", ["X-Preview", "a", "!#$%&'*+.^_`|~0-", "x" * 256])
def test_tokens_fit(name):
    """All that RFC 9110 section 5.6.2 allows, up to a length."""
    assert TOKEN.fullmatch(name)


@pytest.mark.parametrize("name", ["", "a b", "a:", "a=b", "é", "a\n", "x" * 257, '"a"', "a;b", "(a)"])
def test_what_is_no_token_does_not_fit(name):
    """Separators, spaces, ends of lines and other scripts would change what a header or a cookie says."""
    assert not TOKEN.fullmatch(name)


@pytest.mark.parametrize("path", ["/", "/a/b", "/a%20b", "//", "/:@!$&'()*+,;=-._~"])
def test_paths_fit(path):
    """RFC 3986 section 3.3, with or without a query behind."""
    assert PATH.fullmatch(path)
    assert PATH_AND_QUERY.fullmatch(path)


@pytest.mark.parametrize("path", ["", "a", "/a b", "/%2", "/%zz", "/a#b", "/é", "/a\n", "/a\r\nHost: b"])
def test_what_is_no_path_does_not_fit(path):
    """Nothing that would end a request line early, and no half escape."""
    assert not PATH.fullmatch(path)
    assert not PATH_AND_QUERY.fullmatch(path)


@pytest.mark.parametrize(("path", "fits"), [("/?", True), ("/a?b=c&d=/?", True), ("/a?b c", False), ("/a?%4", False)])
def test_a_query_is_for_those_who_may_have_one(path, fits):
    """The one expression takes it, the other never does."""
    assert bool(PATH_AND_QUERY.fullmatch(path)) == fits
    assert not PATH.fullmatch(path)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "is empty: write / or /api"),
        ("api", "'api' does not begin with a slash: write /api"),
        ("/a?b", "'/a?b' has a query or a fragment: write the path alone, /a"),
        ("/a#b", "'/a#b' has a query or a fragment: write the path alone, /a"),
        ("/a b", "'/a b' has characters that a path cannot have: write them as %XX, such as %20 for a space"),
    ],
)
def test_what_is_wrong_with_a_path(path, said):
    """The first thing that is, with what to write."""
    assert path_mistake(path, "/api") == said


def test_what_is_wrong_with_a_name():
    """What kind of name it is to be, and one that would do."""
    assert token_mistake("", "header", "X-Preview") == "is empty: write the name of a header, such as X-Preview"
    said = token_mistake("a b", "cookie", "preview")
    assert said.startswith("'a b' is not a name for a cookie: use letters, digits and ")
    assert said.endswith("such as preview")
