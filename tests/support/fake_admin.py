"""A small admin API on a real socket: the shapes of the real one, and answers that a test chooses."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

NONE = {"requests": 0, "streams": 0, "websockets": 0}


def upstream(address: str = "127.0.0.1:9001", **more: Any) -> dict[str, Any]:
    return {
        "id": address,
        "url": f"http://{address}",
        "address": address,
        "state": "up",
        "ejected": False,
        "reason": "",
        "since": "2024-01-01T00:00:00.000Z",
        "in_flight": 0,
        "connections": 3,
        "check_ms": 1.2,
        **more,
    }


def pool(state: str = "standby", address: str = "127.0.0.1:9001", **more: Any) -> dict[str, Any]:
    return {
        "state": state,
        "version": "",
        "healthy": True,
        "in_flight": dict(NONE),
        "sessions": 0,
        "requests": 0,
        "upstreams": [upstream(address)],
        "unresolved": [],
        "drain": None,
        **more,
    }


def service(
    name: str = "shop", *, blue: dict[str, Any] | None = None, green: dict[str, Any] | None = None, **more: Any
):
    return {
        "service": name,
        "generation": 7,
        "live": "blue",
        "previous": None,
        "switched_at": None,
        "match": {"hosts": [], "path": "/"},
        "sessions": {"mode": "none", "on_switch": "follow"},
        "pools": {
            "blue": blue or pool("live", version="1.0"),
            "green": green or pool("standby", "127.0.0.1:9002", version="2.0"),
        },
        "share": 0,
        "deploys": {"strategy": "all-at-once", "stages": ["verifying", "switching", "baking", "draining"]},
        "deployment": None,
        "last_deployment": None,
        **more,
    }


def result(stage: str, name: str, *, ok: bool = True, **more: Any) -> dict[str, Any]:
    said = {"expected": "", "found": "", "seconds": 0.0, "details": []}
    return {"stage": stage, "name": name, "ok": ok, **said, **more}


def deployment(*states: str, **more: Any) -> dict[str, Any]:
    """Deployment 3 of shop, that has come by these states, a second apart."""
    steps = [
        {"state": state, "at": f"2024-01-01T00:00:{second:02}.000Z", "by": "alice", "why": ""}
        for second, state in enumerate(("queued", *states))
    ]
    ended = steps[-1]["state"] in {"succeeded", "rolled_back", "failed", "aborted"}
    return {
        "id": 3,
        "service": "shop",
        "state": steps[-1]["state"],
        "running": not ended,
        "waits": False,
        "target": "green",
        "version": "2.0",
        "upstreams": None,
        "strategy": "all-at-once",
        "reason": "",
        "actor": {"name": "alice", "address": "127.0.0.1"},
        "created_at": steps[0]["at"],
        "ended_at": steps[-1]["at"] if ended else None,
        "outcome": "",
        "steps": steps,
        "results": [],
        "progress": None if ended else {"share": None, "text": "", "figures": {}},
        **more,
    }


def drain(**waiting: int) -> dict[str, Any]:
    return {
        "since": "2024-01-01T00:00:00.000Z",
        "seconds": 1.2,
        "waiting_for": NONE | waiting,
        "deadline_in": {"requests": 28.8, "streams": 298.8, "websockets": 298.8},
        "sessions_until_in": None,
    }


def event(number: int, kind: str, **more: Any) -> dict[str, Any]:
    return {
        "id": number,
        "at": "2024-01-01T00:00:00.000Z",
        "type": kind,
        "service": "shop",
        "pool": "blue",
        "upstream": None,
        "actor": {"name": "anonymous", "address": "127.0.0.1"},
        "reason": "",
        "message": f"{kind} happened",
        "data": {},
        **more,
    }


def problem(status: int, slug: str, detail: str, *details: str) -> tuple[int, dict[str, Any]]:
    said = {"type": f"urn:bgproxy:problem:{slug}", "title": "t", "status": status, "detail": detail}
    return status, said | {"details": list(details)}


Reply = tuple[int, Any]
#: No answer: the connection is closed.
LOST: Reply = (0, None)


class _Quiet:
    """A client that has gone away is no news: what the standard library says of it would stand in a test's own output."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[misc]


class _Server(_Quiet, ThreadingHTTPServer):
    pass


class _UnixServer(_Quiet, ThreadingUnixStreamServer):
    pass


class FakeAdmin:
    """Answers from `services`, `events` and `script`; `requests` has what came: method, path, headers, body."""

    def __init__(self, where: Path | None = None) -> None:
        self.services = {"shop": service()}
        self.events: list[dict[str, Any]] = []
        self.script: dict[tuple[str, str], Callable[[], Reply]] = {}
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.hang_up = True  # the event stream ends after what there is; else it stays open and silent
        self._stopped = threading.Event()
        handler = type("Handler", (_Handler,), {"admin": self})
        if where is None:
            self._server: Any = _Server(("127.0.0.1", 0), handler)
            self.url = f"http://127.0.0.1:{self._server.server_port}"
        else:
            self._server = _UnixServer(str(where), handler)
            self.url = f"unix:{where}"
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def status(self) -> dict[str, Any]:
        return {
            "program": "bgproxy",
            "version": "0.1.0",
            "build": "interpreted",
            "started_at": "2024-01-01T00:00:00.000Z",
            "generation": 12,
            "workers": [
                {"index": i, "pid": 123 + i, "state": "serving", "connections": 5, "restarts": 0} for i in (0, 1)
            ],
            "controller": {"pid": 1, "restarts": 0},
            "listeners": ["127.0.0.1:8080"],
            "certificates": [],
            "services": list(self.services.values()),
        }

    def reply(self, method: str, path: str) -> Reply:
        if (method, path) in self.script:
            return self.script[method, path]()
        if path == "/v1/status":
            return 200, self.status()
        if path == "/v1/history":
            return 200, {"events": [item for item in self.events if item["type"] in {"switched", "rolled_back"}]}
        if path.startswith("/v1/services/") and path.rpartition("/")[2] in self.services:
            return 200, self.services[path.rpartition("/")[2]]
        return problem(404, "not-found", f"there is no {path}")


class _Handler(BaseHTTPRequestHandler):
    admin: FakeAdmin

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        self.admin.requests.append((self.command, self.path, dict(self.headers), body))
        path = urlsplit(self.path).path
        if path == "/v1/events":
            self._stream(parse_qs(urlsplit(self.path).query).get("service"))
            return
        status, said = self.admin.reply(self.command, path)
        if (status, said) == LOST:
            return
        raw = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        kind = (
            "text/html"
            if isinstance(said, bytes)
            else "application/json"
            if status < 300
            else "application/problem+json"
        )
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST = do_PUT = _serve  # noqa: N815 - http.server's names

    def _stream(self, services: list[str] | None) -> None:
        after = int(self.headers.get("Last-Event-ID", 0))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b": hello\n\n")
        for item in self.admin.events:
            if item["id"] > after and (services is None or item["service"] in services):
                self.wfile.write(f"id: {item['id']}\nevent: {item['type']}\ndata: {json.dumps(item)}\n\n".encode())
        if not self.admin.hang_up:
            self.admin._stopped.wait(30)

    def log_message(self, *_: object) -> None:
        pass

    def address_string(self) -> str:
        return "test"
