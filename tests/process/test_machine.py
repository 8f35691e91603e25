"""What the machine lets the program have."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from bgproxy.process.machine import allow_open_files, usable_cpus


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("50000 100000\n", 1), ("100000 100000\n", 1), ("max 100000\n", None), ("rubbish", None), (None, None)],
)
def test_cpus_are_cut_to_the_containers_quota(tmp_path, text, cpus):
    """A quota of half a processor is one worker; without a quota it is the affinity that counts."""
    path = tmp_path / "cpu.max"
    if text is not None:
        path.write_text(text)
    assert usable_cpus(path) == (cpus or len(os.sched_getaffinity(0)))


def test_a_quota_above_the_affinity_does_not_raise_it(tmp_path):
    """One worker per processor that may be used, not per processor of the quota."""
    path = tmp_path / "cpu.max"
    path.write_text("100000000 100000")
    assert usable_cpus(path) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("wanted", "allowed"), [(150, 150), (50, 50), (5000, 200)])
def test_open_files_are_raised_to_the_hard_limit_at_most(wanted, allowed):
    """The soft limit is raised to what is wanted, never lowered, and never beyond the hard one."""
    program = (
        "import resource; from bgproxy.process.machine import allow_open_files\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))\n"
        f"print(allow_open_files({wanted}), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.split() == [str(allowed), str(max(100, allowed))]


def test_enough_open_files_are_left_alone():
    """What is already allowed is not touched."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert allow_open_files(10) == 10
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
