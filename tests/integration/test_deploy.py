"""`bgproxy deploy` in the demo: a good version, and versions with something wrong, each caught in its stage while users buy teapots."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from support.waiting import eventually

import bgproxy
from bgproxy.cli.demo.children import free_port
from bgproxy.cli.demo.faults import KINDS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

#: Seconds after its first live request that the crashing version lives.
CRASH_AFTER = 2.0
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(Path(bgproxy.__file__).parents[1]),
    "BGPROXY_ADMIN": "",
    "BGPROXY_DEMO_CRASH_AFTER": str(CRASH_AFTER),
    "COLUMNS": "200",
}


class Users:
    """Three of them, who ask without end over kept-alive connections; `seen` counts statuses, 0 for no answer."""

    def __init__(self, port: int) -> None:
        self.seen: Counter[int] = Counter()
        self._port = port
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._shop) for _ in range(3)]
        for thread in self._threads:
            thread.start()

    def _shop(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        while not self._ended.wait(0.02):
            try:
                connection.request("GET", "/api/products")
                answer = connection.getresponse()
                answer.read()
                self.seen[answer.status] += 1
            except (OSError, http.client.HTTPException):
                self.seen[0] += 1
                connection.close()
        connection.close()

    def errors(self) -> int:
        return sum(count for status, count in self.seen.items() if status != 200)

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


class Demo:
    """The demo in a process of its own, and the command line beside it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port(20000 + os.getpid() % 20000)
        self.admin_port = free_port(self.port + 1)
        command = [
            sys.executable,
            "-m",
            "bgproxy",
            "demo",
            "--port",
            str(self.port),
            "--admin-port",
            str(self.admin_port),
        ]
        environment = ENVIRONMENT | {"TMPDIR": str(folder)}
        self.process = subprocess.Popen([*command, "--bake", "5s"], stdout=subprocess.PIPE, text=True, env=environment)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout))
        self._reader.start()
        eventually(lambda: any("the traffic goes to blue 100 %" in line for line in self.lines), within=40)

    def url_of(self, kind: str) -> str:
        (line,) = [line for line in self.lines if f"--version {kind} --upstream " in line]
        return line.partition("--upstream ")[2].split()[0]

    def bgproxy(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bgproxy", *words, "--admin", f"http://127.0.0.1:{self.admin_port}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=80, env=ENVIRONMENT, check=False)

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(30)
        self._reader.join()
        self.process.stdout.close()
        return status


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    demo = Demo(tmp_path_factory.mktemp("demo"))
    yield demo
    assert demo.end() == 0


@pytest.fixture
def users(demo):
    users = Users(demo.port)
    yield users
    users.end()


#: What the last line says of each bad version: how it ended, and words that name the cause.
CAUGHT = {
    "down": ("failed before the switch", "connection refused"),
    "unhealthy": ("failed before the switch", "503"),
    "wrong": ("failed before the switch", "'a teapot'"),
    "cold": ("failed before the switch", "within 1s"),
    "slow": ("failed before the switch", "p99"),
    "differs": ("failed before the switch", "$.product"),
    "errors": ("was rolled back", "with 5xx"),
    "late": ("was rolled back", "p99"),
    "crash": ("was rolled back", ""),
}


def test_every_kind_is_tried():
    """What the demo offers is what is tested here."""
    assert CAUGHT.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", CAUGHT)
def test_a_bad_version_is_caught(demo, users, kind):
    """In its stage, by its cause; users see no error before the switch, and in the bake as few as its rules need to be sure."""
    began = time.monotonic()
    ended = demo.bgproxy("deploy", "--yes", "--version", kind, "--upstream", demo.url_of(kind))
    how, cause = CAUGHT[kind]
    last = ended.stdout.strip().splitlines()[-1]
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert how in last, ended.stdout
    assert cause in ended.stdout, ended.stdout
    status = demo.bgproxy("status", "shop").stdout
    assert "shop: blue is live" in status, status
    stage = KINDS[kind][1].partition(":")[0]
    names = {"verify": "verifying", "compare": "comparing", "bake": "baking"}
    stages = [
        line
        for line in ended.stdout.splitlines()
        if line in ("verifying", "comparing", "warming", "switching", "baking")
    ]
    assert stages[-1] == names[stage], ended.stdout
    if how == "failed before the switch" or kind == "late":
        assert users.errors() == 0, users.seen
    else:
        # 150 to 200 requests a second come; a rule is sure within a second, and the way back takes a fraction of one.
        assert users.errors() <= 60, users.seen
    print(f"{kind}: {last}; users: {dict(users.seen)}; {time.monotonic() - began:.1f} s")


def test_a_good_version_goes_through_every_stage(demo, users):
    """Under the same traffic, without an error for anybody; the status and the history tell of it."""
    # The last bad one has left its servers on the idle pool: the good one is named.
    ended = demo.bgproxy(
        "deploy", "--yes", "--version", "2.0", "--upstream", demo.url_of("2.0"), "--reason", "release 2"
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for stage in ("verifying", "comparing", "warming", "switching", "baking", "draining"):
        assert stage in ended.stdout.splitlines()
    assert "succeeded" in ended.stdout.strip().splitlines()[-1]
    assert users.errors() == 0, users.seen
    assert "shop: green is live" in demo.bgproxy("status", "shop").stdout
    history = demo.bgproxy("history").stdout
    assert "has succeeded: green is live" in history
    assert "release 2" in history
