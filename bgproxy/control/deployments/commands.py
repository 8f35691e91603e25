"""Commands that users bring along: run by /bin/sh in bgproxy's working directory, told of the deployment, and ended with all they started.

A command gets a JSON object on its standard input and BGPROXY_* variables. It has a session, and so a process group, of its own; no
descriptor of ours; and the signals as a shell expects them. What it leaves running when it ends goes on without us.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from bgproxy.config.units import format_duration
from bgproxy.control.deployments import groups
from bgproxy.control.deployments.guard import noted
from bgproxy.control.deployments.words import last_lines, lines_of

#: Bytes of the output that are kept, the last ones.
KEPT: Final = 4096

#: Seconds that output may come for after its end.
LAST_WORDS: Final = 0.5

#: So many bytes of output, and then none for so many seconds: a command that never stops talking leaves time for others.
FLOOD: Final = 256 * 1024
PAUSE: Final = 0.02
_CHUNK: Final = 64 * 1024


async def run_command(
    command: str,
    said: Mapping[str, Any],
    environment: Mapping[str, str],
    seconds: float,
    line: Callable[[str], None] = lambda _: None,
    note: Path | None = None,
) -> tuple[bool, str, tuple[str, ...]]:
    """Run it to its end, or for so many seconds: whether it ended with 0, how it ended, and its last lines.

    `said` is what it is told, `environment` what it finds besides, `line` gets lines of its output as they come; `note` is the file
    that it notes itself in (see `guard`). Cancelled, it is ended before the cancellation goes on. Raises `OSError` where it cannot
    be started.
    """
    with contextlib.closing(_Child(noted(command, note), said, environment, line)) as child:
        try:
            in_time = await _comes(child.ended, seconds)
            if in_time:
                # What it has started may go on, and keep its output open: that is not waited for.
                await _comes(child.output.silent, LAST_WORDS)
            else:
                await child.end()
        finally:
            if not child.ended.is_set():
                await child.end()
        found = _status(child.status) if in_time else f"it did not end within {format_duration(seconds)}, and was ended"
        return in_time and child.status == 0, found, last_lines(child.output.tail)


class _Output:
    """What a command says, and the end of it.

    Read by hand: a transport of uvloop closes the descriptor of a pipe twice, which some day would be another's.
    """

    def __init__(self, file: Any, line: Callable[[str], None]) -> None:
        self.tail = b""
        self.silent = asyncio.Event()  # nobody holds its output open any more
        self._file = file
        self._line = line
        self._unread = FLOOD
        self._later: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        os.set_blocking(file.fileno(), False)
        self._loop.add_reader(file.fileno(), self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._file.fileno(), _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._file.fileno())
            self.silent.set()
            return
        self.tail = (self.tail + data)[-KEPT:]
        if b"\n" in data and (lines := lines_of(self.tail.rpartition(b"\n")[0])):
            self._line(lines[-1])
        self._unread -= len(data)
        if self._unread <= 0:
            self._loop.remove_reader(self._file.fileno())
            self._later = self._loop.call_later(PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._unread = FLOOD
        self._loop.add_reader(self._file.fileno(), self._read)

    def close(self) -> None:
        """Listen no longer: who still writes gets SIGPIPE."""
        if self._later is not None:
            self._later.cancel()
        self._loop.remove_reader(self._file.fileno())
        self._file.close()


class _Child:
    """A command that runs: a group of processes of its own. Raises `OSError` where it cannot be started."""

    def __init__(
        self,
        command: list[str],
        said: Mapping[str, Any],
        environment: Mapping[str, str],
        line: Callable[[str], None],
    ) -> None:
        # Popen and not the loop's own: uvloop's children inherit the other ends of their pipes. What it is told is a file in
        # memory, so that nobody waits for a command that does not read.
        with os.fdopen(os.memfd_create("deployment"), "w+b") as told:
            told.write(json.dumps(dict(said)).encode() + b"\n")
            told.seek(0)
            self._process = subprocess.Popen(
                command,
                stdin=told,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**environment, **variables(said)},
            )
        self.ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        try:
            self._handle = os.pidfd_open(self._process.pid)
        except OSError:  # no descriptor is left: nobody would know of its end
            groups.send(self._process.pid, signal.SIGKILL)
            self._process.communicate()
            raise
        self._loop.add_reader(self._handle, self._has_ended)
        self.output = _Output(self._process.stdout, line)

    @property
    def status(self) -> int | None:
        """As `subprocess` has it: below 0 the signal that ended it; None while it runs."""
        return self._process.returncode

    def _has_ended(self) -> None:
        self._loop.remove_reader(self._handle)
        self._process.poll()
        self.ended.set()

    async def end(self) -> None:
        """End it with all that it has started: asked first, then told. Whoever is cancelled meanwhile has it told at once."""
        await groups.end(self._process.pid, self._lives)
        await _comes(self.ended, groups.GRACE)

    def _lives(self, group: int) -> bool:
        """Whether any of the group does: the shell ends before what it has started, which may have things to put in order."""
        return not self.ended.is_set() or (groups.send(group, 0) and groups.lives(group))

    def close(self) -> None:
        """Give up what was held of it; it does not run on, whatever has happened."""
        if self.status is None:
            groups.send(self._process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LAST_WORDS)
        self.output.close()
        self._loop.remove_reader(self._handle)
        os.close(self._handle)


async def _comes(event: asyncio.Event, seconds: float) -> bool:
    """Whether it comes in time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _status(status: int | None) -> str:
    if status is None:
        return "nobody knows how it ended"
    if status >= 0:
        return f"status {status}"
    try:
        return f"ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"ended by signal {-status}"


def variables(said: Mapping[str, Any]) -> dict[str, str]:
    """What a command finds in its environment."""
    names = (
        *("service", "state", "target", "old", "live", "version", "strategy", "reason", "event"),
        *("preview_url", "preview_host", "preview_header"),
    )
    return {
        "BGPROXY_DEPLOYMENT": str(said.get("id", "")),
        **{f"BGPROXY_{name.upper()}": _fit(str(said.get(name, ""))) for name in names},
        "BGPROXY_UPSTREAMS": _fit(" ".join(said.get("upstreams", ()))),
    }


def _fit(text: str) -> str:
    """As it may stand in an environment: a reason is anybody's text, with NUL or half a character in it."""
    return text.replace("\0", "").encode(errors="replace").decode()
