"""What the demo prints."""

from __future__ import annotations

import sys

import pytest

from bgproxy.cli.demo.guide import command, guide

GOOD = "http://127.0.0.1:9002"
SPOILED = {"down": "http://127.0.0.1:9003", "errors": "http://127.0.0.1:9004"}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory with a virtual environment, and nothing on PATH."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    script = tmp_path / ".venv/bin/bgproxy"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nonexistent")
    return tmp_path


def test_command_below_here(here, monkeypatch):
    """A path below the working directory is typed from there."""
    monkeypatch.setattr(sys, "argv", [str(here / ".venv/bin/bgproxy")])
    assert command() == ".venv/bin/bgproxy"


def test_command_on_path(here, monkeypatch):
    """A command that the shell finds is typed by its name, unless another is found under it."""
    monkeypatch.setenv("PATH", str(here / ".venv/bin"))
    monkeypatch.setattr(sys, "argv", [str(here / ".venv/bin/bgproxy")])
    assert command() == "bgproxy"
    monkeypatch.setattr(sys, "argv", ["/elsewhere/bin/bgproxy"])
    assert command() == "/elsewhere/bin/bgproxy"


def test_command_as_a_module(here, monkeypatch):
    """`python -m bgproxy` is repeated with the same python."""
    monkeypatch.setattr(sys, "argv", ["/x/bgproxy/__main__.py"])
    monkeypatch.setattr(sys, "executable", str(here / ".venv/bin/python"))
    assert command() == ".venv/bin/python -m bgproxy"


def test_guide_has_whole_commands():
    """Every command can be copied; the admin address is in them only where it is not the default."""
    usual = guide("http://127.0.0.1:8080", "http://127.0.0.1:8900", "bgproxy", GOOD, SPOILED)
    assert "\n  http://127.0.0.1:8080/ " in usual
    assert "\n  bgproxy switch  " in usual
    assert "--admin" not in usual
    other = guide("http://127.0.0.1:8081", "http://127.0.0.1:8901", "bgproxy", GOOD, SPOILED)
    assert "\n  bgproxy switch --admin http://127.0.0.1:8901  " in other
    assert "curl '" in other


def test_guide_has_a_deployment_of_each_kind():
    """The good one, and the bad ones with what is wrong with each and where it is caught."""
    text = guide("http://127.0.0.1:8080", "http://127.0.0.1:8900", "bgproxy", GOOD, SPOILED)
    assert "\n  bgproxy deploy --version 2.0 --upstream http://127.0.0.1:9002  " in text
    (line,) = [line for line in text.splitlines() if "--version errors" in line]
    assert line.startswith("  bgproxy deploy --version errors --upstream http://127.0.0.1:9004 ")
    assert line.endswith("5% of live requests fail (bake)")


def test_a_narrow_terminal_has_what_it_does_above_each_command():
    """So that no line of the shell is broken by the terminal; the same commands in the same order."""
    where = ("http://127.0.0.1:8080", "http://127.0.0.1:8900", ".venv/bin/bgproxy", GOOD, SPOILED)
    wide, narrow = guide(*where), guide(*where, room=80)
    assert guide(*where, room=200) == wide
    assert "  # nobody listens (verify)\n  .venv/bin/bgproxy deploy --version down --upstream" in narrow
    commands = [line.split("   ")[0].strip() for line in wide.splitlines() if line.startswith("  ")]
    assert [line.strip() for line in narrow.splitlines() if line.startswith("  ") and "  # " not in line] == commands
