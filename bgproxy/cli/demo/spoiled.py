"""New versions with something wrong, each at a port of its own, started when somebody first connects to it.

So the demo starts as quickly as without them, and whoever deploys one finds it there, as with socket activation.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Final

from bgproxy.cli.demo.children import Child, listening_socket
from bgproxy.cli.demo.faults import KINDS

#: The colour that they claim to be, and the version.
COLOUR: Final = "green"
VERSION: Final = "2.1"


class Spoiled:
    """All kinds; `urls` says where."""

    def __init__(self, folder: Path) -> None:
        self.urls: dict[str, str] = {}
        self._folder = folder
        self._sockets: dict[str, socket.socket] = {}
        self._children: list[Child] = []
        self._starting: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Listen, and start nothing yet."""
        loop = asyncio.get_running_loop()
        for kind in KINDS:
            sock = listening_socket() if kind != "down" else _deaf_socket()
            self._sockets[kind] = sock
            self.urls[kind] = f"http://127.0.0.1:{sock.getsockname()[1]}"
            if kind != "down":
                loop.add_reader(sock, self._wanted, kind)

    def _wanted(self, kind: str) -> None:
        sock = self._sockets.pop(kind)
        loop = asyncio.get_running_loop()
        loop.remove_reader(sock)
        task = loop.create_task(self._start(kind, sock), name=f"demo start {kind}")
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _start(self, kind: str, sock: socket.socket) -> None:
        # Ours is closed: when the child dies, nobody listens there any more.
        with sock:
            arguments = [COLOUR, VERSION, str(sock.fileno()), kind]
            log = self._folder / f"{kind}.log"
            self._children.append(
                await Child.start(f"{kind} shop", "bgproxy.cli.demo.shop", arguments, log, [sock.fileno()])
            )

    async def close(self) -> None:
        """End those that were started."""
        loop = asyncio.get_running_loop()
        for sock in self._sockets.values():
            loop.remove_reader(sock)
            sock.close()
        if self._starting:
            await asyncio.wait(self._starting)
        for child in self._children:
            await child.stop()


def _deaf_socket() -> socket.socket:
    """A port that is taken and that nobody listens on: connections are refused."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(("127.0.0.1", 0))
    return sock
