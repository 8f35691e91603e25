"""Logging of every process: JSON lines, or lines for humans on a terminal, and never a wait for whoever reads them.

A log that nobody reads must not stop the traffic: a line that the descriptor has no room for is dropped and counted,
and the next line that gets through says how many were lost.

Fields of a line are given as ``extra={"fields": {"service": "shop"}}``: keys of the JSON object, or ``key=value`` at
the end of a human line.
"""

from __future__ import annotations

import json
import logging
import os
import select
import stat
import traceback
from datetime import UTC, datetime
from typing import Any, Final

#: A pipe that polls as writable takes at least so many bytes without blocking (PIPE_BUF, pipe(7)).
PIECE: Final = 4096

STDERR: Final = 2


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, pid, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        for key, value in _fields(record).items():
            line.setdefault(key, value)
        return json.dumps(line, ensure_ascii=False, default=str)


class HumanFormatter(logging.Formatter):
    """`12:30:01.123 INFO  supervisor: message  key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end; control characters are escaped, so that a line stays one."""
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        name = record.name.removeprefix("bgproxy.")
        fields = "".join(f" {key}={_word(value)}" for key, value in _fields(record).items())
        text = f"{at} {record.levelname:<7} {name}: {record.getMessage()}{' ' if fields else ''}{fields}"
        return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class NeverBlockingHandler(logging.Handler):
    """Writes lines to a descriptor while it has room, drops them while it has none.

    `dropped` counts the lines that were lost, wholly or in part, since the start.
    """

    def __init__(self, descriptor: int = STDERR) -> None:
        super().__init__()
        self.dropped = 0
        self._descriptor = descriptor
        self._own = own_pipe(descriptor)
        if self._own is not None:
            self._descriptor = self._own
        self._given = descriptor
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLOUT)
        self._reported = 0  # of `dropped`
        self._torn = False  # a line was begun and not ended

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line now or never."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - arguments that do not fit the message must not end whoever logged it
            line = self.format(_plain(record, f"{record.msg} (unprintable arguments)"))
        if self.dropped > self._reported:
            lost = self.dropped
            notice = (
                f"log lines were dropped because nobody read them: {lost - self._reported} since the last such line"
            )
            if self._write(self.format(_plain(record, notice, logging.WARNING))):
                self._reported = lost
        if not self._write(line):
            self.dropped += 1

    def close(self) -> None:
        """Close what is this handler's own; the descriptor that it was given is not. Idempotent."""
        if self._own is not None:
            self._poll.unregister(self._own)
            os.close(self._own)
            self._own, self._descriptor = None, self._given  # its number may soon be another file's
            self._poll.register(self._descriptor, select.POLLOUT)
        super().close()

    def _write(self, line: str) -> bool:
        """Whether the whole line got through. Never blocks: see `PIECE`."""
        data = f"{line}\n".encode(errors="backslashreplace")
        if self._torn:
            data = b"\n" + data
        for start in range(0, len(data), PIECE):
            try:
                if not self._poll.poll(0):
                    raise BlockingIOError
                written = os.write(self._descriptor, data[start : start + PIECE])
            except OSError:  # full, or the reader is gone
                self._torn = self._torn or start > 0
                return False
            self._torn = True
            if written < len(data[start : start + PIECE]):
                return False
        self._torn = False
        return True


def setup(level: int = logging.INFO, descriptor: int = STDERR) -> NeverBlockingHandler:
    """Send this process's log to `descriptor`: for humans if it is a terminal, else as JSON lines. May be called again.

    `level` holds for bgproxy's own loggers; of the libraries only warnings are kept.
    """
    handler = NeverBlockingHandler(descriptor)
    handler.setFormatter(HumanFormatter() if os.isatty(descriptor) else JsonFormatter())
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, NeverBlockingHandler)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("bgproxy").setLevel(level)
    return handler


def own_pipe(descriptor: int) -> int | None:
    """A pipe opened once more, so that writing to it never blocks; None where that cannot be, or is no pipe.

    Of what others write to as well, a poll says only how it was a moment ago: another process may have filled it. To say of
    the descriptor itself that it should not block would say it to all who have it, and to the shell of a terminal.
    """
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # no /proc here, a pipe of another user, or one that nobody reads
        pass
    return None


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of a record, and its exception as two more: never a traceback over many lines."""
    fields = dict(getattr(record, "fields", None) or {})
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        frames = traceback.extract_tb(error.__traceback__)[-6:]
        fields["exception"] = f"{type(error).__name__}: {error}"
        fields["at"] = " < ".join(
            f"{os.path.basename(frame.filename)}:{frame.lineno} {frame.name}"  # noqa: PTH119 - a string, not a file
            for frame in reversed(frames)
        )
    return fields


def _plain(record: logging.LogRecord, message: str, level: int | None = None) -> logging.LogRecord:
    """A record of the same moment that cannot fail to be formatted."""
    plain = logging.LogRecord(record.name, level or record.levelno, "", 0, message, None, None)
    plain.created = record.created
    return plain


def _time(record: logging.LogRecord) -> str:
    """RFC 3339, UTC, milliseconds."""
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _word(value: object) -> str:
    """A value as it stands after `key=`: quoted where a reader could not see its end."""
    text = str(value)
    if text and text.isprintable() and not any(c in text for c in ' "='):
        return text
    return json.dumps(text, ensure_ascii=False)
