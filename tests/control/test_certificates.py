"""Certificates in the controller: what is in force, what is noticed, what is told."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support.certificates import DAY, Authority, Files, replace
from support.waiting import eventually_async

from bgproxy.config.schema import Certificate, Config, Listen, ListenTls
from bgproxy.control.certificates import Certificates
from bgproxy.control.events import EventLog


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def files(authority, tmp_path):
    return authority.issue(tmp_path, "a.test")


def content(path: str) -> bytes:
    return Path(path).read_bytes()


def remove(path: str) -> None:
    Path(path).unlink()


class Room:
    """The certificates of one listener, the events, and how often the workers were to be told."""

    def __init__(
        self, files: Files, client_ca: str | None = None, *, every: float = 3600.0, ahead: float = 0.0
    ) -> None:
        tls = ListenTls(certificates=(Certificate(cert=files.cert, key=files.key),), client_ca=client_ca)
        self.events = EventLog()
        self.told = 0
        config = Config(listen=(Listen(address=":1", tls=tls), Listen(address=":2")))
        self.certificates = Certificates(
            config, self.events, self._changed, clock=lambda: time.time() + ahead, every=every
        )

    def _changed(self) -> None:
        self.told += 1

    def types(self) -> list[str]:
        return [event["type"] for event in self.events.since(0) or []]

    def problem(self) -> str:
        (told,) = self.certificates.status()
        return str(told["problem"])


async def test_the_start_reads_all(authority, files, tmp_path):
    """The bytes for the workers, the names and the end for people; no event, since nothing was renewed."""
    room = Room(files, authority.write(tmp_path))
    await room.certificates.start()
    (spec,) = room.certificates.specs()
    assert (spec.cert, spec.names, spec.chain) == (files.cert, ("a.test",), content(files.cert))
    assert room.certificates.authorities() == ((str(tmp_path / "ca.pem"), authority.root.pem()),)
    (told,) = room.certificates.status()
    assert (told["cert"], told["names"], told["problem"]) == (files.cert, ["a.test"], "")
    assert told["not_after"].endswith("Z")
    assert (room.told, room.types()) == (1, [])
    assert "PRIVATE" not in repr(spec)
    await room.certificates.stop()


async def test_without_tls_nothing_runs():
    """No task, and nothing to tell."""
    told = []
    certificates = Certificates(Config(), EventLog(), lambda: told.append(1))
    await certificates.start()
    assert (certificates.specs(), certificates.authorities(), certificates.status(), told) == ((), (), [], [])
    await certificates.stop()


async def test_a_renewal_is_noticed(authority, files, tmp_path):
    """By the files alone; what is the same again is no renewal."""
    room = Room(files, every=0.01)
    await room.certificates.start()
    before = room.certificates.specs()
    authority.issue(tmp_path, "a.test", "b.test")
    await eventually_async(lambda: room.types() == ["certificate_renewed"])
    assert room.certificates.specs()[0].names == ("a.test", "b.test")
    assert room.certificates.specs() != before
    told = room.told
    replace(files.cert, content(files.cert))
    await room.certificates.look()
    assert (room.told, room.types()) == (told, ["certificate_renewed"])
    await room.certificates.stop()


async def test_half_a_renewal_is_waited_for(authority, files, tmp_path):
    """The certificate is replaced before its key: nobody is told of the moment in between."""
    room = Room(files)
    await room.certificates.start()
    old_key = content(files.key)
    authority.issue(tmp_path, "b.test")
    new_key = content(files.key)
    replace(files.key, old_key)
    assert not await room.certificates.look()
    assert (room.problem(), room.types()) == ("", [])
    replace(files.key, new_key)
    assert await room.certificates.look()
    assert (room.problem(), room.types()) == ("", ["certificate_renewed"])


async def test_what_stays_broken_is_told_once(authority, files, tmp_path):
    """At the second look, and not at each; the old one stays in force; then a good one comes."""
    room = Room(files)
    await room.certificates.start()
    before = room.certificates.specs()
    replace(files.cert, content(files.cert)[:300])
    for _ in range(4):
        assert not await room.certificates.look()
    assert room.types() == ["certificate_refused"]
    assert "cut short" in room.problem()
    assert (room.certificates.specs(), room.told) == (before, 1)
    authority.issue(tmp_path, "a.test")
    assert await room.certificates.look()
    assert (room.problem(), room.types()) == ("", ["certificate_refused", "certificate_renewed"])


async def test_the_old_file_back_again_is_no_problem(files):
    """Whoever puts it back is heard, though nothing new is in force."""
    room = Room(files)
    await room.certificates.start()
    good = content(files.cert)
    replace(files.cert, b"")
    await room.certificates.look(at_once=True)
    assert room.problem()
    replace(files.cert, good)
    assert not await room.certificates.look()
    assert room.problem() == ""


async def test_a_missing_file_keeps_the_old_one(files):
    """As any other fault."""
    room = Room(files)
    await room.certificates.start()
    remove(files.cert)
    assert not await room.certificates.look(at_once=True)
    assert "does not exist" in room.problem()
    assert len(room.certificates.specs()) == 1


async def test_a_certificate_that_expires_in_force_stays(authority, tmp_path):
    """An old certificate that most clients refuse is no worse than none."""
    files = authority.issue(tmp_path, "a.test", not_after=DAY)
    room = Room(files)
    await room.certificates.start()
    room.certificates._clock = lambda: time.time() + 2 * 86400
    replace(files.cert, content(files.cert))
    await room.certificates.look(at_once=True)
    assert "expired on" in room.problem()
    assert len(room.certificates.specs()) == 1


async def test_a_broken_certificate_at_the_start_is_told_at_once(files):
    """A controller that is started again may meet one: it goes on, with nothing in force for it."""
    replace(files.cert, b"")
    room = Room(files)
    await room.certificates.start()
    assert (room.certificates.specs(), room.types(), room.told) == ((), ["certificate_refused"], 0)
    assert room.certificates.status()[0]["not_after"] is None
    await room.certificates.stop()


async def test_the_end_of_a_certificate_is_told_of_beforehand(authority, tmp_path, caplog):
    """In time, when it is urgent, and when it has happened; each once. A renewed one is told of anew."""
    files = authority.issue(tmp_path, "a.test", not_before=-50 * DAY, not_after=50 * DAY)
    room = Room(files)
    now = time.time()
    passed = [0.0]  # days
    room.certificates._clock = lambda: now + passed[-1] * 86400
    told = []
    for days in (0.0, 35.0, 37.0, 40.0, 46.0, 47.0, 47.5, 49.9, 50.1, 60.0):
        passed.append(days)
        await room.certificates.look()
        told.append(room.types().count("certificate_expires"))
    assert told == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3]
    assert [record.levelname for record in caplog.records if "renew it" in record.getMessage()] == [
        "WARNING",
        "WARNING",
        "ERROR",
    ]
    passed.append(0.0)
    renewed = authority.issue(tmp_path, "a.test", stem="next", not_after=5 * DAY, not_before=-DAY)
    replace(files.cert, content(renewed.cert))
    replace(files.key, content(renewed.key))
    await room.certificates.look()
    assert room.types().count("certificate_expires") == 3
    passed.append(4.5)
    await room.certificates.look()
    assert room.types().count("certificate_expires") == 4
