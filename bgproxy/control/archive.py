"""The deployments that have ended, longer than the state file keeps them: one file, to which a line is added for each.

The state file is written whole at each change, and must stay small; a line here is written once. A file that would be more than twice
what is kept is written anew. Not even a damaged file keeps a controller from starting: of a line that is none, one deployment is lost.
Records are read from the file when somebody asks; in memory is where they stand.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from bgproxy.control.state import StateFormatError, deployment_from_json, deployment_to_json
from bgproxy.control.threads import OneThread
from bgproxy.model.deployment import DeploymentRecord

log = logging.getLogger("bgproxy.controller")

NAME: Final = "deployments.jsonl"
_NEW: Final = ".new"

#: Deployments of a service that are kept, and bytes of all: the oldest go first.
OF_A_SERVICE: Final = 200
BYTES: Final = 64 * 1024 * 1024
#: Bytes of one: beyond, it loses the details of what its stages found out, then what was well, then the longest of its texts.
LONGEST: Final = 32 * 1024
#: Bytes of which nothing is kept that a file may have all the same.
SLACK: Final = 256 * 1024

#: Seconds that what waits has at the end.
CLOSE_WITHIN: Final = 2.0

_TEXT: Final = 200  # characters of a text that is cut
_READ: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_HEAD: Final = re.compile(rb'\{"id": ([0-9]{1,18}), "service": "([^"\\]{1,64})", ')


class _Place(NamedTuple):
    """Where a record stands."""

    service: str
    at: int
    size: int  # with its line's end


@dataclass(slots=True)
class _File:
    """An open file, and how long it is."""

    descriptor: int
    size: int


class Archive:
    """That of one state directory. `open` comes first; before it, and where the file cannot be used, it is empty and stays so."""

    def __init__(self, directory: str) -> None:
        self._path = Path(directory) / NAME
        self._file: _File | None = None
        self._places: dict[int, _Place] = {}
        self._by_service: dict[str, list[int]] = {}  # ids, rising
        self._live = 0  # bytes of what is kept
        self._thread = OneThread("write the archive")
        self._waiting: dict[int, DeploymentRecord] = {}
        self._task: asyncio.Task[None] | None = None

    # --- its life ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Read where everything stands. Blocks; raises nothing: what is wrong is in the log."""
        try:
            descriptor = os.open(self._path, _READ, mode=0o600)
        except OSError as error:
            self._refuse(error)
            return
        try:
            _check(descriptor)
            self._file = _File(descriptor, os.fstat(descriptor).st_size)
            self._read()
        except OSError as error:
            self._refuse(error)
            self._file = None
            os.close(descriptor)

    def _refuse(self, error: OSError) -> None:
        log.error("%s: %s: of deployments only the latest few will be known", self._path, error.strerror)

    async def close(self) -> None:
        """Write what waits. Idempotent, and fit for one that was not opened."""
        task, self._task = self._task, None
        if task is not None:
            await asyncio.wait({task}, timeout=CLOSE_WITHIN)
            if not task.done():  # the disk does not answer, and the thread has the descriptor still
                task.cancel()
                self._file = None
        self._thread.close()
        file, self._file = self._file, None
        if file is not None:
            os.close(file.descriptor)

    def _read(self) -> None:
        file = self._file
        assert file is not None  # noqa: S101 - it is open
        rubbish, at, ended = 0, 0, True
        with open(os.dup(file.descriptor), "rb") as lines:  # noqa: PTH123 - a descriptor
            for line in lines:
                head = _HEAD.match(line)
                ended = line.endswith(b"\n")
                if head is not None and ended:
                    self._put(int(head[1]), _Place(head[2].decode("ascii", "replace"), at, len(line)))
                else:
                    rubbish += 1
                at += len(line)
        if not ended:  # a write that a power cut has cut short: the next one must not be glued to it
            file.size += os.write(file.descriptor, b"\n")
        if rubbish:
            log.warning("%s: %d lines are damaged, and the deployments in them lost", self._path, rubbish)
        self._trim()

    # --- asking -----------------------------------------------------------------------------------------------------

    @property
    def last_id(self) -> int:
        """The highest number of a deployment; 0 if there is none."""
        return max(self._places.keys() | self._waiting.keys(), default=0)

    def get(self, number: int) -> DeploymentRecord | None:
        """One deployment, if it is here."""
        waiting = self._waiting.get(number)
        place, file = self._places.get(number), self._file
        if waiting is not None or place is None or file is None:
            return waiting
        try:
            record = deployment_from_json(
                os.pread(file.descriptor, place.size, place.at).decode(errors="surrogatepass")
            )
        except (StateFormatError, OSError, UnicodeDecodeError) as error:
            log.warning("%s: deployment %d cannot be read: %s", self._path, number, error)
            self._drop(number)
            return None
        return record

    def of(self, service: str, most: int | None = None) -> list[DeploymentRecord]:
        """The latest of a service, the latest last."""
        numbers = sorted(
            {
                *self._by_service.get(service, ()),
                *(n for n, record in self._waiting.items() if record.service == service),
            }
        )
        return list(_there(self.get(number) for number in (numbers if most is None else numbers[-most:])))

    # --- adding -----------------------------------------------------------------------------------------------------

    def add(self, records: Iterable[DeploymentRecord]) -> None:
        """Keep those that have ended and are not here yet; written behind everybody's back."""
        if self._file is None:
            return
        self._waiting |= {r.id: r for r in records if not r.running and r.id not in self._places}
        if self._waiting and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._write(), name="write the archive of deployments")

    async def _write(self) -> None:
        while self._waiting and (file := self._file) is not None:
            number, record = next(iter(self._waiting.items()))
            line = _line(record)
            try:
                await self._thread.call(partial(_append, file.descriptor, line))
            except OSError as error:
                log.error("%s: deployment %d is not kept: %s", self._path, number, error.strerror)  # noqa: TRY400
                with suppress(OSError):  # of half a line the next one must begin anew
                    file.size = os.fstat(file.descriptor).st_size
            else:
                self._put(number, _Place(record.service, file.size, len(line)))
                file.size += len(line)
                self._trim()
            del self._waiting[number]
            if file.size > 2 * self._live + SLACK:
                await self._write_anew(file)

    async def _write_anew(self, file: _File) -> None:
        """Leave out what is not kept any more."""
        places = dict(sorted(self._places.items()))
        try:
            descriptor = await self._thread.call(partial(_copy, self._path, file.descriptor, list(places.values())))
        except OSError as error:
            log.warning("%s: it cannot be written anew, and grows: %s", self._path, error.strerror)
            return
        at = 0
        for number, place in places.items():
            self._places[number] = place._replace(at=at)
            at += place.size
        former, file.descriptor, file.size = file.descriptor, descriptor, at
        os.close(former)

    # --- what is kept -----------------------------------------------------------------------------------------------

    def _put(self, number: int, place: _Place) -> None:
        self._drop(number)
        self._places[number] = place
        self._live += place.size
        ids = self._by_service.setdefault(place.service, [])
        ids.append(number)
        if len(ids) > 1 and ids[-2] > number:
            ids.sort()

    def _drop(self, number: int) -> None:
        place = self._places.pop(number, None)
        if place is not None:
            self._live -= place.size
            ids = self._by_service[place.service]
            ids.remove(number)
            if not ids:
                del self._by_service[place.service]

    def _trim(self) -> None:
        for ids in list(self._by_service.values()):
            for number in ids[: max(len(ids) - OF_A_SERVICE, 0)]:
                self._drop(number)
        while self._live > BYTES:
            self._drop(next(iter(self._places)))


def _there(records: Iterable[DeploymentRecord | None]) -> Iterator[DeploymentRecord]:
    return (record for record in records if record is not None)


def _check(descriptor: int) -> None:
    """Raise `OSError` if it is not a file of ours: what others could have written is not believed."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise OSError(0, "it is not a file that bgproxy's user alone may write (mode 0600)")


def _line(record: DeploymentRecord) -> bytes:
    """A record as it is kept: without what only its stages had to know, and not beyond `LONGEST`."""
    record = replace(record, memory={})
    for shorter in (_as_it_is, _without_details, _without_what_was_well, _cut):
        record = shorter(record)
        line = deployment_to_json(record).encode(errors="surrogatepass") + b"\n"
        if len(line) <= LONGEST:
            break
    return line


def _as_it_is(record: DeploymentRecord) -> DeploymentRecord:
    return record


def _without_details(record: DeploymentRecord) -> DeploymentRecord:
    return replace(record, results=tuple(replace(result, details=()) for result in record.results))


def _without_what_was_well(record: DeploymentRecord) -> DeploymentRecord:
    return replace(record, results=tuple(result for result in record.results if not result.ok))


def _cut(record: DeploymentRecord) -> DeploymentRecord:
    return replace(
        record,
        upstreams=None if record.upstreams is None else record.upstreams[:20],
        reason=record.reason[:_TEXT],
        steps=tuple(replace(step, why=step.why[:_TEXT]) for step in record.steps),
        results=tuple(
            replace(result, expected=result.expected[:_TEXT], found=result.found[:_TEXT])
            for result in record.results[:5]
        ),
    )


def _put_down(descriptor: int, data: bytes) -> None:
    if os.write(descriptor, data) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _append(descriptor: int, line: bytes) -> None:
    """Runs in a thread. Half a line that a full disk has taken is taken back."""
    before = os.fstat(descriptor).st_size
    try:
        _put_down(descriptor, line)
        os.fdatasync(descriptor)
    except OSError:
        os.ftruncate(descriptor, before)
        raise


def _copy(path: Path, descriptor: int, places: list[_Place]) -> int:
    """Runs in a thread: a new file with these lines in the place of the old one; its descriptor."""
    new = path.with_name(path.name + _NEW)
    with suppress(FileNotFoundError):
        new.unlink()
    made = os.open(new, _READ | os.O_EXCL, mode=0o600)
    try:
        for place in places:
            _put_down(made, os.pread(descriptor, place.size, place.at))
        os.fsync(made)
        new.replace(path)
    except BaseException:
        os.close(made)
        with suppress(OSError):
            new.unlink()
        raise
    return made
