"""The controller's process: the real one, forked, with the test in the supervisor's place."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import pickle
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.http import Client
from support.waiting import eventually, eventually_async

from bgproxy.config.schema import Admin, Config, Pool, Pools, Service, Token
from bgproxy.control.events import Draft, EventLog
from bgproxy.errors import Busy
from bgproxy.process.children import fork, how_it_ended
from bgproxy.process.controller import ControllerProcess
from bgproxy.process.leash import Leash
from bgproxy.process.sockets import bind_admin
from bgproxy.switchboard.board import Switchboard
from bgproxy.switchboard.wiring import ControllerBirth

FILE = """
listen: 127.0.0.1:8080
state_dir: {state}
pools:
  blue: {{ version: "{version}", upstreams: [http://127.0.0.1:9] }}
"""


class Forked:
    """A controller in a child of this process."""

    def __init__(self, directory: Path, **admin: Any) -> None:
        self.path = directory / "bgproxy.yaml"
        self.state = directory / "state"
        self.write("1.0")
        self.listener = bind_admin(["127.0.0.1:0"])[0]
        ours, theirs = socket.socketpair()
        self.leash = Leash(ours)
        self.heard: list[dict[str, Any]] = []
        self.ended: str | None = None
        pools = Pools(blue=Pool(version="1.0", upstreams=("http://127.0.0.1:9",)))
        birth = ControllerBirth(
            board=Switchboard(0),
            config=Config(
                state_dir=str(self.state),
                services={"default": Service(pools=pools)},
                admin=Admin(**admin),
            ),
            config_source=str(self.path),
            config_text=None,
            listeners=self.listener.sockets,
            leash=theirs,
            links={},
        )

        def main() -> int:
            from bgproxy.process.controller import run

            ours.close()
            return run(birth)

        self.pid = fork("controller", main)
        theirs.close()

    def write(self, version: str) -> None:
        self.path.write_text(FILE.format(state=self.state, version=version))

    def said(self, key: str) -> Any:
        """What it said under this key; waits for it."""

        def find() -> list[Any]:
            self.heard += self.leash.receive()
            return [message[key] for message in self.heard if key in message]

        return eventually(find, within=15, what=key)[0]

    def end(self) -> str:
        """How it ended; waits for it."""

        def gone() -> str | None:
            if self.ended is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self.ended = how_it_ended(status) if pid else None
            return self.ended

        return str(eventually(gone, within=15, what="its end"))

    def get(self, path: str) -> Any:
        host, _, port = self.listener.address.rpartition(":")
        with Client((host, int(port))) as client:
            return client.request("GET", path, {"Host": self.listener.address})

    def close(self) -> None:
        if self.ended is None:
            os.kill(self.pid, signal.SIGKILL)
            self.end()
        self.leash.close()
        self.listener.close()


@pytest.fixture
def forked(tmp_path) -> Iterator[Callable[..., Forked]]:
    running: list[Forked] = []

    def start(**admin: Any) -> Forked:
        running.append(Forked(tmp_path, **admin))
        return running[-1]

    yield start
    for each in running:
        each.close()


def test_serves_until_sigterm(forked):
    """It says that it serves once the API answers, and SIGTERM ends it with 0."""
    it = forked()
    assert it.said("serving") is True
    assert it.get("/healthz").status == 200
    os.kill(it.pid, signal.SIGTERM)
    assert it.end() == "exit status 0"


def test_what_it_does_not_heed_is_not_ignored_by_its_commands(forked):
    """SIGINT of a terminal and SIGUSR1 do nothing to it; they are not SIG_IGN, which commands of deployments would inherit."""
    it = forked()
    it.said("serving")
    for _ in range(20):
        os.kill(it.pid, signal.SIGINT)
        os.kill(it.pid, signal.SIGUSR1)
    assert it.get("/healthz").status == 200
    status = Path(f"/proc/{it.pid}/status").read_text()
    blocked, ignored = (int(status.partition(f"{key}:")[2].split()[0], 16) for key in ("SigBlk", "SigIgn"))
    ours = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD]
    assert [number for number in ours if (blocked | ignored) & (1 << number - 1)] == []
    os.kill(it.pid, signal.SIGTERM)
    assert it.end() == "exit status 0"


def test_ends_with_its_supervisor(forked):
    """A leash that ends is as good as SIGTERM."""
    it = forked()
    it.said("serving")
    it.leash.close()
    assert it.end() == "exit status 0"


def test_sigterm_does_not_wait_for_an_event_stream(forked):
    """A follower of events ends with it, in order."""
    it = forked()
    it.said("serving")
    host, _, port = it.listener.address.rpartition(":")
    with Client((host, int(port))) as client:
        client.send_request("GET", "/v1/events", {"Host": it.listener.address})
        assert client.read_head().status == 200
        os.kill(it.pid, signal.SIGTERM)
        client.read_all()
    assert it.end() == "exit status 0"


def test_unreadable_state_is_told(forked, tmp_path):
    """It refuses over the leash, with a text that names the place, and ends with 2."""
    (tmp_path / "state").write_text("a file where a directory should be")
    it = forked()
    assert str(tmp_path / "state") in it.said("refused")
    assert it.end() == "exit status 2"


def test_a_token_that_is_not_there_is_told(forked, tmp_path):
    """A mistake that only the controller can find is a refusal too."""
    it = forked(tokens=(Token(name="ci", role="admin", token_file=str(tmp_path / "none")),))
    assert str(tmp_path / "none") in it.said("refused")
    assert it.end() == "exit status 2"


def test_hangups_reload_and_the_supervisor_is_told(forked):
    """SIGHUP takes the file's configuration; the supervisor gets it, for the controller after this one."""
    it = forked()
    it.said("serving")
    it.write("2.0")
    for _ in range(20):
        os.kill(it.pid, signal.SIGHUP)
    config = it.said("config")
    assert '"2.0"' in it.get("/v1/status").text
    import base64
    import pickle

    assert pickle.loads(base64.b64decode(config)).services["default"].pools.blue.version == "2.0"


def test_a_mistake_in_the_file_ends_nothing(forked, capfd):
    """The mistake is logged with its line; everything stays as it is, and the next SIGHUP is taken."""
    it = forked()
    it.said("serving")
    it.path.write_text("listen: 127.0.0.1:8080\npoools: {}\n")
    os.kill(it.pid, signal.SIGHUP)
    log = ""

    def refused() -> bool:
        nonlocal log
        log += capfd.readouterr().err
        return "reload refused" in log

    eventually(refused, within=15)
    assert f"{it.path}:2" in log
    eventually(lambda: refused() and "bgproxy.audit" in log)
    (line,) = [json.loads(line) for line in log.splitlines() if "bgproxy.audit" in line]
    assert (line["who"], line["from"], line["what"], line["outcome"]) == ("SIGHUP", "local", "reload", "config")
    assert line["detail"]
    it.write("3.0")
    os.kill(it.pid, signal.SIGHUP)
    it.said("config")
    assert '"3.0"' in it.get("/v1/status").text


class Stopped:
    """A controller process without a controller: what its tasks read and say."""

    def __init__(self, reload: Callable[..., Any] | None = None) -> None:
        self.said: list[dict[str, Any]] = []
        self.process = ControllerProcess.__new__(ControllerProcess)
        self.events = EventLog(length=3)
        self.controller = SimpleNamespace(config=Config(), events=self.events, reload=reload)
        self.process._controller = self.controller  # type: ignore[assignment]
        self.process._tether = SimpleNamespace(say=self.said.append)  # type: ignore[assignment]
        self.process._told = self.controller.config
        self.process._hangup = asyncio.Event()


async def test_the_supervisor_is_told_of_a_reload_in_a_storm_of_events(monkeypatch):
    """More events at once than the log holds: the one that tells of the reload is gone, its configuration must not be."""
    monkeypatch.setattr("bgproxy.process.controller.FOLLOW_AGAIN", 0.01)
    stopped = Stopped()
    task = asyncio.create_task(stopped.process._tell_of_reloads())
    try:
        for number in (1, 2):
            await asyncio.sleep(0)
            stopped.controller.config = Config(workers=number)
            stopped.events.emit(Draft(type="reloaded", message=""))
            for _ in range(5):
                stopped.events.emit(Draft(type="upstream_down", message=""))
            await eventually_async(lambda number=number: len(stopped.said) == number)
        assert [pickle.loads(base64.b64decode(line["config"])).workers for line in stopped.said] == [1, 2]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_reload_that_a_stop_interrupts_is_in_the_audit_log(caplog):
    """As every change that was asked for."""
    caplog.set_level(logging.INFO, "bgproxy.audit")
    begun = asyncio.Event()

    async def reload(**_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    stopped = Stopped(reload)
    task = asyncio.create_task(stopped.process._reload_at_hangups())
    stopped.process._hangup.set()
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [(record.fields["who"], record.fields["outcome"]) for record in caplog.records] == [
        ("SIGHUP", "interrupted")
    ]


async def test_a_hangup_during_another_reload_is_one_more_reload_after_it(monkeypatch, caplog):
    """Nobody would repeat a signal: it is taken as soon as the API's reload, or a switch, has ended. So are all that come meanwhile."""
    monkeypatch.setattr("bgproxy.process.controller.BUSY_AGAIN", 0.01)
    caplog.set_level(logging.INFO, logger="bgproxy.audit")
    busy, tries, taken = asyncio.Event(), asyncio.Event(), []

    async def reload(*, actor: Any) -> None:
        if not busy.is_set():
            tries.set()
            raise Busy("A reload is under way already.")
        taken.append(actor.name)

    stopped = Stopped(reload)
    task = asyncio.create_task(stopped.process._reload_at_hangups())
    stopped.process._hangup.set()
    await asyncio.wait_for(tries.wait(), 10)
    assert not taken
    stopped.process._hangup.set()
    busy.set()
    await eventually_async(lambda: len(caplog.records) == 2)
    assert taken == ["SIGHUP", "SIGHUP"]
    assert {record.fields["outcome"] for record in caplog.records} == {"done"}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_hangup_that_finds_no_end_of_other_changes_is_refused(monkeypatch, caplog):
    """After a while, with the reason in the log; the next one is taken."""
    monkeypatch.setattr("bgproxy.process.controller.BUSY_AGAIN", 0.01)
    monkeypatch.setattr("bgproxy.process.controller.FREE_WITHIN", 0.05)
    answers: list[Exception | None] = []

    async def reload(*, actor: Any) -> None:
        answers.append(None if len(caplog.records) > 1 else Busy(f"{actor.name} is one too many"))
        if answers[-1] is not None:
            raise answers[-1]

    caplog.set_level(logging.INFO, logger="bgproxy.audit")
    stopped = Stopped(reload)
    task = asyncio.create_task(stopped.process._reload_at_hangups())
    stopped.process._hangup.set()
    await eventually_async(lambda: [record.name for record in caplog.records].count("bgproxy.audit") == 1)
    assert len(answers) > 1
    assert "reload refused: SIGHUP is one too many" in caplog.text
    stopped.process._hangup.set()
    await eventually_async(lambda: answers[-1] is None)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
