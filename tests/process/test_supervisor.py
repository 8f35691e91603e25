"""The supervisor over fake children: real forks, real sockets, real kills."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.waiting import eventually

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "support" / "fake_program.py"


class Program:
    """A running program of the real supervisor and fake children."""

    def __init__(self, log: Path, **wish: Any) -> None:
        self.log_path = log
        wish["config"] = {"listen": ["127.0.0.1:0"], "admin": ["127.0.0.1:0"], "workers": 2} | wish.get("config", {})
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(PROGRAM), json.dumps(wish)],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stderr=stderr,
            )

    def log(self) -> str:
        return self.log_path.read_text()

    def lines(self, message: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in found if line["message"] == message]

    def serving(self) -> dict[str, Any]:
        eventually(lambda: self.lines("serving"), what=f"serving; log:\n{self.log()}")
        return self.lines("serving")[0]

    def ask(self, address: str, command: str = "who") -> Any:
        with connect(address) as client:
            client.sendall(command.encode())
            return json.loads(read_all(client))

    def data(self, command: str = "who") -> Any:
        return self.ask(self.serving()["listen"][0], command)

    def admin(self, command: str = "who") -> Any:
        return self.ask(self.serving()["admin"][0], command)

    def stop(self, number: int = signal.SIGTERM, *, within: float = 10) -> int:
        self.process.send_signal(number)
        return self.process.wait(within)


def connect(address: str) -> socket.socket:
    if address.startswith("unix:"):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(5)
        client.connect(address.removeprefix("unix:"))
        return client
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=5)


def read_all(client: socket.socket) -> bytes:
    data = b""
    while piece := client.recv(65536):
        data += piece
    return data


@pytest.fixture
def program(tmp_path) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def start(**wish: Any) -> Program:
        started.append(Program(tmp_path / f"log{len(started)}", **wish))
        return started[-1]

    yield start
    for each in started:
        # The fakes end when their leashes do, so no pid but the supervisor's need be killed.
        each.process.kill()
        each.process.wait()
        print(each.log())  # pytest shows it when the test has failed


def test_serves_links_everyone_and_stops_with_0(program):
    """All children serve, every worker is linked to the controller under its own pid, and SIGTERM ends it with 0."""
    it = program()
    pids = it.serving()["worker_pids"]
    eventually(lambda: it.admin()["hellos"] == {"0": f"0 {pids[0]}", "1": f"1 {pids[1]}"})
    assert it.data()["pid"] in pids
    assert it.stop() == 0
    assert len(it.lines("stopped")) == 1


def test_children_hold_only_what_is_theirs(program):
    """A child keeps no descriptor of its siblings: leashes that stayed open would hide the supervisor's death."""
    it = program(config={"workers": 4})
    serving = it.serving()
    own = {who["index"]: who["descriptors"] for who in (it.data() for _ in range(40))}
    assert max(own.values()) == min(own.values())
    inodes = [sockets_of(pid) for pid in (*serving["worker_pids"], serving["controller_pid"])]
    for one, mine in enumerate(inodes):
        for other in inodes[one + 1 :]:
            assert not mine & other


def sockets_of(pid: int) -> set[str]:
    links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir() if int(entry.name) > 2]
    return {link for link in links if link.startswith("socket:")}


def test_successor_answers_what_waited_in_a_dead_workers_socket(program):
    """Kill -9 of a worker resets nobody whose connection it had not accepted: the successor answers them."""
    it = program(config={"workers": 1})
    (pid,) = it.serving()["worker_pids"]
    os.kill(pid, signal.SIGSTOP)  # so that they wait
    address = it.serving()["listen"][0]
    clients = [connect(address) for _ in range(50)]
    for client in clients:
        client.sendall(b"who")
    os.kill(pid, signal.SIGKILL)
    answers = {json.loads(read_all(client))["pid"] for client in clients}
    for client in clients:
        client.close()
    assert len(answers) == 1
    assert answers != {pid}


def test_restarted_worker_is_linked_anew(program):
    """The controller hears that a worker is lost, gets its successor's link, and the new pid and restart count."""
    it = program()
    pids = it.serving()["worker_pids"]
    os.kill(pids[1], signal.SIGKILL)
    eventually(lambda: it.admin()["hellos"].get("1", f"1 {pids[1]}") != f"1 {pids[1]}")
    eventually(lambda: it.admin()["children"]["workers"][1]["restarts"] == 1)
    state = it.admin()
    assert {"lost": 1} in state["heard"]
    new = int(state["hellos"]["1"].split()[1])
    assert state["children"]["workers"] == [
        {"index": 0, "pid": pids[0], "restarts": 0},
        {"index": 1, "pid": new, "restarts": 1},
    ]
    assert state["hellos"]["0"] == f"0 {pids[0]}"


def test_restarted_controller_gets_links_to_all_workers(program):
    """Kill -9 of the controller: the workers live on, and its successor has a new link to each of them."""
    it = program()
    serving = it.serving()
    pids = serving["worker_pids"]
    os.kill(serving["controller_pid"], signal.SIGKILL)
    hellos = {"0": f"0 {pids[0]}", "1": f"1 {pids[1]}"}
    eventually(lambda: it.admin()["hellos"] == hellos)
    state = it.admin()
    assert state["born"]["controller"]["restarts"] == 1  # it knew from its birth that it is not the first
    eventually(lambda: it.admin()["children"]["controller"] == {"pid": state["pid"], "restarts": 1})
    assert state["pid"] != serving["controller_pid"]
    eventually(lambda: it.data()["linked"])


def test_worker_and_controller_die_together(program):
    """Both are back, and linked to each other."""
    it = program()
    serving = it.serving()
    os.kill(serving["controller_pid"], signal.SIGKILL)
    os.kill(serving["worker_pids"][0], signal.SIGKILL)
    former = f"0 {serving['worker_pids'][0]}"
    eventually(lambda: it.admin()["hellos"].get("0", former) != former)
    eventually(lambda: it.admin()["hellos"].get("1") == f"1 {serving['worker_pids'][1]}")


def test_crash_loop_backs_off(program):
    """A worker that ends at once is restarted at once, then after longer and longer waits; the log says so."""
    it = program(crash=True, config={"workers": 1})
    eventually(lambda: len(it.lines("worker 0 ended")) >= 4)
    ended = it.lines("worker 0 ended")
    assert [line["next_in"] for line in ended[:4]] == ["0s", "0.1s", "0.2s", "0.4s"]
    assert ended[0]["how"] == "exit status 1"
    assert it.stop() == 0


def test_restarted_controller_starts_with_the_configuration_in_force(program):
    """What a reload brought survives a crash of the controller."""
    it = program()
    it.admin("reconfigure")
    eventually(lambda: it.admin("who")["pid"])
    os.kill(it.serving()["controller_pid"], signal.SIGKILL)
    eventually(lambda: it.admin()["state_dir"] == "/reloaded")


def test_refusal_ends_everything_with_2(program):
    """A controller that refuses at the start ends the program; its text is on stderr, and nothing is left."""
    it = program(refuse="state.json: half of it is missing; restore state.json.good")
    assert it.process.wait(10) == 2
    assert "bgproxy: state.json: half of it is missing; restore state.json.good\n" in it.log()


def test_connection_in_flight_ends_before_the_program(program):
    """SIGTERM waits for the workers, which end what they have begun; new connections are refused meanwhile."""
    it = program()
    address = it.serving()["listen"][0]
    with connect(address) as client:
        client.sendall(b"hold")
        eventually(it.data)
        it.process.send_signal(signal.SIGTERM)
        eventually(lambda: refused(address))
        assert it.process.poll() is None
        client.sendall(b"go on")
        assert json.loads(read_all(client))["pid"]
    assert it.process.wait(10) == 0


def refused(address: str) -> bool:
    try:
        connect(address).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False
    return False


def test_second_signal_ends_at_once(program):
    """Children that will not end are killed by the second SIGTERM; the exit status is 1."""
    it = program(stubborn=True, config={"shutdown": 60.0})
    it.serving()
    it.process.send_signal(signal.SIGTERM)
    eventually(lambda: it.lines("stopping"))
    assert it.stop(signal.SIGINT) == 1
    for pid in it.serving()["worker_pids"]:
        assert not Path(f"/proc/{pid}").exists()


def test_stubborn_children_are_killed_after_the_grace(program, monkeypatch):
    """Without a second signal they are killed `timeouts.shutdown` and 5 s later, and the exit status is 0."""
    it = program(stubborn=True, config={"shutdown": 0.1})
    it.serving()
    assert it.stop(within=15) == 0
    assert it.lines("killed, not ended in time")


def test_storm_of_hangups_is_harmless(program):
    """SIGHUP reaches the controller, and a thousand of them neither end nor restart anything."""
    it = program()
    it.serving()
    for _ in range(1000):
        it.process.send_signal(signal.SIGHUP)
    eventually(lambda: it.admin()["hangups"] >= 1)
    assert it.data()["pid"] in it.serving()["worker_pids"]
    assert not it.lines("controller ended")
    assert it.stop() == 0


def test_ctrl_c_of_a_terminal_does_not_kill_the_children(program):
    """A terminal sends SIGINT to the whole group; the children leave it to the supervisor, which drains."""
    it = program()
    for pid in it.serving()["worker_pids"]:
        os.kill(pid, signal.SIGINT)
    assert it.data()["pid"] in it.serving()["worker_pids"]
    assert it.stop(signal.SIGINT) == 0


def test_children_end_with_a_killed_supervisor(program):
    """Kill -9 of the supervisor ends every leash; the port is free then."""
    it = program()
    serving = it.serving()
    it.process.kill()
    it.process.wait()
    address = serving["listen"][0]
    eventually(lambda: refused(address))
    for pid in (*serving["worker_pids"], serving["controller_pid"]):
        eventually(lambda pid=pid: not Path(f"/proc/{pid}").exists() or "Z" in state_of(pid))


def state_of(pid: int) -> str:
    found = re.search(r"^State:\s+(\S)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return found[1] if found else ""


def test_a_stuck_controller_stops_nothing(program):
    """The supervisor never waits for a child that does not read: a worker that dies meanwhile is replaced, often."""
    it = program(config={"workers": 1})
    serving = it.serving()
    os.kill(serving["controller_pid"], signal.SIGSTOP)
    seen = set()
    for _ in range(3):
        pid = it.data()["pid"]
        seen.add(pid)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda pid=pid: it.data()["pid"] != pid)
    os.kill(serving["controller_pid"], signal.SIGCONT)
    last = it.data()["pid"]
    assert last not in seen
    eventually(lambda: it.admin()["hellos"] == {"0": f"0 {last}"})


def test_unix_listener_goes_with_the_program(program, tmp_path):
    """A Unix listener is answered by the workers, and its file is gone after the end."""
    path = tmp_path / "proxy.sock"
    it = program(config={"listen": [f"unix:{path}"]})
    assert it.data()["pid"] in it.serving()["worker_pids"]
    assert it.stop() == 0
    assert not path.exists()


def test_address_in_use_is_said_with_what_to_do(program):
    """A second program on the same port is refused with exit status 2 and a way on, and the first one is unharmed."""
    it = program()
    address = it.serving()["listen"][0]
    second = program(config={"listen": [address]})
    assert second.process.wait(10) == 2
    assert f"cannot listen on {address}: another process listens there; stop it" in second.log()
    assert it.data()["pid"]


def test_run_says_why_it_cannot_start(capsys):
    """`run` turns an error of the start into a line on stderr and exit status 2."""
    pytest.importorskip("bgproxy.proxy.worker")
    from bgproxy.config.schema import Admin, Config
    from bgproxy.process.supervisor import run

    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config = Config(listen=(address,), workers=1, admin=Admin(listen=()))
        assert run(config, config_source=None, config_text="") == 2
    assert f"bgproxy: cannot listen on {address}" in capsys.readouterr().err
