"""Commands: real ones, with all the ways in which a process can be awkward."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.waiting import eventually_async

from bgproxy.control.deployments import commands, groups
from bgproxy.control.deployments.commands import KEPT, run_command, variables

SAID = {"id": 7, "service": "shop", "target": "green", "upstreams": ["http://a:1", "http://b:2"]}
PATH = {"PATH": os.environ["PATH"]}


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """What is ended is not given long."""
    monkeypatch.setattr(groups, "GRACE", 0.3)
    monkeypatch.setattr(commands, "LAST_WORDS", 0.1)


async def run(command: str, *, seconds: float = 10.0, said=None, environment=None, line=lambda _: None):
    """Run it; whatever comes of it, no descriptor and no child of ours is left."""
    before = descriptors()
    try:
        return await run_command(command, said or SAID, environment or PATH, seconds, line)
    finally:
        assert descriptors() == before
        assert no_child()


def no_child() -> bool:
    """Whether all have ended and have been asked about."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


def descriptors() -> set[str]:
    """Those that are open."""
    return {path.name for path in Path("/proc/self/fd").iterdir() if path.exists() or path.is_symlink()}


def gone(pid: int) -> bool:
    """Whether it has ended; a zombie that nobody has asked about has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def written(file) -> list[int]:
    """The process ids in a file, once they are there."""
    await eventually_async(lambda: file.exists() and file.read_text().endswith("\n"))
    return [int(pid) for pid in file.read_text().split()]


# --- its end --------------------------------------------------------------------------------------------------------


async def test_a_command_that_ends_well():
    """With its output, of both kinds in the order in which it came."""
    assert await run("echo one; echo two >&2; exit 0") == (True, "status 0", ("one", "two"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("exit 3", "status 3"),
        ("there-is-no-such-program", "status 127"),
        ("/", "status 126"),
        ("if then", "status 2"),
        ("kill -9 $$", "ended by SIGKILL"),
        ("kill -TERM $$", "ended by SIGTERM"),
        ("kill -40 $$", "ended by signal 40"),
    ],
)
async def test_any_other_end_is_a_failure(text, found):
    """The status is told, or the signal."""
    ok, said, _ = await run(text)
    assert (ok, said) == (False, found)


async def test_what_it_leaves_running_is_not_waited_for(tmp_path):
    """A provisioning may start servers that outlive it, and hold its output open."""
    began = time.monotonic()
    ok, _, lines = await run(f"sleep 60 & echo $! > {tmp_path}/pid; echo started")
    assert (ok, lines) == (True, ("started",))
    assert time.monotonic() - began < 5
    (pid,) = await written(tmp_path / "pid")
    assert not gone(pid)
    os.kill(pid, signal.SIGKILL)


async def test_a_shell_that_is_not_there(monkeypatch):
    """An OSError, for whoever tells of it; nothing is left behind."""
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda _args, **how: real(["/nowhere/sh"], **how))
    with pytest.raises(FileNotFoundError):
        await run("true")


async def test_no_descriptor_is_left_to_watch_it_by(monkeypatch, tmp_path):
    """It is ended: a command that nobody would know the end of must not run on."""

    def fails(_pid):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", fails)
    with pytest.raises(OSError, match="Too many open files"):
        await run(f"sleep 0.2; touch {tmp_path}/ran")
    assert not (tmp_path / "ran").exists()


# --- what it is told ------------------------------------------------------------------------------------------------


async def test_it_gets_json_and_variables():
    """The JSON whole on its standard input, as a line."""
    _, _, lines = await run('cat; echo "$BGPROXY_SERVICE $BGPROXY_DEPLOYMENT $BGPROXY_TARGET $BGPROXY_UPSTREAMS"')
    assert json.loads(lines[0]) == SAID
    assert lines[1] == "shop 7 green http://a:1 http://b:2"


async def test_much_is_told():
    """More than a pipe holds: nobody waits for the other."""
    said = {"id": 1, "reason": "x" * 1_000_000}
    reader = f"{sys.executable} -c 'import json, sys; print(len(json.load(sys.stdin)[\"reason\"]))'"
    assert (await run(f"unset BGPROXY_REASON; {reader}", said={**said, "reason": "x" * 100_000}))[2] == ("100000",)
    with pytest.raises(OSError, match="Argument list too long"):
        await run(reader, said=said)


@pytest.mark.parametrize("text", ["exec <&-; echo deaf", "head -c 1 > /dev/null; echo deaf", "echo deaf"])
async def test_a_command_that_does_not_read_is_fine(text):
    """Nor is one that stops in the middle, however much there is to say."""
    ok, _, lines = await run(text, said={"upstreams": ["x" * 100_000]})
    assert (ok, lines) == (True, ("deaf",))


async def test_a_reason_is_anybodys_text():
    """What no environment can hold is left out of it; it breaks nothing."""
    reason = "a\0b \ud800 ☺\n\x1b[31m"
    ok, _, lines = await run('cat > /dev/null; printf "%s" "$BGPROXY_REASON"', said={"reason": reason})
    assert (ok, lines) == (True, ("ab ? ☺", "[31m"))


async def test_the_environment_is_the_one_that_is_given():
    """And no more: tokens were left out of it."""
    _, _, lines = await run("env", environment={**PATH, "KNOWN": "yes"})
    names = {line.partition("=")[0] for line in lines}
    assert "KNOWN" in names
    assert not {"HOME", "USER"} & names


def test_all_variables_are_there_whatever_is_said():
    """A script with `set -u` can name them all."""
    assert set(variables({})) == set(variables(SAID))
    assert variables({})["BGPROXY_PREVIEW_URL"] == ""


# --- what it says ---------------------------------------------------------------------------------------------------


async def test_much_output_is_cut_and_not_kept():
    """Megabytes without a line's end, too; and bytes that are no text are shown as such."""
    ok, _, lines = await run("head -c 5000000 /dev/zero | tr '\\0' x; printf '\\n\\033[31m\\377\\000end\\n'")
    assert ok
    assert len(lines) == 2
    assert lines[1].endswith("end")
    assert sum(map(len, lines)) <= KEPT
    assert all(line.isprintable() for line in lines)


async def test_its_lines_are_shown_as_they_come(tmp_path):
    """The last one of each time."""
    shown = []

    def line(text: str) -> None:
        shown.append(text)
        (tmp_path / "seen").touch()

    wait = f"until [ -e {tmp_path}/seen ]; do sleep 0.01; done"
    await run(f"echo building; {wait}; echo testing; printf 'no end'", line=line)
    assert shown == ["building", "testing"]


async def test_a_command_that_never_stops_talking_leaves_time_for_others(monkeypatch):
    """It is read in portions, with pauses between them: the loop, and one of two CPUs, stay free."""
    monkeypatch.setattr(commands, "FLOOD", 64 * 1024)
    began = time.process_time(), time.monotonic()
    ok, found, lines = await run("yes", seconds=0.5)
    cpu, real = time.process_time() - began[0], time.monotonic() - began[1]
    assert (ok, found) == (False, "it did not end within 500ms, and was ended")
    assert lines[-1] == "y"
    assert cpu < real / 2


# --- ending it ------------------------------------------------------------------------------------------------------


async def test_what_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    """Also what does not listen to SIGTERM, and a grandchild whose parent has gone."""
    pids = tmp_path / "pids"
    deaf = "trap '' TERM; sleep 60"
    command = f"(({deaf}) & echo $! >> {pids}); ({deaf}) & echo $! >> {pids}; echo $$ >> {pids}; {deaf}"
    ok, found, _ = await run(command, seconds=1.0)
    assert (ok, found) == (False, "it did not end within 1s, and was ended")
    assert len(await written(pids)) == 3
    for pid in await written(pids):
        await eventually_async(lambda pid=pid: gone(pid), what=f"{pid} is gone")


async def test_what_a_shell_started_may_put_things_in_order(monkeypatch, tmp_path):
    """The shell ends at once at SIGTERM; that what it waited for takes a little longer is no reason for SIGKILL."""
    monkeypatch.setattr(groups, "GRACE", 20.0)
    tidy = f"trap 'sleep 0.1; touch {tmp_path}/clean; exit' TERM; touch {tmp_path}/ready; while :; do sleep 0.02; done"
    task = asyncio.create_task(run(f"({tidy}); true"))
    await eventually_async((tmp_path / "ready").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (tmp_path / "clean").exists()


async def test_a_command_that_ends_well_at_the_last_moment_is_late_all_the_same():
    """Status 0 after SIGTERM is not success."""
    ok, found, lines = await run("trap 'echo stopped; exit 0' TERM; echo on; sleep 60 & wait", seconds=1.0)
    assert (ok, found) == (False, "it did not end within 1s, and was ended")
    assert lines == ("on", "stopped")


async def test_a_cancelled_call_leaves_no_process(tmp_path):
    """An abort, a time-out of the stage, the end of the controller."""
    task = asyncio.create_task(run(f"echo $$ > {tmp_path}/pid; sleep 60"))
    (pid,) = await written(tmp_path / "pid")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gone(pid)


async def test_who_is_cancelled_while_it_ends_does_not_wait(monkeypatch, tmp_path):
    """An abort, and then the end of the controller: what has not ended yet is killed at once, and with its group."""
    monkeypatch.setattr(groups, "GRACE", 60.0)
    pids = tmp_path / "pids"
    deaf = "trap '' TERM; while :; do sleep 60; done"
    task = asyncio.create_task(run(f"({deaf}) & echo $! $$ > {pids}; {deaf}"))
    both = await written(pids)
    task.cancel()
    await asyncio.sleep(0.1)  # it has been asked; that it goes on is what this is about
    assert not any(gone(pid) for pid in both)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(10.0):
            await task
    for pid in both:
        await eventually_async(lambda pid=pid: gone(pid))


# --- what it inherits -----------------------------------------------------------------------------------------------


async def test_it_has_no_descriptor_of_ours():
    """Listening sockets least of all, though they are such as are handed on to children."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        _, _, lines = await run("ls -l /proc/self/fd | grep -c ' -> '; ls -l /proc/self/fd | grep -c socket:")
    assert lines == ("4", "0")  # three, and the one that ls reads the directory by


async def test_its_signals_are_as_a_shell_expects_them():
    """Python ignores SIGPIPE; `yes | head` must end all the same. None is blocked, either."""
    _, _, lines = await run("grep -E 'SigIgn|SigBlk' /proc/self/status")
    blocked, ignored = (int(line.split()[1], 16) for line in lines)
    assert blocked == 0
    assert not ignored & (1 << signal.SIGPIPE - 1)


async def test_it_has_a_session_of_its_own():
    """No terminal's Ctrl-C reaches it, and it is ended with its group."""
    _, _, lines = await run("echo $$; cut -d' ' -f5,6 /proc/$$/stat")
    group, session = lines[1].split()
    assert lines[0] == group == session
    assert int(session) != os.getsid(0)
