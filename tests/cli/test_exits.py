"""The exit statuses are a contract with scripts."""

from __future__ import annotations

from bgproxy.cli import exits


def test_statuses():
    """The numbers of the documentation, which no release may change."""
    assert (exits.DONE, exits.FAILED, exits.USAGE, exits.UNREACHABLE, exits.REFUSED) == (0, 1, 2, 3, 4)
    assert exits.CliError("x").status == 1
    assert exits.UsageError("x").status == 2
    assert exits.UnreachableError("x").status == 3
