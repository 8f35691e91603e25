"""Clients that attack, and those beside them that must not notice."""

from __future__ import annotations

import os
import re
import resource
import socket
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from support.http import Client, TruncatedError
from support.proxy import Proxy

TICKS = os.sysconf("SC_CLK_TCK")


class Others:
    """Ordinary clients while something happens: each asks, one request after the other, and now and then anew.

    Whatever is not a 200 within the client's patience is an error.
    """

    def __init__(self, proxy: Proxy, clients: int = 4, *, renewed: int = 10, patience: float = 5.0) -> None:
        self.errors: list[str] = []
        self.answered = 0
        self._proxy = proxy
        self._renewed = renewed  # requests of a connection; 0: as many as there are
        self._patience = patience
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, name=f"other {number}") for number in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        if kind is None:
            assert self.errors == []
            assert self.answered > len(self._threads)

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                with self._proxy.client(timeout=self._patience) as client:
                    asked = 0
                    while not self._stop.is_set() and not (self._renewed and asked >= self._renewed):
                        answer = client.get("/")
                        if answer.status != 200:
                            self.errors.append(f"{answer.status} {answer.body!r}")
                        self.answered += 1
                        asked += 1
                        self._stop.wait(0.01)
            except (OSError, TruncatedError) as error:
                self.errors.append(repr(error))
                self._stop.wait(0.05)


def crowd(address: tuple[str, int], count: int, data: bytes = b"", sources: Iterable[str] = ()) -> list[socket.socket]:
    """So many connections, from these addresses of the loopback in turn; each has sent `data`. The caller closes them."""
    places = list(sources) or ["127.0.0.1"]
    found: list[socket.socket] = []
    try:
        for number in range(count):
            sock = socket.socket()
            found.append(sock)
            sock.settimeout(10)
            if len(places) > 1:
                sock.bind((places[number % len(places)], 0))
            sock.connect(address)
            if data:
                sock.sendall(data)
    except OSError:
        disperse(found)
        raise
    return found


def disperse(sockets: Iterable[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def still_open(sock: socket.socket) -> bool:
    """Whether the peer has not ended the connection; what it sent is thrown away."""
    sock.setblocking(False)
    try:
        while True:
            if not sock.recv(65536):
                return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def metric(proxy: Proxy, name: str, **labels: str) -> float:
    """A sample of /metrics; those of all label values that are not given, added up."""
    status, page = proxy.api("GET", "/metrics")
    assert status == 200
    total = 0.0
    for line in page.splitlines():
        if line.startswith((f"{name} ", f"{name}{{")):
            said = dict(re.findall(r'(\w+)="([^"]*)"', line))
            if all(said.get(key) == value for key, value in labels.items()):
                total += float(line.rpartition(" ")[2])
    return total


def allow_files(count: int) -> bool:
    """Let this process have so many descriptors; False where it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count or soft == resource.RLIM_INFINITY:
        return True
    if hard != resource.RLIM_INFINITY and hard < count:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    return True


def resident(pid: int) -> int:
    """Bytes of memory that a process has in RAM and shares with nobody (VmRSS less what it has of files and siblings)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Private_"))


def cpu_share(pid: int, seconds: float) -> float:
    """What share of one CPU a process takes for so long."""
    before, since = _cpu(pid), time.monotonic()
    time.sleep(seconds)
    return (_cpu(pid) - before) / (time.monotonic() - since)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def status_of(client: Client) -> int:
    """Of the next answer; 0 if the connection ends without one."""
    try:
        return client.read_head().status
    except (TruncatedError, OSError):
        return 0


SLOW: dict[str, Any] = {
    "limits": {"min_rate": "1000"},
    "timeouts": {"header": "1s", "client_idle": "2s", "stream_idle": "2s", "slow": "1s"},
}
