"""A command of a deployment, when the controller that runs it is killed: it does not run beside its repetition."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support.backends import Backend
from support.deploys import Deploys
from support.proxy import Proxy, gone
from support.waiting import eventually

#: Notes who it is and who of those before it runs still, and does not heed SIGTERM.
CHECK = """
trap '' TERM
for pid in $(cat pids); do grep -qs '^State:.[^Z]' /proc/$pid/status && echo "$pid" >> beside; done
echo $$ >> pids
until [ -e go ]; do sleep 0.1; done
"""


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["controller", "everything"])
def test_a_check_is_ended_before_it_is_run_again(tmp_path: Path, killed: str) -> None:
    """SIGTERM, and then SIGKILL, by the next controller; the deployment says so, and goes on to its end."""
    with Backend("blue") as blue, Backend("green") as green:
        pools = {"blue": {"upstreams": [blue.url]}, "green": {"upstreams": [green.url]}}
        deployment = {"verify": {"checks": [{"name": "held", "run": CHECK}]}}
        settings = {"pools": pools, "health": {"path": "/health", "interval": "200ms"}, "deployment": deployment}
        with Proxy(tmp_path, services={"default": settings}) as proxy:
            pids = proxy.directory / "pids"
            pids.touch()
            proxy.wait_healthy()
            deploys = Deploys(proxy)
            deploys.begin()
            (first,) = eventually(lambda: pids.read_text().split())
            if killed == "controller":
                os.kill(proxy.controller_pid(), signal.SIGKILL)
            else:
                ended = (proxy.process.pid, *proxy.pids())
                for pid in ended:
                    os.kill(pid, signal.SIGKILL)
                proxy.process.wait()
                for pid in ended:
                    eventually(lambda pid=pid: gone(pid))
                assert not gone(int(first))
                proxy.restart_killed()
            eventually(lambda: len(pids.read_text().split()) == 2, within=20)
            (proxy.directory / "go").touch()
            outcome = deploys.ended()
            assert outcome["state"] == "succeeded"
            assert not (proxy.directory / "beside").exists()
            told = [(result["stage"], result["ok"], result["found"]) for result in outcome["results"]]
            text = f"a command of a bgproxy that was killed ran on (pid {first}), and was ended"
            assert ("verifying", True, text) in told
            assert list((Path(proxy.config["state_dir"]) / "commands").iterdir()) == []
