"""A worker in a process of its own; the test holds the other ends of its leash and its link.

Run as a program it is the worker: descriptors of leash, link and listener as arguments.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from typing import Any, Self

from bgproxy.config import schema
from bgproxy.model.snapshot import ProxySpec, ServiceSpec
from bgproxy.switchboard import messages
from bgproxy.switchboard.board import Switchboard
from bgproxy.switchboard.wiring import WorkerBirth

PATIENCE = 10.0


class WorkerProcess:
    def __init__(self, **timeouts: float) -> None:
        self.timeouts = schema.Timeouts(**timeouts)
        self.leash, leash = socket.socketpair()
        self.link, link = socket.socketpair()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self.listener.getsockname()[1]
        descriptors = [leash.fileno(), link.fileno(), self.listener.fileno()]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "support.worker_process", *map(str, descriptors)],
            pass_fds=descriptors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.PIPE,
        )
        leash.close()
        link.close()
        self.leash.settimeout(PATIENCE)
        self.use(self.link)

    def use(self, link: socket.socket) -> None:
        self.link = link
        self.link.settimeout(PATIENCE)
        self._decoder = messages.Decoder()
        self._messages: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for sock in (self.leash, self.link, self.listener):
            sock.close()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def hear(self, kind: type) -> Any:
        """The next message of a kind over the link."""
        while True:
            for message in list(self._messages):
                self._messages.remove(message)
                if isinstance(message, kind):
                    return message
            data = self.link.recv(65536)
            assert data, "the link has ended"
            self._messages += self._decoder.feed(data)

    def say(self, message: Any) -> None:
        self.link.sendall(messages.encode(message))

    def snapshot(self, *services: ServiceSpec, number: int = 1) -> None:
        proxy = ProxySpec(schema.Limits(), self.timeouts, (), "off", bytes(32))
        self.say(messages.Snapshot(number, whole=True, services=services, proxy=proxy))
        assert self.hear(messages.Ack).number == number

    def told(self) -> dict[str, Any]:
        """The next word over the leash."""
        line = self.leash.recv(4096)
        assert line, "the leash has ended"
        word: dict[str, Any] = json.loads(line)
        return word

    def end(self) -> tuple[int, str]:
        """Exit status and standard error, once it has ended by itself."""
        _, error = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, error.decode()


def main() -> int:
    leash, link, listener = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    board = Switchboard(1)
    board.settle(0, 0)
    from bgproxy.proxy.worker import run

    return run(WorkerBirth(0, board, [listener], leash, link, 1))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
