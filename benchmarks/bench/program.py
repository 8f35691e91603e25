"""Programs that the suite starts: pinned to cores, with their output in a file, and gone when the suite is."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bench import process

#: Seconds that a program has to end after SIGTERM, before its group is killed.
PATIENCE: Final = 5.0


class ProgramError(Exception):
    """A program did not start, or ended when it should not have; the text has the end of what it said."""


def pinned(command: Sequence[str], cores: str) -> list[str]:
    """The command on these cores, ended by the kernel should the suite be killed."""
    return ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", cores, *command]


class Program:
    """One program and its descendants, in a group of their own: Ctrl-C reaches the suite alone, which ends them."""

    def __init__(self, name: str, command: Sequence[str], cores: str, log: Path, env: Mapping[str, str] | None = None):
        self.name = name
        self.command = shlex.join(command)
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                pinned(command, cores),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else os.environ | env,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def family(self) -> list[int]:
        return process.family(self.pid)

    def cpu(self) -> float:
        """CPU seconds of it all, so far."""
        return process.cpu_seconds(self.family())

    def pss(self) -> int:
        """Memory of it all, in bytes."""
        return process.pss_bytes(self.family())

    def wait(self, seconds: float) -> int:
        """Until it has ended; `ProgramError` if it has not by then."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise ProgramError(f"{self.name} has not ended after {seconds:g} s: {self.command}") from None

    def ended(self) -> bool:
        return self._process.poll() is not None

    def check(self) -> None:
        """`ProgramError` if it has ended."""
        if self._process.poll() is not None:
            raise ProgramError(f"{self.name} ended with {self._process.returncode}: {self.last_words()}")

    def last_words(self) -> str:
        """The end of its output."""
        return self.log.read_text(errors="replace")[-2000:].strip()

    def stop(self) -> None:
        """End it and all that it started; does nothing the second time."""
        family = self.family() if self._process.poll() is None else []
        with suppress(ProcessLookupError):
            self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        for pid in family:
            if _same(pid, self.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.wait(PATIENCE)


def _same(pid: int, session: int) -> bool:
    """Whether a process belongs to that session: a number may have been given to somebody else by now."""
    try:
        return os.getsid(pid) == session
    except ProcessLookupError:
        return False


def run(name: str, command: Sequence[str], cores: str, log: Path, seconds: float) -> str:
    """Run a program to its end, which comes within so many seconds; its output. `ProgramError` if it fails."""
    with Program(name, command, cores, log) as program:
        status = program.wait(seconds)
    if status != 0:
        raise ProgramError(f"{name} ended with {status}: {program.last_words()}")
    return log.read_text(errors="replace")


def poll(condition, seconds: float, what: str, program: Program | None = None) -> None:
    """Ask every 20 ms until it is so; `ProgramError` when it is not in time, or when the program has ended."""
    deadline = time.monotonic() + seconds
    while not condition():
        if program is not None:
            program.check()
        if time.monotonic() > deadline:
            raise ProgramError(f"{what}: not after {seconds:g} s" + (f": {program.last_words()}" if program else ""))
        time.sleep(0.02)
