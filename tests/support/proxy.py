"""bgproxy itself as a user runs it: `python -m bgproxy run -c FILE` in a process of its own, on free ports."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.http import Client
from support.waiting import eventually

import bgproxy

#: The bgproxy under test is the one that the tests import: installed and compiled, or the source tree.
ROOT = Path(bgproxy.__file__).parents[1]


class Proxy:
    """A running bgproxy. Leaving the `with` block stops it with SIGTERM and asserts exit status 0.

    `blue` and `green` are URLs of the upstreams of the only service, "default"; `config` is merged over the rest.
    """

    def __init__(
        self,
        directory: Path,
        *,
        blue: Iterable[str] = (),
        green: Iterable[str] = (),
        workers: int = 2,
        ready: bool = True,
        files: int = 0,
        **config: Any,
    ) -> None:
        self.directory = directory
        self.config: dict[str, Any] = {
            "listen": "127.0.0.1:0",
            "workers": workers,
            "state_dir": str(directory / "state"),
            "admin": {"listen": "127.0.0.1:0"},
        }
        if "services" not in config:
            self.config["pools"] = {"blue": {"upstreams": list(blue)}, "green": {"upstreams": list(green)}}
            self.config["health"] = {"path": "/health", "interval": "200ms", "rise": 1, "fall": 2}
        self.config |= config
        self.path = directory / "bgproxy.yaml"
        self.log_path = directory / "bgproxy.log"
        self.write()
        self._ready = ready
        self._files = files  # descriptors of each process; 0: as many as the test has
        self.process = self._spawn()

    def write(self) -> None:
        """Write `config` to the file; JSON is YAML."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.config, indent=1))

    def _spawn(self) -> subprocess.Popen[bytes]:
        limit = ["prlimit", f"--nofile={self._files}"] if self._files else []
        with self.log_path.open("ab") as log:
            self._log_from = log.tell()
            return subprocess.Popen(
                [*limit, sys.executable, "-m", "bgproxy", "run", "-c", str(self.path)],
                cwd=self.directory,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Self:
        try:
            if self._ready:
                self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            status = self.stop() if kind is None else self.kill()
            if kind is None:
                assert status == 0, f"exit status {status} after SIGTERM; log:\n{self.log()}"

    # --- its life ---------------------------------------------------------------------------------------------------

    def wait_ready(self, within: float = 15.0) -> None:
        """Wait until /readyz answers 200."""
        eventually(self._is_ready, within=within, what="readyz")

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, f"exit status {self.process.returncode}; log:\n{self.log()}"
        if not self.lines("serving"):
            raise AssertionError(f"not serving yet; log:\n{self.log()}")
        status, answer = self.api("GET", "/readyz")
        assert status == 200, f"{answer}; log:\n{self.log()}"
        return True

    def stop(self, number: int = signal.SIGTERM, within: float = 45.0) -> int:
        """Ask it to end; its exit status."""
        self.process.send_signal(number)
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            log = self.log()
            self.kill()
            raise AssertionError(f"did not end within {within:g} s; log:\n{log}") from None

    def kill(self) -> int:
        """Kill -9 of the supervisor; the children end by themselves, and are waited for."""
        pids = self.pids()
        self.process.kill()
        status = self.process.wait()
        for pid in pids:
            try:
                eventually(lambda pid=pid: gone(pid), within=15.0)
            except AssertionError:  # a child that this very test has stopped, perhaps
                os.kill(pid, signal.SIGKILL)
        return status

    def restart(self, number: int = signal.SIGTERM) -> None:
        """Stop it (or kill it, with SIGKILL), start it again from the same files, and wait until it is ready."""
        if number == signal.SIGKILL:
            self.kill()
        else:
            assert self.stop(number) == 0
        self.process = self._spawn()
        self.wait_ready()

    def restart_killed(self) -> None:
        """Start it again after the test has killed it."""
        self.process = self._spawn()
        self.wait_ready()

    # --- what it says -----------------------------------------------------------------------------------------------

    def log(self) -> str:
        """All that it has written to stdout and stderr, over all its lives."""
        return self.log_path.read_text(errors="replace")

    def lines(self, message: str) -> list[dict[str, Any]]:
        """The log lines of this life with such a message. One that is just being written, or that a kill has cut, is none yet."""
        found = []
        for line in self.log_path.read_bytes()[self._log_from :].decode(errors="replace").splitlines():
            if line.startswith("{"):
                with contextlib.suppress(json.JSONDecodeError):
                    record = json.loads(line)
                    if record["message"] == message:
                        found.append(record)
        return found

    @property
    def serving(self) -> dict[str, Any]:
        """The line with its addresses and pids at the start."""
        return self.lines("serving")[0]

    @property
    def address(self) -> tuple[str, int]:
        """Where it takes traffic."""
        return _address(self.serving["listen"][0])

    @property
    def admin_address(self) -> tuple[str, int]:
        return _address(self.serving["admin"][0])

    @property
    def base_url(self) -> str:
        return f"http://{self.serving['listen'][0]}"

    @property
    def admin_url(self) -> str:
        return f"http://{self.serving['admin'][0]}"

    def pids(self) -> list[int]:
        """Of all children that live now."""
        try:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in children.split()]

    def worker_pids(self) -> list[int]:
        """Of the workers that run now, by index."""
        return [worker["pid"] for worker in self.status()["workers"] if worker["pid"]]

    def controller_pid(self) -> int:
        return int(self.status()["controller"]["pid"])

    # --- talking to it ----------------------------------------------------------------------------------------------

    def client(self, **options: Any) -> Client:
        """A new raw connection to it."""
        return Client(self.address, **options)

    def get(self, target: str = "/", **headers: str) -> Any:
        """GET on a connection of its own."""
        with self.client() as client:
            return client.get(target, **headers)

    def api(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """A call of the admin API: status, and the answer (JSON decoded, else text)."""
        connection = http.client.HTTPConnection(*self.admin_address, timeout=60)
        try:
            data = None if body is None else json.dumps(body)
            fields = {} if body is None else {"Content-Type": "application/json"}
            connection.request(method, path, data, {**fields, **(headers or {})})
            response = connection.getresponse()
            text = response.read().decode()
            kind = response.headers.get("Content-Type", "")
            return response.status, json.loads(text) if "json" in kind and text else text
        finally:
            connection.close()

    def status(self) -> Any:
        code, answer = self.api("GET", "/v1/status")
        assert code == 200, answer
        return answer

    def service(self, name: str = "default") -> Any:
        code, answer = self.api("GET", f"/v1/services/{name}")
        assert code == 200, answer
        return answer

    def live(self, service: str = "default") -> str:
        return str(self.service(service)["live"])

    def switch(self, to: str | None = None, *, service: str = "default", **more: Any) -> Any:
        """Switch, to the idle pool by default; the answer. `wait="drained"`, `force=True`, `reason=...`."""
        body = {**({} if to is None else {"to": to}), **more}
        code, answer = self.api("POST", f"/v1/services/{service}/switch", body)
        assert code == 200, answer
        return answer

    def rollback(self, *, service: str = "default", **more: Any) -> Any:
        code, answer = self.api("POST", f"/v1/services/{service}/rollback", more)
        assert code == 200, answer
        return answer

    def healthy(self, pool: str, service: str = "default") -> bool:
        return bool(self.service(service)["pools"][pool]["healthy"])

    def wait_healthy(self, *pools: str, service: str = "default", within: float = 10.0) -> None:
        """Wait until all upstreams of these pools (both, if none is named) are up."""
        for pool in pools or ("blue", "green"):
            eventually(lambda pool=pool: self.healthy(pool, service), within=within, what=f"{pool} is healthy")

    def refuses(self) -> bool:
        """Whether nobody listens where it took traffic."""
        try:
            socket.create_connection(self.address, timeout=5).close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            return False
        return False


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has reaped yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
