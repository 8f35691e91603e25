"""Long things across a switch: uploads, downloads, streams, WebSockets, and the memory that slow readers cost."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.backends import Backend, pattern
from support.http import Client
from support.proxy import Proxy
from support.waiting import eventually
from websockets.asyncio.client import connect

MiB = 1024 * 1024
SIZE = 200 * MiB


def _upload(client: Client, gate: threading.Event, answers: list[str]) -> None:
    """Half of the body, then, once the gate is open, the rest."""
    block = pattern("client")
    client.send(b"PUT /upload HTTP/1.1\r\nHost: shop\r\nContent-Length: %d\r\n\r\n" % SIZE)
    for number in range(SIZE // len(block)):
        if number == SIZE // len(block) // 2:
            gate.wait(30)
        client.send(block)
    answers.append(client.read_response("PUT").text)


def _download(client: Client, gate: threading.Event, chunked: str, answers: list[str]) -> None:
    """A little, then, once the gate is open, the rest; notes the digest."""
    client.send_request("GET", f"/download?bytes={SIZE}{chunked}")
    first = client.sock.recv(1000)
    gate.wait(30)
    client.buffer = first + client.buffer
    answers.append(hashlib.sha256(client.read_response("GET").body).hexdigest())


def _digest(pool: str) -> str:
    block, digest = pattern(pool), hashlib.sha256()
    for _ in range(SIZE // len(block)):
        digest.update(block)
    return digest.hexdigest()


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_transfers_end_on_the_pool_that_they_began_on(proxy: Proxy, blue: Backend, green: Backend) -> None:
    """200 MiB up, 200 MiB down with a length and chunked, and an SSE stream, across a switch: byte for byte from blue."""
    gate = threading.Event()
    answers: list[list[str]] = [[], [], []]
    clients = [proxy.client(timeout=60) for _ in range(4)]
    threads = [
        threading.Thread(target=_upload, args=(clients[0], gate, answers[0])),
        threading.Thread(target=_download, args=(clients[1], gate, "", answers[1])),
        threading.Thread(target=_download, args=(clients[2], gate, "&chunked=1", answers[2])),
    ]
    for thread in threads:
        thread.start()
    clients[3].send_request("GET", "/stream")
    eventually(lambda: blue.counts["/download"] == 2 and blue.counts["/upload"] == 1 and blue.counts["/stream"] == 1)
    eventually(lambda: proxy.service()["pools"]["blue"]["in_flight"]["streams"] == 2)
    proxy.switch("green")
    assert proxy.get().text == "green"
    gate.set()
    for thread in threads:
        thread.join(120)
    uploaded = hashlib.sha256()
    for _ in range(SIZE // len(pattern("client"))):
        uploaded.update(pattern("client"))
    assert answers[0] == [f"blue {SIZE} {uploaded.hexdigest()}"]
    assert answers[1] == answers[2] == [_digest("blue")]
    state = proxy.service()["pools"]["blue"]
    assert state["state"] == "draining"
    assert state["drain"]["waiting_for"]["streams"] == 1
    blue.release()
    stream = clients[3].read_response("GET").text
    assert stream.endswith("data: end\n\n")
    assert "green" not in stream
    eventually(lambda: proxy.service()["pools"]["blue"]["state"] == "standby")
    for client in clients:
        client.close()
    assert green.counts["/"] == 1


@pytest.mark.slow
def test_websockets_stay_where_they_are(proxy: Proxy) -> None:
    """200 open WebSockets stay on blue across a switch and go on echoing; new ones go to green."""

    async def main() -> None:
        url = proxy.base_url.replace("http", "ws") + "/ws"
        async with asyncio.timeout(60):
            old = [await connect(url, compression=None) for _ in range(200)]
            for number, socket_ in enumerate(old):
                await socket_.send(str(number))
            assert [await socket_.recv() for socket_ in old] == [f"blue:{number}" for number in range(200)]
            await asyncio.to_thread(proxy.switch, "green")
            new = [await connect(url, compression=None) for _ in range(5)]
            for socket_ in old + new:
                await socket_.send("after")
            assert {await socket_.recv() for socket_ in old} == {"blue:after"}
            assert {await socket_.recv() for socket_ in new} == {"green:after"}
            assert proxy.service()["pools"]["blue"]["drain"]["waiting_for"]["websockets"] == 200
            for socket_ in old + new:
                await socket_.close()

    asyncio.run(main())
    eventually(lambda: proxy.service()["pools"]["blue"]["state"] == "standby")


def _resident(pid: int) -> int:
    """Bytes of memory that a process alone holds (its private pages)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")) * 1024


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_slow_readers_cost_little_memory(start_proxy: Callable[..., Proxy], blue: Backend, green: Backend) -> None:
    """50 clients that stop reading 100 MiB each: the worker grows by less than 32 MiB; all get all of it in the end."""
    size = 100 * MiB
    proxy = start_proxy(blue=[blue.url], green=[green.url], workers=1)
    proxy.wait_healthy("blue")
    for _ in range(20):
        proxy.get()
    (pid,) = proxy.worker_pids()
    before = _resident(pid)
    clients = [proxy.client(timeout=60, receive_buffer=65536) for _ in range(50)]
    for client in clients:
        client.send_request("GET", f"/download?bytes={size}")
    eventually(lambda: blue.counts["/download"] == 50, within=20)
    # Nothing moves any more when every upstream's thread is stuck in its send: the resident size stands still.
    sizes = [0]

    def still() -> bool:
        sizes.append(_resident(pid))
        return len(sizes) > 20 and max(sizes[-20:]) - min(sizes[-20:]) < MiB

    eventually(still, within=30)
    grown = max(sizes) - before
    print(f"grown by {grown / MiB:.1f} MiB")
    assert grown < 32 * MiB
    for client in itertools.islice(clients, 3):
        assert len(client.read_response("GET").body) == size
    for client in clients:
        client.sock.shutdown(socket.SHUT_RDWR)
        client.close()
    eventually(lambda: proxy.service()["pools"]["blue"]["in_flight"]["requests"] == 0, within=10)
