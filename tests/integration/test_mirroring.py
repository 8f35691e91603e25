"""Live requests mirrored at 100% to an idle pool of every bad kind: users get every byte, the operator gets the reason."""

from __future__ import annotations

import gzip
import itertools
import json
import struct
import threading
from collections.abc import Callable
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import pytest
from support.attackers import resident
from support.backends import Backend, Request, pattern
from support.http import Response
from support.proxy import Proxy
from support.waiting import eventually

MiB = 1024 * 1024
DOCUMENT = {"items": [{"id": 1, "price": 12.5}, {"id": 2, "price": 3}], "total": 15.5, "at": "now"}
LARGE = pattern("blue") * (MiB // len(pattern("blue")))

#: What an idle pool may grow a process by, whatever it does: 16 requests under way with two bodies of 64 KiB, and the allocator's slack.
GROWTH = 24 * MiB


def _json(_: Backend, request: Request) -> None:
    request.answer(json.dumps(DOCUMENT), "200 OK", "Content-Type: application/json")


def _gzip(_: Backend, request: Request) -> None:
    data = gzip.compress(json.dumps(DOCUMENT).encode(), 9)
    request.answer(data, "200 OK", "Content-Type: application/json", "Content-Encoding: gzip")


def _chunked(_: Backend, request: Request) -> None:
    request.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for piece in (b"one", b"two", b"three"):
        request.send(b"%x\r\n%b\r\n" % (len(piece), piece))
    request.send(b"0\r\n\r\n")


def _unchanged(_: Backend, request: Request) -> None:
    request.send(b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n')


def _large(_: Backend, request: Request) -> None:
    request.answer(LARGE)


def _echo(_: Backend, request: Request) -> None:
    request.answer(request.body())


HANDLERS: dict[str, Callable[[Backend, Request], None]] = {
    "/json": _json,
    "/gzip": _gzip,
    "/chunked": _chunked,
    "/unchanged": _unchanged,
    "/large": _large,
    "/echo": _echo,
}


# --- idle pools -----------------------------------------------------------------------------------------------------


def _agrees(_: Backend) -> None:
    """The same program."""


def _differs(green: Backend) -> None:
    """Another price."""
    document = json.dumps(DOCUMENT | {"total": 15.6, "at": "later"})
    green.on("/json", lambda _, request: request.answer(document, "200 OK", "Content-Type: application/json"))


def _hang(backend: Backend, _: Request) -> None:
    backend.gate.wait(60)


def _reset(_: Backend, request: Request) -> None:
    request.sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    request.keep = False


def _flood(_: Backend, request: Request) -> None:
    request.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (100 * MiB))
    for _ in range(100):
        request.send(bytes(MiB))


def _all(handler: Callable[[Backend, Request], None]) -> Callable[[Backend], None]:
    def change(green: Backend) -> None:
        for path in HANDLERS:
            green.on(path, handler)

    return change


# --- users ----------------------------------------------------------------------------------------------------------


class User:
    """Asks for one thing after the other over one connection, and notes what was wrong."""

    def __init__(self, proxy: Proxy) -> None:
        self.wrong: list[str] = []
        self.done = 0
        self._proxy = proxy
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="user")
        self._thread.start()

    def _run(self) -> None:
        with self._proxy.client() as client:
            for number in itertools.count():
                if self._over.is_set():
                    return
                for name, wanted, answer in (
                    ("json", json.dumps(DOCUMENT).encode(), client.get("/json")),
                    ("gzip", json.dumps(DOCUMENT).encode(), _unzipped(client.get("/gzip"))),
                    ("chunked", b"onetwothree", client.get("/chunked")),
                    ("unchanged", b"", client.get("/unchanged", If_None_Match='"1"')),
                    ("head", b"", client.request("HEAD", "/json")),
                    ("large", LARGE, client.get("/large")),
                    ("upload", b"%d" % number * 1000, _upload(client, b"%d" % number * 1000)),
                ):
                    if answer.body != wanted or answer.status != (304 if name == "unchanged" else 200):
                        self.wrong.append(f"{name}: {answer.status}, {len(answer.body)} bytes")
                self.done += 1

    def end(self) -> None:
        self._over.set()
        self._thread.join(30)


def _unzipped(answer: Response) -> Response:
    answer.body = gzip.decompress(answer.body)
    return answer


def _upload(client: Any, body: bytes) -> Response:
    """A body in chunks."""
    client.send(b"POST /echo HTTP/1.1\r\nHost: test.example\r\nTransfer-Encoding: chunked\r\n\r\n")
    for at in range(0, len(body), 700):
        piece = body[at : at + 700]
        client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
    client.send(b"0\r\n\r\n")
    return client.read_response("POST")


# --- the tests ------------------------------------------------------------------------------------------------------


def _deployment(proxy: Proxy, number: int) -> dict[str, Any]:
    status, answer = proxy.api("GET", f"/v1/deployments/{number}")
    assert status == 200, answer
    return answer


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("change", "state", "words"),
    [
        (_agrees, "awaiting_approval", "0 of"),
        (_differs, "failed", "GET /json: $.total: 15.5 / 15.6"),
        (_all(_hang), "failed", "timed out after 500ms"),
        (_all(_reset), "failed", "none of 127.0.0.1:"),
        (_all(_flood), "failed", "more than 65536 bytes"),
    ],
    ids=["agrees", "differs", "hangs", "resets", "floods"],
)
def test_users_get_every_byte_whatever_the_idle_pool_does(
    start_proxy: Callable[..., Proxy],
    blue: Backend,
    green: Backend,
    change: Callable[[Backend], None],
    state: str,
    words: str,
) -> None:
    """JSON, gzip, chunks, 304, HEAD, a large answer, chunked uploads: mirrored and right, in bounded memory; the deployment says why it ended."""
    for path, handler in HANDLERS.items():
        blue.on(path, handler)
        green.on(path, handler)
    change(green)
    compare = {
        "mirror": "100%",
        "for": "3s",
        "methods": ["GET", "HEAD", "POST"],
        "ignore": {"json": ["$.at"]},
        "timeout": "500ms",
    }
    proxy = start_proxy(blue=[blue.url], green=[green.url], deployment={"compare": compare, "approve": "manual"})
    proxy.wait_healthy()
    users = [User(proxy) for _ in range(4)]
    try:
        eventually(lambda: min(user.done for user in users) > 3, within=20)
        pids = [*proxy.worker_pids(), proxy.controller_pid()]
        before = {pid: resident(pid) for pid in pids}
        status, begun = proxy.api("POST", "/v1/services/default/deployments", {})
        assert status in (200, 201, 202), begun
        most = dict(before)

        def ended() -> bool:
            for pid in pids:
                most[pid] = max(most[pid], resident(pid))
            return _deployment(proxy, begun["id"])["state"] not in ("queued", "comparing")

        eventually(ended, within=30, what="the comparison has ended")
        done = [user.done for user in users]
        eventually(lambda: all(user.done > before for user, before in zip(users, done, strict=True)), within=20)
    finally:
        for user in users:
            user.end()
        green.release()
    assert [user.wrong for user in users] == [[], [], [], []]
    assert {pid: most[pid] - before[pid] for pid in pids if most[pid] - before[pid] > GROWTH} == {}
    found = _deployment(proxy, begun["id"])
    assert found["state"] == state, found
    (result,) = [result for result in found["results"] if result["name"] == "mirrored requests"]
    assert words in json.dumps(result, ensure_ascii=False), result
    assert (result["ok"], proxy.live()) == (state == "awaiting_approval", "blue")
    if state == "awaiting_approval":
        assert {request.target for request in green.requests} == set(HANDLERS)
        proxy.api("POST", f"/v1/deployments/{begun['id']}/abort", {})
    assert all(request.header("X-BGProxy-Mirror") == "1" for request in green.requests)
    assert not any(request.header("X-BGProxy-Mirror") for request in blue.requests)
