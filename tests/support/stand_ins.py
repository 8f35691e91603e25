"""Stand-ins for `docker` and `systemctl`: they do with processes what a few of their commands say, and refuse all others.

`StandIns` puts them, and `bgproxy`, into a folder for PATH. Each is run in a process of its own, as `main(name)`, by whoever calls it: the
shell of a recipe, or bgproxy. What they were called with is in `calls`.
"""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import bgproxy

#: Seconds that a copy has to start or to end.
PATIENCE = 20.0
SHOP = Path(__file__).with_name("small_shop.py")
#: The bgproxy under test.
SOURCE = Path(bgproxy.__file__).parents[1]


class StandIns:
    """A machine of a test's own below `root`: /opt and /etc are there, and PATH leads to the stand-ins first.

    `ports` are those that containers get which publish none.
    """

    def __init__(self, root: Path, ports: Mapping[str, int] | None = None) -> None:
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir(parents=True)
        (root / "running").mkdir()
        (root / "ports.json").write_text(json.dumps(dict(ports or {})))
        paths = [str(SOURCE), str(Path(__file__).parents[1])]
        for name in ("docker", "systemctl"):
            self.program(
                self.bin / name,
                f"#!{sys.executable}\nimport sys\nsys.path[:0] = {paths!r}\n"
                f"from support.stand_ins import main\nmain({name!r})\n",
            )
        self.program(
            self.bin / "bgproxy", f'#!/bin/sh\nPYTHONPATH="{SOURCE}" exec "{sys.executable}" -m bgproxy "$@"\n'
        )
        #: What commands are to find in their environment.
        self.environment = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "STAND_IN_ROOT": str(root),
            "BGPROXY_TOKEN": "",
            "BGPROXY_CACERT": "",
        }

    @staticmethod
    def program(path: Path, text: str) -> None:
        """A file that can be run."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """The command lines so far."""
        file = self.root / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def running(self) -> dict[str, str]:
        """The copies that run, and their versions."""
        return {name: found["version"] for name in ("blue", "green") if (found := _Copy(self.root, name).read())}

    def sh(self, text: str, *, status: int = 0, **environment: str) -> str:
        """Run lines of a shell as a user types them, in the root, and assert their exit status; what they print."""
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", text],
            cwd=self.root,
            env={**os.environ, **self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, f"status {done.returncode} of:\n{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    def end(self) -> None:
        """End every copy."""
        for name in ("blue", "green"):
            _Copy(self.root, name).stop()


class _Copy:
    """One copy of the shop: a process that outlives the command that has started it."""

    def __init__(self, root: Path, name: str) -> None:
        self._file = root / "running" / f"{name}.json"

    def read(self) -> dict[str, Any] | None:
        return json.loads(self._file.read_text()) if self._file.exists() else None

    def start(self, command: list[str], version: str, environment: Mapping[str, str] | None = None) -> None:
        self.stop()
        with self._file.with_suffix(".log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._file.write_text(json.dumps({"pid": process.pid, "version": version}))

    def stop(self) -> None:
        found = self.read()
        if found is None:
            return
        with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
            os.kill(found["pid"], signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        while _lives(found["pid"]):
            assert time.monotonic() < deadline, f"{self._file.stem} did not end"
            time.sleep(0.01)
        self._file.unlink()


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _answers(port: str) -> bool:
    """Whether a copy is healthy within its time."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return True
        except OSError:
            time.sleep(0.05)
    return False


# --- docker ---------------------------------------------------------------------------------------------------------


def docker(root: Path, arguments: list[str]) -> int:
    """`compose up -d --wait NAME`, `compose stop NAME`, `compose exec -T bgproxy COMMAND ...`."""
    match arguments:
        case ["compose", "exec", "-T", "bgproxy", *command]:
            return subprocess.run(command, check=False).returncode
        case ["compose", "stop", name]:
            _service(name)
            _Copy(root, name).stop()
            return 0
        case ["compose", "up", "-d", "--wait", name] | ["compose", "up", "-d", "--wait", "--pull", "always", name]:
            service = _service(name)
            tag = service["image"].rpartition(":")[2]
            version = service.get("environment", {}).get("VERSION", tag)
            port = _port(root, name, service)
            _Copy(root, name).start([sys.executable, "-P", str(SHOP), version, port], version)
            return 0 if _answers(port) else 1
    return _refused("docker", arguments)


def _service(name: str) -> dict[str, Any]:
    """A service of the compose file, `${NAME:-default}` expanded as Compose does."""
    text = Path(os.environ.get("COMPOSE_FILE", "compose.yaml")).read_text()
    text = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: os.environ.get(found[1]) or found[2], text)
    services: dict[str, dict[str, Any]] = yaml.safe_load(text)["services"]
    return services[name]


def _port(root: Path, name: str, service: dict[str, Any]) -> str:
    published = service.get("ports")
    if published is None:
        return str(json.loads((root / "ports.json").read_text())[name])
    ((_address, port, _inside),) = [each.split(":") for each in published]
    return str(port)


# --- systemctl ------------------------------------------------------------------------------------------------------


def systemctl(root: Path, arguments: list[str]) -> int:
    """`start`, `stop`, `restart shop@NAME`; `enable [--now] UNIT ...`, which starts copies of the shop and nothing else."""
    match arguments:
        case ["enable", *units]:
            now = "--now" in units
            for unit in units:
                if unit != "--now":
                    _enable(root, unit, now=now)
            return 0
        case ["start" | "restart" | "stop" as verb, unit] if unit in ("shop@blue", "shop@green"):
            name = unit.partition("@")[2]
            if verb == "stop":
                _Copy(root, name).stop()
            else:
                _start(root, name)
            return 0
    return _refused("systemctl", arguments)


def _enable(root: Path, unit: str, *, now: bool) -> None:
    name, at, copy = unit.partition("@")
    file = root / "etc/systemd/system" / f"{name}{at}.service"
    assert "WantedBy=" in file.read_text(), f"{unit} cannot be enabled"
    if now and copy:
        _start(root, copy)


def _start(root: Path, name: str) -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign] # the names of units have capitals
    unit.read_string((root / "etc/systemd/system/shop@.service").read_text().replace("%i", name))
    if not Path(unit["Unit"]["ConditionPathExists"]).exists():
        return
    environment = dict(
        line.split("=", 1) for line in Path(unit["Service"]["EnvironmentFile"]).read_text().splitlines() if line
    )
    command = re.sub(r"\$\{(\w+)\}", lambda found: environment[found[1]], unit["Service"]["ExecStart"]).split()
    version = Path(command[0]).resolve().parents[1].name
    _Copy(root, name).start(command, version, environment)


def _refused(name: str, arguments: list[str]) -> int:
    print(f"{name}: the stand-in knows no {' '.join(arguments)}", file=sys.stderr)
    return 125


def main(name: str) -> None:
    """Run as one of them."""
    root = Path(os.environ["STAND_IN_ROOT"])
    with (root / "calls").open("a") as calls:
        calls.write(" ".join([name, *sys.argv[1:]]) + "\n")
    sys.exit({"docker": docker, "systemctl": systemctl}[name](root, sys.argv[1:]))
