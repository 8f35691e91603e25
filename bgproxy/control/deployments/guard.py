"""Keeps note of the commands that run, so that the controller after one that was killed can end what is still running of them.

A command has a session of its own and does not notice the end of its controller; the next one would run it a second time beside it.
So it notes itself, in the shell, before it becomes the user's command: it never runs unnoted. The note is the machine's boot id and the
line of the process in /proc (proc(5)), and is removed when the command has ended. A number is another's only with another start
time. Notes are not synced to the disk: what would lose them ends the commands, too.
"""

from __future__ import annotations

import itertools
import logging
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from bgproxy.control.deployments import groups

log = logging.getLogger("bgproxy.controller")

_BOOT: Final = "/proc/sys/kernel/random/boot_id"

#: $1 is the file of the note, $2 the command. A note that cannot be written is no reason not to run it.
_NOTED: Final = (
    f'{{ read -r BGPROXY_BOOT <{_BOOT} && read -r BGPROXY_STAT </proc/$$/stat && printf "%s\\n%s\\n" "$BGPROXY_BOOT" "$BGPROXY_STAT" >"$1"; }} '
    '2>/dev/null; exec /bin/sh -c "$2"'
)

# Where a field of /proc/PID/stat stands behind the name, counted from 0.
_STATE: Final = 0
_GROUP: Final = 2
_SESSION: Final = 3
_STARTED: Final = 19


class Guard:
    """The notes in `directory`, one for each command that runs, by the number of its deployment; None: nothing is noted."""

    def __init__(self, directory: str | None = None) -> None:
        self._directory = None if directory is None else Path(directory)
        self._count = itertools.count(1)

    def note(self, number: int) -> Path | None:
        """Where a command of this deployment is to note itself; None where it cannot. To be removed when it has ended."""
        directory = self._directory
        if directory is None:
            return None
        try:
            with suppress(FileExistsError):
                directory.mkdir(mode=0o700)
            found = directory.lstat()
        except OSError as error:
            log.warning("running commands cannot be noted in %s: %s", directory, error.strerror)
            return None
        # Whoever else could write there would say what is ended by us.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            log.warning(
                "running commands are not noted in %s: it must be bgproxy's own directory (mode 0700)", directory
            )
            return None
        return directory / f"{number}-{os.getpid()}-{next(self._count)}"

    async def end_left(self, number: int) -> list[tuple[bool, str]]:
        """End what a former controller has left running of this deployment's commands: for each whether it did, and a sentence."""
        if self._directory is None:
            return []
        said = []
        for note in sorted(self._directory.glob(f"{number}-*")):
            group = _running(note)
            if group is not None:
                ended = await groups.end(group)
                found = f"a command of a bgproxy that was killed ran on (pid {group}), and {'was' if ended else 'could not be'} ended"
                log.warning("deployment %d: %s", number, found)
                said.append((ended, found))
            note.unlink(missing_ok=True)
        return said


def noted(command: str, note: Path | None) -> list[str]:
    """The arguments that run a command by the shell, which notes itself before it does."""
    return ["/bin/sh", "-c", command] if note is None else ["/bin/sh", "-c", _NOTED, "sh", str(note), command]


def _running(note: Path) -> int | None:
    """The process that has made the note, if it has not ended: a session and a group of processes, by its number."""
    try:
        boot, then = note.read_text(errors="replace").splitlines()
        if boot != Path(_BOOT).read_text().strip():
            return None
        number = int(then.partition(" ")[0])
        now = Path(f"/proc/{number}/stat").read_text(errors="replace")
        fields = _fields(now)
        same = fields[_STARTED] == _fields(then)[_STARTED] and fields[_STATE] not in ("Z", "X")
    except (OSError, ValueError, IndexError):
        return None
    return number if same and number == int(fields[_GROUP]) == int(fields[_SESSION]) else None


def _fields(line: str) -> list[str]:
    """Of a line of /proc/PID/stat, what stands behind the name, which is anybody's text."""
    return line.rpartition(")")[2].split()
