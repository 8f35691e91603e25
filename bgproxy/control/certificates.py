"""The certificates of the listeners: read at the start, and again whenever their files change, while everything goes on.

What is in force stays so until something better is read: a new file that cannot be used is told of, in the log, the
status and the metrics, and the old certificate goes on serving. Programs that renew certificates replace the one file
after the other, so a pair that does not fit is looked at a second time before anybody is told.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bgproxy.config.certificates import CertificateError, Pair, judge_authorities, judge_pair
from bgproxy.config.schema import Config
from bgproxy.control.clock import rfc3339
from bgproxy.control.events import Draft, EventLog
from bgproxy.model.snapshot import CertificateSpec

log = logging.getLogger("bgproxy.controller")

#: Seconds between two looks at the files: a few stat(2) each.
LOOK_EVERY: Final = 2.0

#: Seconds before its end from which a certificate is told of; of a short-lived one, a fifth of its life.
FORETOLD: Final = 14 * 86400.0

_Mark = tuple[tuple[int, int, int, int], ...]  # of files: device, inode, size, and when last written


@dataclass(slots=True)
class _Watched:
    """A certificate with its key, or a file of authorities, and what is known of it."""

    cert: str
    key: str | None  # None: authorities for clients' certificates
    pair: Pair | None = None  # in force
    authorities: bytes | None = None  # in force
    read: _Mark = ()  # the files that are in force, or were refused
    doubted: _Mark = ()  # the files that could not be used when last looked at
    problem: str = ""  # why the files as they are now are not in force
    foretold: int = 0  # how often the end of `pair` was told of


class Certificates:
    """Reads the files of `config`'s listeners; `changed` is called when others are in force. `clock` gives seconds since 1970."""

    def __init__(
        self,
        config: Config,
        events: EventLog,
        changed: Callable[[], None],
        *,
        clock: Callable[[], float] = time.time,
        every: float = LOOK_EVERY,
    ) -> None:
        self._events = events
        self._changed = changed
        self._clock = clock
        self._every = every
        self._watched: dict[tuple[str, str | None], _Watched] = {}
        for listen in config.listen:
            if listen.tls is not None:
                for each in listen.tls.certificates:
                    self._watched.setdefault((each.cert, each.key), _Watched(each.cert, each.key))
                if listen.tls.client_ca is not None:
                    self._watched.setdefault((listen.tls.client_ca, None), _Watched(listen.tls.client_ca, None))
        self._looking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    # --- its life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read all files, and begin to watch them."""
        if self._watched:
            await self.look(at_once=True)
            self._task = asyncio.create_task(self._watch(), name="watch certificates")

    async def stop(self) -> None:
        """Watch no longer. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            try:
                await self.look()
            except Exception:
                log.exception("the certificates could not be looked at; the ones in force stay")

    # --- looking ----------------------------------------------------------------------------------------------------

    async def look(self, *, at_once: bool = False) -> bool:
        """Read what has changed; whether something else is in force now.

        With `at_once` (a reload), files that do not fit are told of at the first look.
        """
        async with self._looking:
            changed = False
            for watched in self._watched.values():
                mark = await asyncio.to_thread(_mark, watched)
                if mark != watched.read or (at_once and watched.problem):
                    changed |= await self._read(watched, mark, at_once=at_once)
            if changed:
                self._changed()
            self._foretell()
            return changed

    async def _read(self, watched: _Watched, mark: _Mark, *, at_once: bool) -> bool:
        """Judge files, and put them in force; whether something is in force now that was not before."""
        first = watched.pair is None and watched.authorities is None
        try:
            good = await asyncio.to_thread(self._judge, watched)
        except CertificateError as error:
            if at_once or first or watched.doubted == mark:
                watched.read = mark
                self._refuse(watched, str(error))
            watched.doubted = mark
            return False
        # A file that was replaced while it was read has another mark at the next look, and is read again.
        watched.read = mark
        watched.problem = ""
        same = good in (watched.pair, watched.authorities)
        if isinstance(good, Pair):
            watched.foretold = 0 if good != watched.pair else watched.foretold
            watched.pair = good
        else:
            watched.authorities = good
        if not first and not same:
            self._tell_renewed(watched)
        return not same

    def _judge(self, watched: _Watched) -> Pair | bytes:
        if watched.key is None:
            return judge_authorities(watched.cert)
        return judge_pair(watched.cert, watched.key, self._clock())

    def _refuse(self, watched: _Watched, problem: str) -> None:
        if problem == watched.problem:
            return
        watched.problem = problem
        kept = "nothing is in force for it" if watched.pair is None and not watched.authorities else "the old one stays"
        log.error("certificate refused, %s: %s", kept, problem)
        message = f"A certificate was refused, {kept}: {problem}"
        self._events.emit(Draft(type="certificate_refused", message=message, data={"cert": watched.cert}))

    def _tell_renewed(self, watched: _Watched) -> None:
        pair = watched.pair
        until = f", valid until {rfc3339(pair.not_after)}" if pair is not None else ""
        log.info("certificate renewed", extra={"fields": {"cert": watched.cert}})
        message = f"{watched.cert} was renewed and is in force{until}."
        self._events.emit(Draft(type="certificate_renewed", message=message, data={"cert": watched.cert}))

    def _foretell(self) -> None:
        """Tell of certificates that are about to expire: in time, once more when it is urgent, and when it has happened."""
        for watched in self._watched.values():
            pair = watched.pair
            if pair is None:
                continue
            left = pair.not_after - self._clock()
            first = min(FORETOLD, (pair.not_after - pair.not_before) / 5)
            due = sum(left < within for within in (first, first / 4, 0.0))
            if due > watched.foretold:
                watched.foretold = due
                until = rfc3339(pair.not_after)
                what = f"expires at {until}" if left >= 0 else f"expired at {until}, and clients refuse it"
                message = f"{watched.cert} {what}: renew it, new files are taken by themselves."
                log.log(logging.WARNING if left >= 0 else logging.ERROR, "%s", message)
                self._events.emit(Draft(type="certificate_expires", message=message, data={"cert": watched.cert}))

    # --- what is in force -------------------------------------------------------------------------------------------

    def specs(self) -> tuple[CertificateSpec, ...]:
        """The certificates for the workers."""
        return tuple(
            CertificateSpec(watched.cert, watched.pair.names, watched.pair.chain, watched.pair.secret)
            for watched in self._watched.values()
            if watched.pair is not None
        )

    def authorities(self) -> tuple[tuple[str, bytes], ...]:
        """The authorities for clients' certificates, for the workers."""
        return tuple(
            (watched.cert, watched.authorities) for watched in self._watched.values() if watched.authorities is not None
        )

    def status(self) -> list[dict[str, Any]]:
        """Each certificate, for the API."""
        return [
            {
                "cert": watched.cert,
                "names": list(watched.pair.names) if watched.pair is not None else [],
                "not_after": rfc3339(watched.pair.not_after) if watched.pair is not None else None,
                "problem": watched.problem,
            }
            for watched in self._watched.values()
            if watched.key is not None
        ]


def _mark(watched: _Watched) -> _Mark:
    """What is different when a file is another one or was written; a missing one has a mark too."""
    marks: list[tuple[int, int, int, int]] = []
    for file in (watched.cert, watched.key):
        if file is not None:
            try:
                found = Path(file).stat()  # where links lead: they are what is replaced
                marks.append((found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))
            except OSError:
                marks.append((0, 0, 0, 0))
    return tuple(marks)
