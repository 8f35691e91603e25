"""The access log: whole lines, never a wait."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from bgproxy.proxy import accesslog
from bgproxy.proxy.accesslog import AccessLog

pytestmark = pytest.mark.timeout(20)  # a log that waits for its reader would wait for ever


class Pipe:
    """A pipe of one page, with the log at its writing end."""

    def __init__(self) -> None:
        self.read_end, write_end = os.pipe()
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
        self.log = AccessLog(f"/proc/self/fd/{write_end}")
        os.close(write_end)

    def read(self) -> bytes:
        """What is there now."""
        out = b""
        while select.select([self.read_end], [], [], 0)[0]:
            piece = os.read(self.read_end, 65536)
            if not piece:
                break
            out += piece
        return out

    def read_all(self) -> bytes:
        """What is there and what waits."""
        out = self.read()
        while self.log._waiting or self.log._left:
            self.log.flush()
            piece = self.read()
            assert piece
            out += piece
        return out


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.log.close()
    if pipe.read_end >= 0:
        os.close(pipe.read_end)


def exchange(target=b"/", **changes):
    client = SimpleNamespace(peer="127.0.0.1", request_id=lambda: b"id-1", closed_because="")
    values = {
        "client": client,
        "upstream": SimpleNamespace(id="127.0.0.1:9001"),
        "service": SimpleNamespace(name="shop"),
        "pool": SimpleNamespace(name="blue"),
        "method": b"GET",
        "target": target,
        "fields": SimpleNamespace(host=b"shop.test"),
        "status": 200,
        "bytes_in": 10,
        "bytes_out": 20,
    }
    return SimpleNamespace(**(values | changes))


def targets(data):
    """The targets of the lines of some output, every one of which must be whole."""
    assert data.endswith(b"\n")
    return [json.loads(line)["target"] for line in data.splitlines()]


def test_a_line_says_what_happened(pipe):
    """One object of JSON a request, written at the flush and not before."""
    pipe.log.write(exchange(b"/a?b"), 0.0125)
    assert pipe.read() == b""
    pipe.log.flush()
    entry = json.loads(pipe.read())
    assert entry.pop("time").endswith("+00:00")
    assert entry == {
        "service": "shop",
        "pool": "blue",
        "upstream": "127.0.0.1:9001",
        "client": "127.0.0.1",
        "method": "GET",
        "target": "/a?b",
        "host": "shop.test",
        "status": 200,
        "duration_ms": 12.5,
        "bytes_in": 10,
        "bytes_out": 20,
        "request_id": "id-1",
        "closed": None,
    }


def test_a_request_that_was_nobodys_has_a_line_too(pipe):
    """Refused before a service was chosen: the status and the reason."""
    pipe.log.write_refused(SimpleNamespace(peer=""), 400, "a bare LF", b"id-2")
    pipe.log.flush()
    entry = json.loads(pipe.read())
    assert (entry["status"], entry["detail"], entry["service"], entry["request_id"]) == (400, "a bare LF", None, "id-2")


def test_what_a_client_sends_cannot_break_a_line(pipe):
    """No end of line, no terminal control, no quote gets through as itself."""
    pipe.log.write(
        exchange(b'/"}\r\n{"status":200}\x1b[2J\xe9', method=b"X\nY", fields=SimpleNamespace(host=b"\n")), 0.0
    )
    pipe.log.flush()
    (line,) = pipe.read().splitlines()
    assert all(0x20 <= byte < 0x7F for byte in line)
    assert json.loads(line)["target"] == '/"}\\x0d\\x0a{"status":200}\\x1b[2J\\xe9'


def test_a_full_pipe_is_not_waited_for(pipe):
    """A reader that does not read costs nothing; when it reads again every line comes, whole and in order."""
    for number in range(500):
        pipe.log.write(exchange(b"/%d" % number), 0.0)
    pipe.log.flush()
    pipe.log.flush()
    assert pipe.log._left
    assert targets(pipe.read_all()) == [f"/{number}" for number in range(500)]
    assert pipe.log.dropped == 0


@pytest.mark.parametrize("target", [b"/" + b"a" * 8000, b"/" + b'"' * 8000])
def test_a_long_line_is_not_waited_for_either(pipe, target):
    """Longer than a pipe takes at once: it is cut to what fits, so that lines of several workers cannot mix within it."""
    for _ in range(5):
        pipe.log.write(exchange(target), 0.0)
        pipe.log.flush()
    assert pipe.log._left
    lines = pipe.read_all().splitlines(keepends=True)
    assert len(lines) == 5
    for line in lines:
        assert len(line) <= 4096
        assert json.loads(line)["target"].startswith(target[:1000].decode())
        assert json.loads(line)["target"].endswith("…")


def test_a_long_target_that_fits_is_kept_whole(pipe):
    """Only what does not fit is cut."""
    target = b"/" + b"a" * 3500
    pipe.log.write(exchange(target), 0.0)
    pipe.log.flush()
    assert targets(pipe.read()) == [target.decode()]


def test_a_line_that_cannot_be_cut_still_does_not_block(pipe):
    """Whatever else made it long, it goes in pieces that the pipe takes."""
    for _ in range(3):
        pipe.log.write(exchange(service=SimpleNamespace(name="s" * 9000)), 0.0)
        pipe.log.flush()
    assert pipe.log._left
    assert len(targets(pipe.read_all())) == 3


def test_what_a_stuck_reader_does_not_take_is_dropped_and_counted(pipe, monkeypatch):
    """Bounded memory: as many lines are written as are not dropped."""
    monkeypatch.setattr(accesslog, "_MOST_WAITING", 20_000)
    for number in range(300):
        pipe.log.write(exchange(b"/%d" % number), 0.0)
        pipe.log.flush()
        assert pipe.log._waiting <= 20_000
    assert pipe.log.dropped > 0
    written = targets(pipe.read_all())
    assert written == [f"/{number}" for number in range(len(written))]
    assert len(written) + pipe.log.dropped == 300
    assert pipe.log._waiting == 0
    pipe.log.write(exchange(b"/again"), 0.0)
    pipe.log.flush()
    assert targets(pipe.read()) == ["/again"]


def test_a_reader_that_has_gone_is_no_error(pipe, monkeypatch):
    """EPIPE of standard output: what waits is dropped and counted, and the worker goes on."""
    monkeypatch.setattr(accesslog, "STDOUT", pipe.log._fd)
    old = pipe.log
    pipe.log = AccessLog("stdout")
    old.close()
    os.close(pipe.read_end)
    pipe.read_end = -1
    for _ in range(3):
        pipe.log.write(exchange(), 0.0)
    pipe.log.flush()
    assert pipe.log.dropped == 3
    assert pipe.log._waiting == 0


@pytest.mark.parametrize("standard", [False, True])
def test_a_pipe_that_another_process_has_just_filled_is_not_waited_for(pipe, monkeypatch, standard):
    """Between the look whether there is room and the writing: nothing is lost, and those who share the pipe still wait for it."""
    theirs = os.open(f"/proc/self/fd/{pipe.log._fd}", os.O_WRONLY)
    monkeypatch.setattr(accesslog, "STDOUT", theirs)
    log = AccessLog("stdout") if standard else pipe.log
    log._poll = SimpleNamespace(poll=lambda _: [(log._fd, select.POLLOUT)])  # how it was a moment ago
    os.set_blocking(theirs, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(theirs, bytes(4096))
    os.set_blocking(theirs, True)
    log.write(exchange(b"/later"), 0.0)
    log.flush()
    assert (log._waiting > 0, log.dropped, os.get_blocking(theirs)) == (True, 0, True)
    pipe.read()
    log.flush()
    assert targets(pipe.read()) == ["/later"]
    os.close(theirs)
    if standard:
        os.close(log._fd)


def test_a_fifo_need_not_have_its_reader_yet(tmp_path):
    """Nor keep it: whoever reads next gets what has waited."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    log = AccessLog(str(path))
    for target in (b"/1", b"/2"):
        log.write(exchange(target), 0.0)
        log.flush()
        log.reopen() if target == b"/1" else None
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        assert targets(os.read(reader, 65536)) == [target.decode()]
        os.close(reader)
    assert log.dropped == 0
    log.close()


def test_a_fifo_that_must_not_be_read_needs_its_reader(tmp_path, monkeypatch):
    """Without one it cannot be opened, and that is said at once."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    real = os.open

    def write_only(path, flags, *more):
        if flags & os.O_RDWR:
            raise PermissionError
        return real(path, flags, *more)

    monkeypatch.setattr(accesslog.os, "open", write_only)
    with pytest.raises(OSError, match="No such device"):
        AccessLog(str(path))


def test_several_workers_append_to_one_file_by_whole_lines(tmp_path):
    """Two logs of one file, flushed in turns: every line is whole, none is lost."""
    path = tmp_path / "access.log"
    logs = [AccessLog(str(path)), AccessLog(str(path))]
    for number in range(400):
        log = logs[number % 2]
        log.write(exchange(b"/%d" % number), 0.0)
        if number % 7 == 0:
            log.flush()
    for log in logs:
        log.close()
    assert sorted(targets(path.read_bytes())) == sorted(f"/{number}" for number in range(400))


def test_a_rotated_file_is_opened_anew(tmp_path):
    """After `reopen` lines go to the file of that name; what was written before stays in the other."""
    path = tmp_path / "access.log"
    log = AccessLog(str(path))
    log.write(exchange(b"/1"), 0.0)
    log.flush()
    path.rename(tmp_path / "access.log.1")
    log.write(exchange(b"/2"), 0.0)
    log.reopen()
    log.flush()
    log.close()
    assert targets((tmp_path / "access.log.1").read_bytes()) == ["/1"]
    assert targets(path.read_bytes()) == ["/2"]


def test_standard_output_is_not_closed_with_the_log(capfd):
    """It is the process's own."""
    log = AccessLog("stdout")
    log.write(exchange(b"/out"), 0.0)
    log.reopen()
    log.close()
    os.write(1, b"still\n")
    lines = capfd.readouterr().out.splitlines()
    assert json.loads(lines[0])["target"] == "/out"
    assert lines[1] == "still"
