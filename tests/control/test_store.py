"""The state directory: what every failure of the system leaves behind, and what is refused with which words."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shlex
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.waiting import eventually_async

import bgproxy
from bgproxy.control import store as store_module
from bgproxy.control.state import PoolRecord, ServiceRecord, State
from bgproxy.control.statefile import decode, encode
from bgproxy.control.store import Store
from bgproxy.errors import StateError

POOL = PoolRecord("d", "1.0", ("http://127.0.0.1:9001",))


def state(generation: int) -> State:
    """Blue and green take turns."""
    return State(
        generation=generation, services={"shop": ServiceRecord(0, generation % 2, None, generation, None, (POOL, POOL))}
    )


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "state"


@pytest.fixture
async def written(directory):
    """A directory whose file says 2 and whose last good copy says 1; nobody has it open."""
    await fill(directory)
    return directory


async def fill(directory) -> None:
    store = Store(str(directory))
    store.open()
    await store.write(state(1))
    await store.write(state(2))
    store.close()


def reopened(directory) -> State | None:
    store = Store(str(directory))
    try:
        return store.open()
    finally:
        store.close()


def refusal(directory) -> str:
    with pytest.raises(StateError) as caught:
        reopened(directory)
    return str(caught.value)


def run_the_command(text: str) -> None:
    """Do what the text tells the operator to do to go on with the last good copy."""
    do(text.partition("To go on with that: ")[2].partition(". To begin anew")[0])


def do(command: str) -> None:
    subprocess.run(command, shell=True, check=True, timeout=30)


# --- as it should be ------------------------------------------------------------------------------------------------


async def test_what_was_written_is_read_by_the_next_life(directory):
    """An empty directory has no state; afterwards the last one is there, and the one before beside it."""
    assert reopened(directory) is None
    await fill(directory)
    assert reopened(directory) == state(2)
    assert (directory / "state.json.last").read_bytes() == encode(state(1))
    assert sorted(path.name for path in directory.iterdir()) == ["lock", "state.json", "state.json.last"]


async def test_only_the_owner_can_read_or_write(written):
    """Whatever the umask was."""
    Store(str(written)).session_key()
    assert stat.S_IMODE(written.stat().st_mode) == 0o700
    for path in written.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


async def test_a_second_bgproxy_is_refused_while_the_first_one_runs(directory):
    """The kernel gives the lock back when a process ends, so nothing stale can be left."""
    first = Store(str(directory))
    first.open()
    with pytest.raises(
        StateError, match=rf"Another bgproxy \(its controller is pid {os.getpid()}\) uses state_dir .*: stop"
    ):
        Store(str(directory)).open()
    first.close()
    first.close()
    assert reopened(directory) is None


async def test_a_store_that_could_not_open_leaves_the_lock_to_others(written):
    """An operator who repairs the file and starts again must not meet a lock."""
    (written / "state.json").write_bytes(b"")
    refusal(written)
    run_the_command(refusal(written))
    assert reopened(written) == state(1)


async def test_leftovers_of_a_crash_are_removed(written):
    """Temporary files are never read, and do not stay."""
    for name in ("state.json.new", "state.json.last.old", "session.key.new"):
        (written / name).write_bytes(b"half")
    assert reopened(written) == state(2)
    assert sorted(path.name for path in written.iterdir()) == ["lock", "state.json", "state.json.last"]


def test_the_session_key_is_made_once(directory):
    """32 bytes, the same in every life; sessions outlive restarts by it."""
    store = Store(str(directory))
    store.open()
    key = store.session_key()
    assert len(key) == 32
    assert store.session_key() == key
    store.close()


# --- refusals to start ----------------------------------------------------------------------------------------------


async def test_truncated_at_any_byte_it_is_refused_and_never_half_read(written):
    """The text names the file, what the last good copy says, and a command that works."""
    path = written / "state.json"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        text = refusal(written)
        assert text.startswith(f"{path} "), text
        assert "is from one change earlier and says: generation 1; shop: green is live" in text
    run_the_command(text)
    assert reopened(written) == state(1)
    assert (written / "state.json.broken").exists()


async def test_without_a_good_copy_the_way_is_to_begin_anew(written):
    """And the command for that works, and destroys nothing."""
    for name in ("state.json", "state.json.last"):
        (written / name).write_bytes(b"rubbish")
    text = refusal(written)
    assert "Its last good copy is of no use either" in text
    do(text.partition("at run time: ")[2])
    assert reopened(written) is None
    assert (written / "state.json.broken").read_bytes() == b"rubbish"
    assert (written / "state.json.last.broken").read_bytes() == b"rubbish"


async def test_a_missing_file_beside_its_copy_is_refused(written):
    """Somebody removed it: to forget who is live must be said, not guessed."""
    (written / "state.json").unlink()
    text = refusal(written)
    assert "is missing, although its last good copy is there" in text
    run_the_command(text)
    assert reopened(written) == state(1)


async def test_a_symbolic_link_is_not_followed(written, tmp_path):
    """Neither read through nor written through; the printed command replaces the link, not what it points at."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes((written / "state.json").read_bytes())
    (written / "state.json").unlink()
    (written / "state.json").symlink_to(elsewhere)
    text = refusal(written)
    assert "is a symbolic link, which is not followed" in text
    run_the_command(text)
    assert reopened(written) == state(1)
    assert elsewhere.read_bytes() == encode(state(2))


async def test_a_link_put_in_the_way_of_a_write_is_not_written_through(written, tmp_path):
    """Also where it has the name of the temporary file."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    store = Store(str(written))
    store.open()
    for name in ("state.json.new", "state.json.last.old"):
        (written / name).symlink_to(victim)
    await store.write(state(3))
    store.close()
    assert victim.read_text() == "mine"
    assert reopened(written) == state(3)


@pytest.mark.parametrize("mode", [0o000, 0o620, 0o602, 0o666])
async def test_a_file_with_another_mode_is_refused(written, mode):
    """Others may have written it, or somebody took it away from us on purpose."""
    (written / "state.json").chmod(mode)
    assert any(words in refusal(written) for words in ("has mode", "may not be read"))


async def test_what_is_not_a_file_is_refused(written):
    """A FIFO would wait for ever; a directory cannot be read."""
    (written / "state.json").unlink()
    os.mkfifo(written / "state.json", 0o600)
    assert "is not a regular file" in refusal(written)
    (written / "state.json").unlink()
    (written / "state.json").mkdir()
    assert "is not a regular file" in refusal(written)


def test_a_directory_that_cannot_be_used_is_refused_with_the_way_on(directory, tmp_path):
    """A file in its place, a parent that is a file, one that everybody may write to."""
    (tmp_path / "file").write_text("")
    assert "is not a directory" in refusal(tmp_path / "file")
    assert "set state_dir to another directory" in refusal(tmp_path / "file" / "below")
    directory.mkdir()
    directory.chmod(0o777)
    text = refusal(directory)
    assert text.endswith(f"chmod o-w -- {shlex.quote(str(directory))}")
    do(text.rpartition(": ")[2])
    assert reopened(directory) is None


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_session_key_of_another_length_is_refused(directory, content):
    """With the command that makes a new one; a short key is a weak one."""
    store = Store(str(directory))
    store.open()
    (directory / "session.key").write_bytes(content)
    (directory / "session.key").chmod(0o600)
    with pytest.raises(StateError, match="instead of 32") as caught:
        store.session_key()
    do(str(caught.value).rpartition(": ")[2])
    assert len(store.session_key()) == 32
    store.close()


def test_a_session_key_that_others_may_read_is_refused(directory):
    """It signs cookies."""
    store = Store(str(directory))
    store.open()
    store.session_key()
    (directory / "session.key").chmod(0o640)
    with pytest.raises(StateError, match="has mode 0640"):
        store.session_key()
    store.close()


# --- failures while writing -----------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here: nothing after it runs, whatever `except OSError` says."""


class FailingOs:
    """`os` whose n-th call that can reach the disk fails: once, from then on, or by the death of the process."""

    CALLS = ("open", "write", "fsync", "close", "link", "replace", "unlink", "stat", "fstat", "read")

    def __init__(self, number: int, how: str) -> None:
        self.calls = 0
        self.failed = ""
        self._number = number
        self._how = how

    def __getattr__(self, name: str):
        real = getattr(os, name)
        return (lambda *args, **kwargs: self._call(name, real, args, kwargs)) if name in self.CALLS else real

    def _call(self, name, real, args, kwargs):
        self.calls += 1
        due = self.calls == self._number or (self.calls > self._number and self._how != "once")
        if not due:
            return real(*args, **kwargs)
        self.failed = self.failed or name
        if name == "close":
            real(*args)  # the descriptor goes in any case; the test must not lose it
        if self._how == "killed":
            raise Killed
        raise OSError(5, "Input/output error")


def calls_of_a_write(directory, monkeypatch) -> int:
    store = Store(str(directory))
    store.open()
    with monkeypatch.context() as patch:
        counting = FailingOs(10**9, "once")
        patch.setattr(store_module, "os", counting)
        store._replace(encode(state(2)))
    store.close()
    return counting.calls


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("how", ["once", "from then on", "killed"])
async def test_whatever_call_fails_the_old_state_or_the_new_one_is_there(tmp_path, monkeypatch, how, first):
    """Never a mix; never neither. The new one where the write succeeded; the old one where it said that it did not."""
    store = Store(str(tmp_path / "count"))
    store.open()
    await store.write(state(1))
    store.close()
    total = calls_of_a_write(tmp_path / "count", monkeypatch)
    assert total > 10
    outcomes = set()
    for number in range(1, total + 1):
        directory = tmp_path / str(number)
        store = Store(str(directory))
        store.open()
        if not first:
            await store.write(state(1))
            await store.write(state(2))
        old = None if first else state(2)
        succeeded = False
        with monkeypatch.context() as patch:
            failing = FailingOs(number, how)
            patch.setattr(store_module, "os", failing)
            try:
                store._replace(encode(state(3)))
                succeeded = True
            except (Killed, StateError) as error:
                outcomes.add(type(error))
        store.close()
        found = reopened(directory)
        assert found in (old, state(3)), (number, failing.failed)
        if succeeded:
            assert found == state(3), (number, failing.failed)
        elif how == "once":
            assert found == old, (number, failing.failed)
        if how != "killed":
            store = Store(str(directory))
            store.open()
            await store.write(state(4))
            store.close()
            assert reopened(directory) == state(4)
    assert outcomes == {Killed if how == "killed" else StateError}


async def test_a_full_disk_is_told_as_such_and_leaves_no_litter(written, monkeypatch):
    """What, where, and what to do; and the temporary file does not eat up what little is left."""
    store = Store(str(written))
    store.open()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "os", SimpleNamespace(**{**vars(os), "write": full}))
        with pytest.raises(
            StateError, match=r"state\.json cannot be written: No space .* free some space .*Nothing was changed"
        ):
            await store.write(state(3))
    assert sorted(path.name for path in written.iterdir()) == ["lock", "state.json", "state.json.last"]
    await store.write(state(3))
    store.close()
    assert reopened(written) == state(3)


async def test_a_write_in_small_pieces_is_whole(written, monkeypatch):
    """The system may take less than it was given."""
    store = Store(str(written))
    store.open()
    with monkeypatch.context() as patch:
        pieces = {**vars(os), "write": lambda descriptor, data: os.write(descriptor, data[:7])}
        patch.setattr(store_module, "os", SimpleNamespace(**pieces))
        await store.write(state(3))
    store.close()
    assert reopened(written) == state(3)


async def test_nobody_waits_until_the_file_system_has_freed_what_was_replaced(written, monkeypatch):
    """It loses its name while a descriptor keeps it, which is closed when the write has been answered for."""
    store = Store(str(written))
    store.open()
    last = str(written / "state.json.last")
    held = []

    def replace(source: str, target: str, **where: int) -> None:
        if target == "state.json.last":
            held.append(last in open_files())
        os.replace(source, target, **where)  # noqa: PTH105 - as the store calls it

    monkeypatch.setattr(store_module, "os", SimpleNamespace(**{**vars(os), "replace": replace}))
    await store.write(state(3))
    assert held == [True]
    await eventually_async(lambda: not any(path.startswith(last) for path in open_files()))
    store.close()


def open_files() -> list[str]:
    """What the descriptors of this process stand for (proc(5))."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found.append(str(path.readlink()))
    return found


class Stuck:
    """An fsync that hangs until it is let go."""

    def __init__(self, monkeypatch) -> None:
        self.reached = threading.Event()
        self.gate = threading.Event()
        monkeypatch.setattr(store_module, "os", SimpleNamespace(**{**vars(os), "fsync": self}))

    def __call__(self, descriptor: int) -> None:
        self.reached.set()
        assert self.gate.wait(10)


async def test_a_disk_that_hangs_is_a_failure_and_its_late_success_is_undone(written, monkeypatch):
    """The loop goes on, others are refused meanwhile, and what was answered stays what is on the disk."""
    store = Store(str(written), write_within=0.05)
    store.open()
    stuck = Stuck(monkeypatch)
    with pytest.raises(StateError, match=r"was not written within 0\.05s: its disk does not answer"):
        await store.write(state(3))
    with pytest.raises(StateError, match="is still being written"):
        await store.write(state(3))
    stuck.gate.set()
    await eventually_async(lambda: store._writing.done() and (written / "state.json").read_bytes() == encode(state(2)))
    assert (written / "state.json.last").read_bytes() == encode(state(2))  # never what was not in force
    await store.write(state(5))
    store.close()
    assert reopened(written) == state(5)


async def test_a_write_that_nobody_waits_for_any_more_is_undone(written, monkeypatch):
    """Whoever asked was cancelled: nothing will come into force, so nothing may stay on the disk."""
    store = Store(str(written))
    store.open()
    stuck = Stuck(monkeypatch)
    task = asyncio.create_task(store.write(state(3)))
    await eventually_async(stuck.reached.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stuck.gate.set()
    await eventually_async(lambda: store._writing.done() and (written / "state.json").read_bytes() == encode(state(2)))
    store.close()
    assert reopened(written) == state(2)


async def test_a_cancellation_in_the_instant_of_success_is_undone_too(written):
    """The thread has ended and its caller has not run yet: the narrowest of the gaps."""
    store = Store(str(written))
    store.open()
    task = asyncio.create_task(store.write(state(3)))
    await asyncio.sleep(0)  # it waits for its thread now, which can tell of its end in a later turn only
    store._writing.add_done_callback(lambda _: task.cancel())
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually_async(lambda: store._writing.done() and (written / "state.json").read_bytes() == encode(state(2)))
    store.close()


async def test_of_writes_at_the_same_time_one_is_written_whole(written):
    """The others are refused: what the file has is what somebody was told that it has."""
    store = Store(str(written))
    store.open()
    results = await asyncio.gather(*(store.write(state(number)) for number in range(3, 9)), return_exceptions=True)
    done = [number for number, result in enumerate(results, 3) if result is None]
    assert len(done) == 1
    assert all(isinstance(result, StateError) for result in results if result is not None)
    store.close()
    assert reopened(written) == state(done[0])


async def test_a_system_without_room_for_a_thread_is_a_write_that_failed(written, monkeypatch):
    """A StateError as for a full disk, and the next write goes through."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    store = Store(str(written))
    store.open()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(StateError, match=r"no thread could be started.*Nothing was changed"):
            await store.write(state(3))
    await store.write(state(4))
    store.close()
    assert reopened(written) == state(4)


#: For each line that it reads, a child that writes one state after the other and says the number of each once written.
WRITER = """
import asyncio, os, sys
from bgproxy.control.state import State
from bgproxy.control.store import Store

async def write():
    store = Store(sys.argv[1])
    number = (store.open() or State()).generation
    while True:
        number += 1
        await store.write(State(generation=number, history=({"id": number, "type": "x", "data": "y" * 20000},)))
        os.write(1, b"%d\\n" % number)

while sys.stdin.readline():
    child = os.fork()
    if not child:
        os.write(1, b"%d\\n" % os.getpid())
        asyncio.run(write())
    os.waitpid(child, 0)
    os.write(1, b"dead\\n")
"""


def test_kill_9_of_a_writer_leaves_what_it_said_or_what_it_was_at(directory):
    """At any moment of a write: the last state that was answered for, or the one after it; and the lock is free."""
    chance = random.Random(24)  # the same moments every time, as far as the machine lets them
    said = 0
    environment = {**os.environ, "PYTHONPATH": str(Path(bgproxy.__file__).parents[1])}
    command = [sys.executable, "-c", WRITER, str(directory)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, bufsize=1
    ) as writer:
        for _ in range(30):
            writer.stdin.write("go\n")
            child = int(writer.stdout.readline())
            for _ in range(chance.randrange(1, 6)):
                said = int(writer.stdout.readline())
            time.sleep(chance.random() * 0.004)  # somewhere in a write, not at its end
            os.kill(child, signal.SIGKILL)
            while (line := writer.stdout.readline()) != "dead\n":
                said = int(line)
            found = reopened(directory)
            assert found.generation in (said, said + 1)
            assert found.history[0]["id"] == found.generation
            last = decode((directory / "state.json.last").read_bytes())
            assert last.generation in (found.generation - 1, found.generation)
        writer.stdin.close()
