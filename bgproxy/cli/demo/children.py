"""The processes of the demo: the two shops and the proxy. Whatever happens, none of them is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

#: Seconds that a child has to end after SIGTERM, before its whole process group is killed.
PATIENCE: Final = 8.0


class Child:
    """A process in a group of its own: a Ctrl-C in the terminal reaches the demo alone, which ends the rest in order."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log  # its stdout and stderr
        self._process = process

    @classmethod
    async def start(cls, name: str, module: str, arguments: Sequence[str], log: Path, fds: Sequence[int] = ()) -> Child:
        """Run a module of this very program; `fds` are handed down."""
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", module, *arguments),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(),
                pass_fds=fds,
                process_group=0,
            )
        return cls(name, process, log)

    async def ended(self) -> int:
        """Wait until it has ended; its exit status."""
        return await self._process.wait()

    async def stop(self) -> None:
        """End it and all that it started; does nothing where it has ended in order."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), PATIENCE)
        if self._process.returncode != 0:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def last_words(self, lines: int = 20) -> str:
        """The end of its output."""
        text = self.log.read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def _environment() -> dict[str, str]:
    """This process's environment with its import path, so that the children are the same program."""
    folders = [os.path.abspath(folder) for folder in sys.path]  # noqa: PTH100 - "" is the working directory
    return os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(folders))}


def listening_socket() -> socket.socket:
    """A socket that listens on a free port of the loopback; nobody can take the port before its user has it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(("127.0.0.1", 0))
    sock.listen(128)
    return sock


def free_port(wanted: int, taken: frozenset[int] = frozenset()) -> int | None:
    """The wanted port of the loopback, or the next one that nobody listens on; None where the next hundred are taken."""
    for port in range(wanted, min(wanted + 100, 65536)):
        if port in taken:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # as the proxy will: ports of ended connections are free
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    return None
