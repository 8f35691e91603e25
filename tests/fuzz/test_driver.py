"""Coverage-guided fuzzing, for a short while, where atheris is installed; `make fuzz` runs it for ten minutes."""

from __future__ import annotations

import importlib.util
import os

import pytest
from fuzz.driver import TARGETS, run
from fuzz.seeds import seeds

SECONDS = int(os.environ.get("FUZZ_SECONDS", "20"))


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 90)
@pytest.mark.parametrize("target", TARGETS)
def test_atheris_finds_nothing(target, tmp_path):
    """For a few seconds each: no input breaks what tests/support/judging.py and wired.py ask."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: make fuzz installs it, or pip install 'bgproxy[fuzz]'")
    done = run(target, SECONDS // len(TARGETS), tmp_path)
    print(done)
    assert not done.found, f"{done.found[0].read_bytes()!r}\n{done.log[-4000:]}"
    assert done.executions > len(seeds(target)) / 2
    assert done.coverage > 100
