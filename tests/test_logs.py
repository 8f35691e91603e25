"""The log: its two forms, and that it never waits."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pty
from types import SimpleNamespace

import pytest

from bgproxy import logs


@pytest.fixture
def clean_logging():
    """Put the process's logging back afterwards."""
    root, own = logging.getLogger(), logging.getLogger("bgproxy")
    before = (list(root.handlers), root.level, own.level)
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])


@pytest.fixture
def pipe():
    """A pipe; the write end blocks, as a real stderr does."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def record(message: str, *args: object, fields: dict | None = None, level: int = logging.INFO) -> logging.LogRecord:
    made = logging.LogRecord("bgproxy.supervisor", level, __file__, 1, message, args, None)
    if fields is not None:
        made.fields = fields
    return made


def test_json_lines(clean_logging, pipe):
    """On a pipe a line is one JSON object with time, level, logger, pid, message and the fields."""
    logs.setup(descriptor=pipe[1])
    logging.getLogger("bgproxy.controller").info("switched %s", "shop", extra={"fields": {"service": "shop", "n": 3}})
    line = json.loads(os.read(pipe[0], 65536))
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "bgproxy.controller",
        "pid": os.getpid(),
        "message": "switched shop",
        "service": "shop",
        "n": 3,
    }


def test_fields_cannot_hide_the_message(clean_logging, pipe):
    """A field that is named as a key of every line does not replace it."""
    handler = logs.NeverBlockingHandler(pipe[1])
    handler.setFormatter(logs.JsonFormatter())
    handler.emit(record("real", fields={"message": "false", "level": "critical"}))
    line = json.loads(os.read(pipe[0], 65536))
    assert (line["message"], line["level"]) == ("real", "info")


def test_human_lines_on_a_terminal(clean_logging):
    """On a terminal a line is time, level, the short logger name, message and key=value, quoted where needed."""
    main, terminal = pty.openpty()
    try:
        logs.setup(descriptor=terminal)
        logging.getLogger("bgproxy.health").warning("down", extra={"fields": {"upstream": "a:1", "why": "no answer"}})
        line = os.read(main, 65536).decode().rstrip()
    finally:
        os.close(main)
        os.close(terminal)
    assert line[13:] == 'WARNING health: down  upstream=a:1 why="no answer"'


def test_a_human_line_stays_one_line():
    """Line ends and escape sequences in a message are shown, not obeyed."""
    line = logs.HumanFormatter().format(record("a\nb\x1b[2J", fields={"x": "c\nd"}))
    assert line.endswith(r'a\nb\x1b[2J  x="c\nd"')


def test_an_exception_is_two_fields(clean_logging, pipe):
    """An exception is named with its place, on the same line and without a traceback."""
    logs.setup(descriptor=pipe[1])
    try:
        raise ValueError("broken")  # noqa: TRY301 - the point of the test
    except ValueError:
        logging.getLogger("bgproxy.worker").exception("failed")
    text = os.read(pipe[0], 65536).decode()
    line = json.loads(text)
    assert line["exception"] == "ValueError: broken"
    assert line["at"].startswith("test_logs.py:")
    assert "Traceback" not in text
    assert text.count("\n") == 1


def test_a_full_pipe_never_blocks_and_is_counted(pipe):
    """Lines beyond what the pipe holds are dropped and counted, and the next one that fits says how many."""
    reader, writer = pipe
    handler = logs.NeverBlockingHandler(writer)
    handler.setFormatter(logs.JsonFormatter())
    for number in range(2000):  # 200 KB into a pipe of 64 KiB
        handler.emit(record("x" * 100, fields={"number": number}))
    assert handler.dropped > 0
    dropped = handler.dropped
    arrived = _drain(reader)
    handler.emit(record("after"))
    notice, after = _drain(reader).decode().splitlines()[-2:]
    assert json.loads(notice)["level"] == "warning"
    assert f": {dropped} since" in json.loads(notice)["message"]
    assert json.loads(after)["message"] == "after"
    assert len(arrived.splitlines()) == 2000 - dropped
    assert handler.dropped == dropped


def test_a_torn_line_does_not_spoil_the_next(pipe):
    """When only the first pieces of a long line fitted, the line after it begins on a line of its own."""
    reader, writer = pipe
    handler = logs.NeverBlockingHandler(writer)
    handler.setFormatter(logs.JsonFormatter())
    handler.emit(record("x" * 1_000_000))
    assert handler.dropped == 1
    _drain(reader)
    handler.emit(record("after"))
    lines = _drain(reader).decode().splitlines()
    assert json.loads(lines[-1])["message"] == "after"


def test_a_reader_that_is_gone_is_a_drop():
    """A closed pipe costs the line, not the process."""
    reader, writer = os.pipe()
    os.close(reader)
    handler = logs.NeverBlockingHandler(writer)
    handler.setFormatter(logs.JsonFormatter())
    handler.emit(record("x"))
    os.close(writer)
    assert handler.dropped == 1


def test_arguments_that_do_not_fit(pipe):
    """A message whose arguments do not fit is logged as it stands; nothing is raised or printed."""
    handler = logs.NeverBlockingHandler(pipe[1])
    handler.setFormatter(logs.JsonFormatter())
    handler.emit(record("%d requests", "many"))
    assert json.loads(os.read(pipe[0], 65536))["message"] == "%d requests (unprintable arguments)"


def test_setup_again_replaces(clean_logging, pipe):
    """A second setup does not double the lines; levels hold for bgproxy's loggers only."""
    logs.setup(descriptor=pipe[1])
    logs.setup(logging.WARNING, descriptor=pipe[1])
    logging.getLogger("bgproxy.worker").info("not kept")
    logging.getLogger("aiohttp.access").info("not kept either")
    logging.getLogger("bgproxy.worker").warning("kept")
    assert os.read(pipe[0], 65536).count(b"\n") == 1


def _drain(reader: int) -> bytes:
    os.set_blocking(reader, False)
    data = b""
    try:
        while piece := os.read(reader, 65536):
            data += piece
    except BlockingIOError:
        pass
    return data


@pytest.mark.timeout(10)
def test_a_pipe_that_another_process_has_just_filled_is_not_waited_for(pipe):
    """Between the look whether there is room and the writing, somebody else may have written."""
    handler = logs.NeverBlockingHandler(pipe[1])
    handler._poll = SimpleNamespace(poll=lambda _: [pipe[1]])  # "there is room": how it was a moment ago
    os.set_blocking(pipe[1], False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe[1], bytes(4096))
    os.set_blocking(pipe[1], True)
    handler.emit(record("lost"))
    assert handler.dropped == 1
    assert os.get_blocking(pipe[1])


def test_after_its_end_a_handler_writes_to_what_it_was_given(pipe):
    """Its own descriptor is closed then, and the number may be another file's; what is logged at an exit still gets out."""
    handler = logs.NeverBlockingHandler(pipe[1])
    handler.close()
    handler.close()
    handler.emit(record("late"))
    assert b"late" in os.read(pipe[0], 65536)
