"""Commands that a killed controller has left running, and what is not theirs."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.deployments import make_hands, make_run
from support.waiting import eventually, eventually_async

from bgproxy.control.deployments import groups
from bgproxy.control.deployments.guard import Guard, noted
from bgproxy.control.deployments.hooks import call

STUBBORN = "trap '' TERM; while :; do sleep 0.05; done"
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text()


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """What is ended is not given long."""
    monkeypatch.setattr(groups, "GRACE", 0.3)


@pytest.fixture
def guard(tmp_path) -> Guard:
    return Guard(str(tmp_path / "commands"))


@pytest.fixture
def left(guard) -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], Path]]]:
    """Starts a command as a controller does, and waits for its note; nobody else will end it."""
    started = []

    def start(command: str = STUBBORN, number: int = 7) -> tuple[subprocess.Popen[bytes], Path]:
        note = guard.note(number)
        assert note is not None
        process = subprocess.Popen(noted(command, note), start_new_session=True)
        started.append(process)
        eventually(lambda: note.exists() and note.read_text().count("\n") == 2)
        return process, note

    yield start
    for process in started:
        groups.send(process.pid, signal.SIGKILL)
        process.wait()


def stat_of(pid: int) -> str:
    """Its line in /proc."""
    return Path(f"/proc/{pid}/stat").read_text()


def sleeper() -> subprocess.Popen[bytes]:
    """A process of this one's group."""
    return subprocess.Popen(["sleep", "60"])


async def test_a_command_that_was_left_running_is_ended(guard, left):
    """Even one that does not heed SIGTERM, with what it has started; that is told, and forgotten then."""
    process, note = left("trap '' TERM; sh -c 'while :; do sleep 0.05; done' & while :; do sleep 0.05; done")
    ((ended, found),) = await guard.end_left(7)
    assert ended
    assert found == f"a command of a bgproxy that was killed ran on (pid {process.pid}), and was ended"
    assert process.wait() == -signal.SIGKILL
    assert not groups.lives(process.pid)
    assert not note.exists()
    assert await guard.end_left(7) == []


async def test_several_commands_and_those_of_other_deployments(guard, left):
    """Each has a note of its own; another deployment's number is another, however it begins."""
    one, _ = left("sleep 60")
    two, _ = left("sleep 60")
    other, note = left("sleep 60", number=71)
    assert [ended for ended, _ in await guard.end_left(7)] == [True, True]
    assert (one.wait(), two.wait()) == (-signal.SIGTERM, -signal.SIGTERM)
    assert other.poll() is None
    assert note.exists()


async def test_a_number_that_is_another_process_now_is_left_alone(guard, left):
    """Its start time differs: the number was given again."""
    process, note = left("sleep 60")
    boot, stat = note.read_text().splitlines()
    name, _, fields = stat.rpartition(") ")
    values = fields.split()
    values[19] = str(int(values[19]) - 1)
    note.write_text(f"{boot}\n{name}) {' '.join(values)}\n")
    assert await guard.end_left(7) == []
    assert process.poll() is None
    assert not note.exists()


async def test_a_note_from_before_the_machine_was_started_anew_means_nothing(guard, left):
    """Numbers and start times begin again then."""
    process, note = left("sleep 60")
    note.write_text("another" + note.read_text())
    assert await guard.end_left(7) == []
    assert process.poll() is None


async def test_a_process_that_leads_no_group_is_none_of_ours(guard, left):
    """Commands do; so whatever this is, a signal to its group would reach others."""
    _, note = left("sleep 60")
    with sleeper() as child:
        note.write_text(BOOT + stat_of(child.pid))
        assert await guard.end_left(7) == []
        assert child.poll() is None
        child.kill()


async def test_one_that_has_ended_is_not_told_of(guard, left, tmp_path):
    """Also one that nobody has asked about yet; what it has left running on purpose goes on."""
    process, note = left(f"sleep 60 & echo $! > {tmp_path}/pid")
    await eventually_async(lambda: stat_of(process.pid).split(") ")[1].startswith("Z"))
    pid = int((tmp_path / "pid").read_text())
    assert await guard.end_left(7) == []
    assert not note.exists()
    os.kill(pid, signal.SIGKILL)  # it is there


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "boot\n",
        f"{BOOT}0 (sh) S 0 0 0",
        f"{BOOT}1 (init) S 0 1 1",
        f"{BOOT}-1 (a) S",
        f"{BOOT}x",
        "\0\n\xff",
    ],
)
async def test_rubbish_ends_nobody(guard, text):
    """A note that is cut short, or damaged, is removed."""
    note = guard.note(7)
    note.write_text(text)
    assert await guard.end_left(7) == []
    assert not note.exists()


async def test_a_note_lasts_as_long_as_its_command(tmp_path, guard):
    """It is there while the command runs, names it, and goes with its end; the command knows nothing of it."""
    run = make_run(hands=make_hands(guard=guard, environment=lambda: {"PATH": os.environ["PATH"]}))
    text = f'echo "$$ $0 $# $(env | grep -c "BGPROXY_[BS].*T=")"; cut -d" " -f1 {tmp_path}/commands/7-*'
    result = await call(run, run_command=text, timeout=10, stage="verifying", name="it")
    assert result.ok
    told, (boot, pid) = result.details[0].split(), result.details[1:]
    assert told[1:] == ["/bin/sh", "0", "0"]
    assert (boot, pid) == (BOOT.strip(), told[0])
    assert list((tmp_path / "commands").iterdir()) == []


async def test_who_is_told_of_a_deployment_is_not_ended(tmp_path, guard):
    """Nobody is told a second time, so a notification may come to its end by itself."""
    run = make_run(hands=make_hands(guard=guard))
    result = await call(run, run_command=f"ls {tmp_path}", timeout=10, stage="", name="notify[0]", payload={"id": 7})
    assert (result.ok, result.details) == (True, ())


def test_a_command_that_cannot_be_noted_runs_all_the_same(tmp_path):
    """And says nothing of it: what it prints is its own."""
    process = subprocess.run(noted("echo fine", tmp_path / "nowhere" / "7-1"), capture_output=True, check=True)
    assert (process.stdout, process.stderr) == (b"fine\n", b"")
    assert noted("echo fine", None) == ["/bin/sh", "-c", "echo fine"]


async def test_without_a_directory_nothing_is_noted():
    """As where there is no controller: in tests of stages."""
    assert Guard().note(7) is None
    assert await Guard().end_left(7) == []


@pytest.mark.parametrize("kind", ["writable", "link", "file", "nowhere"])
def test_a_directory_that_others_write_is_not_used(tmp_path, kind, caplog):
    """Whoever can write a note there says what is ended, by us and with our rights."""
    directory = tmp_path / "commands"
    if kind == "writable":
        directory.mkdir()
        directory.chmod(0o777)
    elif kind == "link":
        (tmp_path / "other").mkdir()
        directory.symlink_to(tmp_path / "other")
    elif kind == "file":
        directory.touch()
    else:
        directory = tmp_path / "not" / "there"
    assert Guard(str(directory)).note(7) is None
    assert "noted in" in caplog.text
