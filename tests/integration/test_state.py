"""What survives: the live pool, pools changed at run time, history."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest
from support.backends import Backend
from support.proxy import Proxy


def test_a_restart_keeps_what_was_changed(proxy: Proxy, blue: Backend, green: Backend) -> None:
    """Who is live, a pool set at run time, an upstream in maint and the history outlive a restart."""
    with Backend("third") as third:
        code, answer = proxy.api(
            "PUT", "/v1/services/default/pools/green", {"version": "2.0", "upstreams": [third.url, green.url]}
        )
        assert code == 200, answer
        proxy.wait_healthy("green")
        proxy.switch("green", reason="because")
        code, answer = proxy.api(
            "PUT", f"/v1/services/default/pools/green/upstreams/127.0.0.1:{green.port}/state", {"state": "maint"}
        )
        assert code == 200, answer
        generation = proxy.service()["generation"]
        proxy.restart()
        service = proxy.service()
        assert service["live"] == "green"
        assert service["previous"] == "blue"
        assert service["generation"] >= generation
        assert service["pools"]["green"]["version"] == "2.0"
        states = {upstream["id"]: upstream["state"] for upstream in service["pools"]["green"]["upstreams"]}
        assert states[f"127.0.0.1:{green.port}"] == "maint"
        assert proxy.get().text == "third"
        _, history = proxy.api("GET", "/v1/history")
        text = str(history)
        assert "because" in text
        assert "switched" in text


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_kill_9_at_any_moment_of_200_switches(proxy: Proxy) -> None:
    """Killed whole while it is switched, then started again: live is what was acknowledged last, or just asked for."""
    rng = random.Random(20261122)
    switches = 0
    acknowledged = "blue"
    asked = "blue"
    rounds = 0
    stop = threading.Event()

    def switch_on() -> None:
        nonlocal switches, acknowledged, asked
        while not stop.is_set():
            asked = "green" if acknowledged == "blue" else "blue"
            try:
                code, _ = proxy.api("POST", "/v1/services/default/switch", {"to": asked})
            except (OSError, ValueError):
                return
            except Exception:  # noqa: BLE001 - http.client's own, when the other end is killed
                return
            if code == 200:
                acknowledged = asked
                switches += 1

    while switches < 200 and rounds < 40:
        rounds += 1
        stop.clear()
        thread = threading.Thread(target=switch_on)
        thread.start()
        target = switches + rng.randint(5, 12)
        deadline = time.monotonic() + 10
        while switches < target and time.monotonic() < deadline:
            time.sleep(rng.random() * 0.003)
        for pid in [proxy.process.pid, *proxy.pids()]:
            os.kill(pid, signal.SIGKILL)
        proxy.process.wait()
        stop.set()
        thread.join(10)
        before, wanted = acknowledged, asked
        proxy.restart_killed()
        live = proxy.live()
        assert live in (before, wanted), f"round {rounds}: live {live}, acknowledged {before}, asked for {wanted}"
        assert proxy.get().text == live
        acknowledged = asked = live
        proxy.wait_healthy()
    assert switches >= 200
