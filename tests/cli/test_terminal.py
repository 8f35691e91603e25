"""Colour, columns, progress and redrawing."""

from __future__ import annotations

import io
import os

import pytest

from bgproxy.cli.terminal import Paint, Progress, Region, columns, cut, fold, redraw, show


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _small_terminal(monkeypatch):
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_, **__: os.terminal_size((20, 5)))
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_colour_only_on_terminals(monkeypatch):
    """A terminal gets colour; NO_COLOR, a dumb terminal and a pipe do not."""
    assert Paint.of(Terminal())("x", "red") == "\x1b[31mx\x1b[0m"
    assert Paint.of(io.StringIO())("x", "red") == "x"
    monkeypatch.setenv("TERM", "dumb")
    assert Paint.of(Terminal())("x", "red") == "x"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert Paint.of(Terminal())("x", "red") == "x"


def test_unknown_styles_are_none():
    """A state that has no colour is printed as it is."""
    assert Paint(on=True)("x", "standby") == "x"


def test_columns():
    """Widths are those of what is seen; numbers stand right; nothing trails."""
    red = Paint(on=True)("no", "red")
    assert columns([["a", "1", "x"], [red, "100", ""]], right=frozenset({1})) == ["a     1  x", f"{red}  100"]
    assert columns([]) == []


def test_progress_on_a_terminal():
    """One line, redrawn, cut to the width, and cleared before a line that stays."""
    out = Terminal()
    progress = Progress(out)
    progress.show("x" * 30, 0.0)
    progress.show("y", 0.1)
    progress.clear()
    progress.clear()
    assert out.getvalue() == "\r\x1b[K" + "x" * 19 + "\r\x1b[Ky" + "\r\x1b[K"


def test_progress_elsewhere():
    """A line when something changed, not more than one in five seconds."""
    out = io.StringIO()
    progress = Progress(out)
    for text, now in [("a", 0.0), ("b", 1.0), ("b", 4.9), ("b", 5.0), ("b", 20.0), ("c", 20.1)]:
        progress.show(text, now)
    progress.clear()
    assert out.getvalue() == "a\nb\nc\n"


def test_redraw():
    """A terminal is overwritten from its corner and cut to its height; anything else gets blocks."""
    out = Terminal()
    redraw(["a", "b"], out)
    assert out.getvalue() == "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J"
    out = Terminal()
    redraw(list("abcdefg"), out)
    assert "c\x1b[K\n... 4 more lines" in out.getvalue()
    plain = io.StringIO()
    redraw(["a", "b"], plain)
    assert plain.getvalue() == "a\nb\n\n"


def test_redraw_on_a_narrow_terminal():
    """Lines that the terminal would break are broken before, and count for the height."""
    out = Terminal()
    redraw(["a" * 12 + " " + "b" * 12, "c"], out)
    assert out.getvalue() == f"\x1b[H{'a' * 12}\x1b[K\n  {'b' * 12}\x1b[K\nc\x1b[K\n\x1b[J"
    out = Terminal()
    redraw(["a" * 12 + " " + "b" * 12] * 3, out)
    assert out.getvalue().count("\n") == 4
    assert "... 3 more lines" in out.getvalue()


def test_cut():
    """At the width that is seen; a colour that is cut into ends."""
    red = Paint(on=True)("abcdef", "red")
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdef", 3) == "abc"
    assert cut(red, 6) == red
    assert cut(red, 3).startswith("\x1b[31mabc\x1b[0m")


def test_a_region_is_redrawn_in_its_place():
    """Over its former lines, cut to the width and the height, and gone when it is cleared."""
    out = Terminal()
    region = Region(out)
    region.clear()
    region.show(["a", "x" * 30])
    region.show(list("bcdefg"))
    region.clear()
    region.clear()
    assert out.getvalue() == (
        f"\ra\x1b[K\n{'x' * 19}\x1b[K\n\x1b[J\x1b[2A\rd\x1b[K\ne\x1b[K\nf\x1b[K\ng\x1b[K\n\x1b[J\x1b[4A\r\x1b[J"
    )
    assert Region.suits(out)
    assert not Region.suits(io.StringIO())


def test_wide_characters_take_two_columns():
    """And accents of their own none: a line of them must not wrap where it is redrawn."""
    assert cut("检查一二三", 6) == "检查一"
    assert cut("检查一二三", 5) == "检查"
    assert cut("e\u0301" * 4, 3) == "e\u0301" * 3
    assert cut(Paint(on=True)("检查", "red"), 3) == "\x1b[31m检\x1b[0m\x1b[0m"
    assert columns([["检", "a"], ["xy", "b"]]) == ["检  a", "xy  b"]
    out = Terminal()
    Progress(out).show("检" * 20, 0.0)
    assert out.getvalue() == "\r\x1b[K" + "检" * 9


def test_fold():
    """At blanks, deeper than the first line; what has none is left to the terminal. Colours take no width."""
    assert fold("abc def", 7) == ["abc def"]
    assert fold("abc def ghi", 7) == ["abc def", "  ghi"]
    assert fold("    ab cd ef gh", 9) == ["    ab cd", "      ef", "      gh"]
    assert fold("a" * 10 + " b", 5) == ["a" * 10, "  b"]
    assert fold(f"{Paint(on=True)('ok', 'green')} abcd", 7) == ["\x1b[32mok\x1b[0m abcd"]


def test_show():
    """Folded on a terminal; elsewhere each line is one, for grep."""
    out, plain = Terminal(), io.StringIO()
    for stream in (out, plain):
        show(["a" * 12 + " " + "b" * 12, "c"], stream)
    assert out.getvalue() == f"{'a' * 12}\n  {'b' * 12}\nc\n"
    assert plain.getvalue() == f"{'a' * 12} {'b' * 12}\nc\n"
