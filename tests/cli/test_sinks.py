"""Where a deployment is shown. What a whole one looks like is in test_following.py."""

from __future__ import annotations

import io
import os

import pytest
from support.fake_admin import deployment, result

from bgproxy.cli.sinks import EVERY, Lines, Screen


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """40 columns and 10 lines, without colour."""
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_, **__: os.terminal_size((40, 10)))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    return Terminal()


def shown(terminal):
    """The lines that stay."""
    return [line.rpartition("\x1b[J")[2] for line in terminal.getvalue().splitlines() if "\x1b[K" not in line]


def steps(*states):
    return deployment(*states)["steps"][1:]


def test_lines_that_stay_are_broken_at_blanks(terminal):
    """Deeper than their first line, and within the width."""
    screen = Screen(terminal)
    verifying, switching = steps("verifying", "switching")
    screen.entered(verifying)
    screen.found(result("verifying", "replayed GETs", found="67 GETs of the 3 paths seen most; 14ms"))
    screen.left(verifying, switching)
    assert shown(terminal) == [
        "✓ verifying  1.0 s",
        "    ✓ replayed GETs: 67 GETs of the 3",
        "      paths seen most; 14ms",
    ]


def test_a_stage_with_something_that_failed_is_not_marked_as_good(terminal):
    """A command that was to retire the old pool failed: that ends nothing, and is seen."""
    screen = Screen(terminal)
    retiring, succeeded = steps("retiring", "succeeded")
    screen.entered(retiring)
    screen.found(result("retiring", "retire", ok=False, found="status 3"))
    screen.left(retiring, succeeded)
    assert shown(terminal)[0] == "✗ retiring  1.0 s"


def test_what_was_found_so_far_stands_below_its_stage(terminal):
    """After a Ctrl-C too."""
    screen = Screen(terminal)
    screen.entered(steps("verifying")[0])
    screen.found(result("verifying", "cart", found="status 200"))
    screen.progress(deployment("verifying"))
    screen.end()
    screen.end()
    assert shown(terminal)[-2:] == ["  verifying", "    ✓ cart: status 200"]


def test_a_stage_that_begins_anew_says_so(terminal):
    """And forgets what it has found."""
    screen = Screen(terminal)
    (verifying,) = steps("verifying")
    screen.entered(verifying)
    screen.found(result("verifying", "cart", found="status 200"))
    screen.again(verifying)
    screen.end()
    assert shown(terminal) == ["  verifying begins anew, since bgproxy", "    was restarted", "  verifying"]


def test_who_was_asked_is_not_told_that_it_waits(capsys):
    """The question stands there already."""
    now = 0.0
    lines = Lines(lambda: now)
    progress = {"share": None, "text": "waits for `bgproxy approve`", "figures": {}}
    for now in (1.0, 2 * EVERY):  # noqa: B007 - the clock of the lines
        lines.progress(deployment("awaiting_approval", waits=True, progress=progress))
    assert capsys.readouterr().out == ""
