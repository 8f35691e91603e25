"""A program of the real supervisor and fake children, for tests of the supervisor alone.

    python tests/support/fake_program.py '{"config": {...}, "refuse": "...", "stubborn": true}'

A fake worker answers each connection to its sockets with one line of JSON about itself, after it has read one line: "who",
"die" (kill -9 itself first), or "hold" (answers only after a second line). A fake controller does so on the admin sockets: "who"
tells what it knows of its family. `stubborn` workers ignore SIGTERM; with `refuse`, the controller refuses to start.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pickle
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from bgproxy import logs
from bgproxy.config.schema import Admin, Config, Timeouts
from bgproxy.errors import StartError
from bgproxy.process.supervisor import Supervisor
from bgproxy.switchboard.wiring import ControllerBirth, WorkerBirth


class FakeChild:
    """A loop over sockets, a leash, links, and SIGTERM."""

    def __init__(self, leash: socket.socket, listeners: list[socket.socket]) -> None:
        self.leash = leash
        self.listeners = listeners
        self.links: dict[int, socket.socket] = {}
        self.heard: list[dict[str, Any]] = []
        self.held: list[socket.socket] = []
        self.hangups = 0
        self.stopping = False
        self._wake, wake = socket.socketpair()
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno())
        self._keep = wake
        signal.signal(signal.SIGTERM, self.on_term)
        signal.signal(signal.SIGHUP, self.on_hup)

    def on_term(self, *_: object) -> None:
        self.stopping = True

    def on_hup(self, *_: object) -> None:
        self.hangups += 1

    def say(self, message: dict[str, Any]) -> None:
        self.leash.sendall(json.dumps(message).encode() + b"\n")

    def live(self) -> int:
        self.say({"serving": True})
        while True:
            waiting = [self._wake, self.leash, *self.links.values(), *self.listeners, *self.held]
            ready = select.select(waiting, [], [])[0]
            if self._wake in ready:
                self._wake.recv(4096)
            if self.leash in ready and not self.hear():
                return 3
            for index, link in list(self.links.items()):
                if link in ready:
                    self.on_link(index, link)
            for sock in ready:
                if sock in self.listeners:
                    self.accept(sock)
                elif sock in self.held:
                    sock.recv(100)
                    self.held.remove(sock)
                    self.answer(sock)
            if self.stopping:
                for sock in self.listeners:
                    while self.accept(sock):
                        pass
                    sock.close()
                self.listeners = []
                if not self.held:
                    return 0

    def hear(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self.leash, 65536, 16)
        if not data:
            return False
        for line in data.splitlines():
            message = json.loads(line)
            self.heard.append(message)
            if "link" in message:
                index = 0 if message["link"] is True else message["link"]
                self.take_link(index, socket.socket(fileno=fds.pop(0)))
            self.on_message(message)
        return True

    def on_message(self, message: dict[str, Any]) -> None: ...

    def take_link(self, index: int, link: socket.socket) -> None:
        former = self.links.pop(index, None)
        if former is not None:
            former.close()
        self.links[index] = link

    def on_link(self, index: int, link: socket.socket) -> bytes:
        """What came over a link; nothing at its end, which a killed peer makes a reset."""
        try:
            data = link.recv(4096)
        except ConnectionResetError:
            data = b""
        if not data:
            del self.links[index]
            link.close()
        return data

    def accept(self, sock: socket.socket) -> bool:
        try:
            client, _ = sock.accept()
        except BlockingIOError:
            return False
        client.settimeout(5)
        command = client.recv(100).strip()
        if command == b"die":
            os.kill(os.getpid(), signal.SIGKILL)
        if command == b"hold":
            self.held.append(client)
        else:
            self.obey(command)
            self.answer(client)
        return True

    def obey(self, command: bytes) -> None: ...

    def answer(self, client: socket.socket) -> None:
        with client, contextlib.suppress(ConnectionError):
            client.sendall(json.dumps({"pid": os.getpid(), **self.about()}).encode())

    def about(self) -> dict[str, Any]:
        return {}


class FakeWorker(FakeChild):
    def __init__(self, birth: WorkerBirth) -> None:
        super().__init__(birth.leash, birth.listeners)
        self.index = birth.index
        self.take_link(0, birth.link)

    def take_link(self, index: int, link: socket.socket) -> None:
        super().take_link(index, link)
        with contextlib.suppress(ConnectionError):  # the controller is dead again already
            link.sendall(f"{self.index} {os.getpid()}\n".encode())

    def about(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "linked": bool(self.links),
        }


class FakeController(FakeChild):
    def __init__(self, birth: ControllerBirth) -> None:
        super().__init__(birth.leash, birth.listeners)
        self.config = birth.config
        self.born = self.children = birth.children
        self.hellos: dict[int, str] = {}
        for index, link in birth.links.items():
            self.take_link(index, link)

    def on_link(self, index: int, link: socket.socket) -> bytes:
        data = super().on_link(index, link)
        if data:
            self.hellos[index] = data.decode().strip()
        else:
            self.hellos.pop(index, None)
        return data

    def on_message(self, message: dict[str, Any]) -> None:
        self.children = message.get("children", self.children)

    def obey(self, command: bytes) -> None:
        if command == b"reconfigure":
            config = Config(listen=self.config.listen, state_dir="/reloaded")
            self.say({"config": base64.b64encode(pickle.dumps(config)).decode()})

    def about(self) -> dict[str, Any]:
        return {
            "hellos": self.hellos,
            "children": self.children,
            "born": self.born,
            "heard": self.heard,
            "hangups": self.hangups,
            "state_dir": self.config.state_dir,
        }


def main() -> int:
    wish = json.loads(sys.argv[1])
    admin = tuple(wish["config"].pop("admin", ()))
    shutdown = wish["config"].pop("shutdown", 5.0)
    wish["config"]["listen"] = tuple(wish["config"]["listen"])
    config = Config(admin=Admin(listen=admin), timeouts=Timeouts(shutdown=shutdown), **wish["config"])

    def worker_main(birth: WorkerBirth) -> int:
        if wish.get("crash"):
            return 1
        worker = FakeWorker(birth)
        if wish.get("stubborn"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return worker.live()

    def controller_main(birth: ControllerBirth) -> int:
        controller = FakeController(birth)
        if "refuse" in wish:
            controller.say({"refused": wish["refuse"]})
            return 2
        return controller.live()

    logs.setup()
    supervisor = Supervisor(
        config, config_source=None, config_text="", worker_main=worker_main, controller_main=controller_main
    )
    try:
        return supervisor.run()
    except StartError as error:
        sys.stderr.write(f"bgproxy: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
