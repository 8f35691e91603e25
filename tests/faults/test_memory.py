"""What a small configuration can be made to hold is less than docs/operations.md reckons."""

from __future__ import annotations

import re
import time
from pathlib import Path

from support.attackers import metric, resident
from support.waiting import eventually

KiB = 1024
CONNECTIONS = 40
HEADER = 8 * KiB

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def bound(connections: int, header_bytes: int) -> int:
    """The formula of docs/operations.md, with its figures as they stand there."""
    text = PAGE.read_text()
    found = re.search(r"connections \* \((\d+) KiB \+ (\d+) \* header_bytes\)", text)
    assert found, "docs/operations.md has lost its formula"
    return connections * (int(found[1]) * KiB + int(found[2]) * header_bytes)


def test_the_worst_case_is_below_the_formula(start_proxy, blue):
    """Every client with the longest head, an answer that it does not read, and the more requests sent ahead the better."""
    proxy = start_proxy(
        blue=[blue.url], workers=1, limits={"connections": CONNECTIONS, "header_bytes": "8KiB", "min_rate": "0"}
    )
    (worker,) = proxy.worker_pids()
    for _ in range(20):
        assert proxy.get("/").status == 200
    before = resident(worker)
    filler = "".join(f"X-{number}: {'y' * 80}\r\n" for number in range(80))
    head = f"GET /download?bytes=100000000 HTTP/1.1\r\nHost: a\r\n{filler}\r\n".encode()
    assert len(head) < HEADER
    clients = [proxy.client(receive_buffer=4096) for _ in range(CONNECTIONS)]
    try:
        for client in clients:
            client.send(head)
            client.sock.setblocking(False)
        eventually(lambda: metric(proxy, "bgproxy_connections") == CONNECTIONS)
        deadline = time.monotonic() + 3.0
        while time.monotonic() < deadline:  # ahead, until nobody takes more
            sent = 0
            for client in clients:
                try:
                    sent += client.sock.send(head * 10)
                except BlockingIOError:
                    continue
            if not sent:
                break
            time.sleep(0.02)
        grown = resident(worker) - before
        allowed = bound(CONNECTIONS, HEADER)
        print(f"{grown / CONNECTIONS / KiB:.0f} KiB a connection, of {allowed / CONNECTIONS / KiB:.0f} KiB")
        assert grown < allowed
    finally:
        for client in clients:
            client.close()
    assert proxy.get("/").status == 200
