"""`python -m bgproxy` is the command `bgproxy`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import bgproxy

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(bgproxy.__file__).parents[1])}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bgproxy", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)


def test_the_module_is_the_command():
    """It does what the verb does."""
    done = run("version")
    assert done.returncode == 0
    assert done.stdout.startswith(f"bgproxy {bgproxy.__version__} (")


def test_the_exit_status_is_passed_on():
    """Wrong usage is 2 here too, and without a traceback."""
    done = run("swich")
    assert done.returncode == 2
    assert "did you mean `bgproxy switch`?" in done.stderr
    assert "Traceback" not in done.stderr
