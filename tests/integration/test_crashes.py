"""kill -9 of every process of bgproxy in turn, under load."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from typing import Self

import pytest
from support.backends import Backend
from support.http import Client
from support.proxy import Proxy, gone
from support.waiting import eventually

#: Seconds between two requests of a connection: without, the load takes every CPU, and a new process is slow to start.
PAUSE = 0.005


class Load:
    """Kept-alive connections that send GETs one after the other, and note what went wrong on which."""

    def __init__(self, proxy: Proxy, connections: int = 8) -> None:
        self.answers: Counter[str] = Counter()
        self.failed: list[tuple[int, Exception | int]] = []  # (local port, what)
        self.clients = [proxy.client() for _ in range(connections)]
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(client,)) for client in self.clients]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(15)
        for client in self.clients:
            client.close()

    def more(self, count: int = 100) -> None:
        """Wait for so many further answers."""
        target = self.answers.total() + count
        eventually(lambda: self.answers.total() >= target, within=10)

    def _run(self, client: Client) -> None:
        port = client.sock.getsockname()[1]
        while not self._stop.is_set():
            try:
                response = client.get()
            except Exception as error:  # noqa: BLE001 - whatever a client of a killed process meets
                self.failed.append((port, error))
                return
            if response.status != 200:
                self.failed.append((port, response.status))
            self.answers[response.text] += 1
            self._stop.wait(PAUSE)


def ports_of(pid: int) -> set[int]:
    """The remote ports of a process's established TCP connections over IPv4."""
    inodes = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(entry.path))  # noqa: PTH115 - beside scandir
    ports = set()
    with open(f"/proc/{pid}/net/tcp") as table:  # noqa: PTH123 - a table of the kernel
        next(table)
        for line in table:
            fields = line.split()
            if fields[3] == "01" and f"socket:[{fields[9]}]" in inodes:
                ports.add(int(fields[2].rpartition(":")[2], 16))
    return ports


@pytest.mark.alone
def test_killed_worker_harms_only_its_own_connections(proxy):
    """Requests over the other worker go on without an error; a successor serves; switches work within 2 s."""
    victim, other = proxy.worker_pids()
    with Load(proxy, 16) as load:
        load.more()
        theirs = ports_of(victim)
        mine = {client.sock.getsockname()[1] for client in load.clients} - theirs
        assert mine, "no connection at the other worker"
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        eventually(lambda: proxy.api("POST", "/v1/services/default/switch", {"to": "green"})[0] == 200, within=2)
        assert time.monotonic() - killed < 2.0
        load.more()
        assert load.answers["green"]
    assert {port for port, _ in load.failed} <= theirs
    eventually(lambda: len(proxy.worker_pids()) == 2)
    assert other in proxy.worker_pids()
    assert victim not in proxy.worker_pids()
    assert [worker["restarts"] for worker in proxy.status()["workers"]] == [1, 0]


def test_successor_serves_what_waits_in_the_dead_workers_socket(start_proxy, blue, green):
    """Connections that a killed worker had not accepted get their answer from its successor, from the live pool of now."""
    proxy = start_proxy(blue=[blue.url], green=[green.url], workers=1)
    proxy.wait_healthy()
    (pid,) = proxy.worker_pids()
    os.kill(pid, signal.SIGSTOP)
    clients = [proxy.client() for _ in range(40)]
    for client in clients:
        client.send_request("GET", "/")
    os.kill(pid, signal.SIGKILL)
    assert [client.read_response().text for client in clients] == ["blue"] * 40
    for client in clients:
        client.close()
    assert proxy.worker_pids() != [pid]


@pytest.mark.alone
def test_killed_controller_harms_no_request(proxy):
    """The workers go on serving; the admin API is back, knows who is live, and switches within 2 s."""
    proxy.switch("green")
    pid = proxy.controller_pid()
    workers = proxy.worker_pids()
    with Load(proxy) as load:
        load.more()
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        eventually(lambda: proxy.live() == "green", within=2)
        eventually(lambda: proxy.api("POST", "/v1/services/default/switch", {"to": "blue"})[0] == 200, within=2)
        took = time.monotonic() - killed
        print(f"back and switched in {took:.2f} s")
        assert took < 2.0 + 1.0  # the new controller, then its first checks
        load.more()
        eventually(lambda: proxy.get().text == "blue")
    assert load.failed == []
    assert proxy.worker_pids() == workers
    assert proxy.status()["controller"]["restarts"] == 1


def test_worker_and_controller_killed_together(proxy):
    """Both are back, and a switch works."""
    controller, (first, _) = proxy.controller_pid(), proxy.worker_pids()
    os.kill(controller, signal.SIGKILL)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: proxy.api("GET", "/readyz")[0] == 200, within=5)
    proxy.wait_healthy()
    assert proxy.switch("green")["live"] == "green"
    assert {proxy.get().text for _ in range(20)} == {"green"}


def test_killed_supervisor_leaves_no_orphan(proxy):
    """The children see it go, end as at SIGTERM, and the port is free for the next start."""
    pids, address = proxy.pids(), proxy.address
    proxy.process.kill()
    proxy.process.wait()
    for pid in pids:
        eventually(lambda pid=pid: gone(pid), within=10)
    assert proxy.refuses()
    proxy.config["listen"] = f"{address[0]}:{address[1]}"
    proxy.write()
    proxy.process = proxy._spawn()
    proxy.wait_ready()
    assert proxy.get().text == "blue"


def test_request_in_flight_survives_the_supervisor(proxy, blue: Backend):
    """What was in flight when the supervisor was killed is still answered."""
    with proxy.client() as client:
        client.send_request("GET", "/wait")
        eventually(lambda: blue.counts["/wait"])
        proxy.process.kill()
        proxy.process.wait()
        eventually(proxy.refuses)
        blue.release()
        assert client.read_response().text == "blue"


def test_killed_controller_comes_back_with_the_configuration_in_force(proxy):
    """What a reload brought survives, and an edit of the file that nobody has asked to load is not taken."""
    proxy.config["pools"]["green"]["version"] = "2.0"
    proxy.write()
    assert proxy.api("POST", "/v1/reload", {})[0] == 200
    pid = proxy.controller_pid()
    proxy.config["pools"]["green"]["version"] = "3.0 (being written)"
    proxy.write()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: proxy.controller_pid() != pid, within=10)
    assert proxy.service()["pools"]["green"]["version"] == "2.0"
    proxy.wait_healthy()
    proxy.process.send_signal(signal.SIGHUP)
    eventually(lambda: proxy.service()["pools"]["green"]["version"] == "3.0 (being written)")
