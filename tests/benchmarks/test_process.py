"""What /proc says."""

from __future__ import annotations

import os
import subprocess
import sys

from bench.process import cpu_seconds, family, pss_bytes, pss_of, stat_fields


def test_a_name_with_brackets():
    """The fields begin behind the last bracket of the name."""
    assert stat_fields("12 (a) b (c)) S 1 12 12")[:2] == ["S", "1"]


def test_pss_line():
    """In kB, of the one line that is the sum."""
    assert pss_of("00400000-7ffc ---p 0 [rollup]\nRss:  900 kB\nPss:  512 kB\nPss_Dirty: 7 kB\n") == 512 * 1024


def test_a_child_belongs_to_the_family():
    """It is found from its parent, uses memory, and its processor time goes to its parent when it has ended."""
    code = "import time; end = time.process_time() + 0.1\nwhile time.process_time() < end: pass\nprint(1, flush=True); input()"
    before = cpu_seconds([os.getpid()])
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"1\n"
        assert child.pid in family(os.getpid())
        assert cpu_seconds([child.pid]) >= 0.09
        assert pss_bytes([child.pid]) > 1 << 20
        child.communicate(b"\n")
    assert cpu_seconds([os.getpid()]) - before >= 0.09
