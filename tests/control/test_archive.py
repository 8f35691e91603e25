"""The deployments that have ended: kept in a file of their own, whatever becomes of it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.waiting import eventually_async

from bgproxy.control import archive as module
from bgproxy.control.archive import Archive
from bgproxy.model.deployment import DeploymentRecord, DeploymentState, Result, Step

WHY = "green: 5% of 60 requests failed (3 with 5xx); the limit is 1%"


def record(number: int, service: str = "shop", **changes: Any) -> DeploymentRecord:
    """One that was rolled back."""
    steps = (
        Step(state="queued", at=1000.0 + number, by="alice", why="a release"),
        Step(state="baking", at=1010.0 + number, by="deployment 1", why=""),
        Step(state="rolled_back", at=1060.0 + number, by="bgproxy", why=WHY),
    )
    return replace(
        DeploymentRecord(
            id=number,
            service=service,
            target="green",
            version="2.0",
            upstreams=("http://127.0.0.1:9002",),
            strategy="all-at-once",
            reason="a release",
            actor={"name": "alice", "address": "127.0.0.1:5"},
            state=DeploymentState.ROLLED_BACK,
            steps=steps,
            results=(Result(stage="baking", name="bake.errors", ok=False, found=WHY, details=("one", "two")),),
        ),
        **changes,
    )


class Kept:
    """An archive, and its file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "deployments.jsonl"
        self.archive = Archive(str(directory))
        self.archive.open()

    async def add(self, *records: DeploymentRecord) -> None:
        """Add them, and wait until they are written."""
        self.archive.add(records)
        await eventually_async(lambda: not self.archive._waiting)
        if self.archive._task is not None:
            await self.archive._task

    async def again(self) -> Archive:
        """As after a restart."""
        await self.archive.close()
        self.archive = Archive(str(self.directory))
        self.archive.open()
        return self.archive

    def ids(self, service: str = "shop") -> list[int]:
        return [one.id for one in self.archive.of(service)]


@pytest.fixture
async def kept(tmp_path) -> AsyncIterator[Kept]:
    made = Kept(tmp_path)
    yield made
    await made.archive.close()


async def test_what_has_ended_is_told_after_restarts(kept):
    """All of it but what only its stages had to know, in the order of the numbers, of each service its own."""
    whole = record(2, memory={"before": {"requests": 10}})
    await kept.add(whole, record(1), record(3, "api"))
    for _ in range(2):
        archive = kept.archive
        assert archive.get(2) == replace(whole, memory={})
        assert (kept.ids(), kept.ids("api"), kept.ids("none")) == ([1, 2], [3], [])
        assert [one.id for one in archive.of("shop", 1)] == [2]
        assert archive.get(4) is None
        assert archive.last_id == 3
        await kept.again()
    assert kept.path.stat().st_mode & 0o777 == 0o600


async def test_what_goes_on_is_not_kept_and_what_is_there_is_not_written_twice(kept):
    """A start offers all that the state file knows of."""
    await kept.add(record(1), record(2, state=DeploymentState.BAKING))
    size = kept.path.stat().st_size
    await kept.add(record(1), record(2, state=DeploymentState.BAKING))
    assert kept.ids() == [1]
    assert kept.path.stat().st_size == size


async def test_one_is_told_of_while_it_is_written(kept, monkeypatch):
    """However slow the disk is; and nobody waits for it."""
    gate = threading.Event()
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: (gate.wait(10), real(descriptor))[1])
    kept.archive.add([record(1)])
    await asyncio.sleep(0)
    assert kept.archive.get(1) == record(1)
    assert kept.ids() == [1]
    assert kept.archive.last_id == 1
    gate.set()
    await kept.add()
    assert kept.archive.get(1) == record(1)


async def test_the_oldest_of_a_service_go_first(kept, monkeypatch):
    """So many of each; another service's many push nobody out."""
    monkeypatch.setattr(module, "OF_A_SERVICE", 5)
    await kept.add(record(1, "api"), *(record(number) for number in range(2, 12)))
    for _ in range(2):
        assert kept.ids() == [7, 8, 9, 10, 11]
        assert kept.ids("api") == [1]
        assert kept.archive.get(3) is None
        await kept.again()


async def test_the_file_is_bounded(kept, monkeypatch):
    """It is written anew when much of it is not kept any more, and what is kept is whole; in all, so many bytes are kept."""
    monkeypatch.setattr(module, "OF_A_SERVICE", 3)
    monkeypatch.setattr(module, "SLACK", 0)
    longest = 0
    for number in range(1, 60):
        await kept.add(record(number, f"service-{number % 2}"))
        longest = max(longest, kept.path.stat().st_size)
    line = len(module._line(record(59, "service-1")))
    assert longest <= 14 * line
    for _ in range(2):
        assert (kept.ids("service-0"), kept.ids("service-1")) == ([54, 56, 58], [55, 57, 59])
        assert kept.archive.get(54) == record(54, "service-0")
        await kept.again()
    monkeypatch.setattr(module, "BYTES", 2 * line)
    await kept.add(record(60, "service-0"))
    assert (kept.ids("service-0"), kept.ids("service-1")) == ([60], [59])
    assert not list(kept.directory.glob("*.new"))


async def test_a_long_one_loses_what_matters_least(kept):
    """Details first, then what was well; who, when, why and the cause stay."""
    details = tuple(f"line {number}: {'x' * 190}" for number in range(200))
    fine = Result(stage="verifying", name="cart", ok=True, found="as expected", details=details)
    found = replace(record(1).results[0], details=details)
    await kept.add(record(1, results=(fine, found)))
    assert kept.archive.get(1).results == (replace(fine, details=()), replace(found, details=()))
    await kept.add(
        record(2, results=(*[replace(fine, name=f"{n}", found="y" * 800, details=()) for n in range(50)], found))
    )
    assert [result.name for result in kept.archive.get(2).results] == ["bake.errors"]
    await kept.add(record(3, reason="z" * 40_000))
    assert (kept.archive.get(3).reason, kept.archive.get(3).steps) == ("z" * 200, record(3).steps)
    assert max(map(len, kept.path.read_bytes().splitlines())) < module.LONGEST


@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize("rubbish", [b"\0\0\0", b'{"id": 2, "service": "shop", "tar', b"[]", b'{"id": 1'])
async def test_a_damaged_line_costs_one_deployment(kept, rubbish, end, caplog):
    """A power cut may leave half a line, or zeros; what is added next is not glued to it."""
    await kept.add(record(1))
    await kept.archive.close()
    with kept.path.open("ab") as file:
        file.write(rubbish + end)
    await kept.again()
    await kept.add(record(3))
    assert kept.ids() == [1, 3]
    await kept.again()
    assert kept.ids() == [1, 3]
    assert "damaged" in caplog.text or "cannot be read" in caplog.text


async def test_a_disk_that_is_full_costs_one_deployment(kept, monkeypatch, caplog):
    """Half a line is taken back; the next one is kept again."""
    await kept.add(record(1))
    size = kept.path.stat().st_size
    real = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:100]))
        await kept.add(record(2))
    assert kept.path.stat().st_size == size
    assert "deployment 2 is not kept: No space left on device" in caplog.text
    await kept.add(record(3))
    assert kept.ids() == [1, 3]
    await kept.again()
    assert kept.ids() == [1, 3]


async def test_a_file_that_cannot_be_written_anew_grows(kept, monkeypatch, caplog):
    """Nothing is lost by that."""
    monkeypatch.setattr(module, "OF_A_SERVICE", 1)
    monkeypatch.setattr(module, "SLACK", 0)
    (kept.directory / "deployments.jsonl.new").mkdir()
    await kept.add(*(record(number) for number in range(1, 6)))
    assert kept.ids() == [5]
    assert "cannot be written anew" in caplog.text


@pytest.mark.parametrize("kind", ["link", "directory", "fifo", "of others"])
async def test_what_others_may_have_written_is_not_believed(tmp_path, kind, caplog):
    """The log says so; deployments are kept as long as the state file does, and a start goes on."""
    path = tmp_path / "deployments.jsonl"
    if kind == "link":
        (tmp_path / "other").touch()
        path.symlink_to(tmp_path / "other")
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.touch()
        path.chmod(0o666)
    archive = Archive(str(tmp_path))
    archive.open()
    archive.add([record(1)])
    assert (archive.get(1), archive.of("shop"), archive.last_id) == (None, [], 0)
    assert "of deployments only the latest few will be known" in caplog.text
    await archive.close()


async def test_one_that_was_not_opened_is_empty():
    """As where there is no state directory: in tests, and before the start."""
    archive = Archive("")
    archive.add([record(1)])
    assert (archive.get(1), archive.of("shop"), archive.last_id) == (None, [], 0)
    await archive.close()


async def test_a_disk_that_does_not_answer_does_not_hold_the_end(kept, monkeypatch):
    """The controller stops all the same."""
    monkeypatch.setattr(module, "CLOSE_WITHIN", 0.05)
    gate = threading.Event()
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: (gate.wait(10), real(descriptor))[1])
    descriptor = kept.archive._file.descriptor
    kept.archive.add([record(1)])
    await asyncio.sleep(0)
    await kept.archive.close()
    gate.set()
    await eventually_async(lambda: all(one.name != "write the archive" for one in threading.enumerate()))
    os.close(descriptor)
