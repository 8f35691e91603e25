"""slowhttptest, a tool that others wrote, in each of its kinds; skipped where it is not installed."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from support.attackers import SLOW, Others, metric

KINDS = {
    "heads": ["-H", "-i", "1", "-x", "10"],
    "bodies": ["-B", "-i", "1", "-s", "100000", "-x", "10"],
    "ranges": ["-R", "-a", "10", "-b", "1000"],
    "readers": ["-X", "-w", "10", "-y", "20", "-n", "1", "-z", "10", "-k", "3"],
}


@pytest.mark.skipif(
    shutil.which("slowhttptest") is None, reason="slowhttptest is not installed (apt install slowhttptest)"
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_others_notice_nothing(start_proxy, blue, kind):
    """Two hundred of its clients are dealt with, and every other client gets its answers."""
    proxy = start_proxy(blue=[blue.url], **SLOW)
    target = f"{proxy.base_url}/download?bytes=1000000" if kind == "readers" else f"{proxy.base_url}/"
    command = ["slowhttptest", *KINDS[kind], "-c", "200", "-r", "100", "-l", "4", "-p", "3", "-u", target]
    with Others(proxy):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    assert "slow HTTP test status" in text, done.stdout + done.stderr
    assert metric(proxy, "bgproxy_connections_accepted_total") >= 200
    assert proxy.get("/").status == 200
