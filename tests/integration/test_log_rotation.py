"""The access log of a running bgproxy is moved away, and a new file is begun."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from support.waiting import eventually


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_sigusr1_begins_a_new_access_log(start_proxy, blue, green, tmp_path):
    """After mv and SIGUSR1 to the supervisor, lines go to a new file; nobody dies of it, and no line is lost."""
    log, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    proxy = start_proxy(blue=[blue.url], green=[green.url], access_log=str(log))
    proxy.wait_healthy()
    pids = proxy.pids()
    assert proxy.get("/before").status == 200
    eventually(lambda: [line["target"] for line in _lines(log)] == ["/before"])
    log.rename(moved)
    proxy.process.send_signal(signal.SIGUSR1)
    eventually(log.exists, what="the new file")

    for number in range(20):  # over both workers
        assert proxy.get(f"/after{number}").status == 200
    wanted = {"/before", *(f"/after{number}" for number in range(20))}
    eventually(lambda: {line["target"] for line in _lines(log) + _lines(moved)} == wanted)
    eventually(lambda: "/after19" in {line["target"] for line in _lines(log)})
    assert proxy.pids() == pids
