"""The state directory: the state file and its last good copy, the session key, and the lock that keeps others out.

A file is written as a temporary one, synced, renamed over the old one, and the directory synced: whatever happens in
between, the old content is there or the new one is. A write that fails leaves the old content, also where only the
very last step failed: then the rename is undone. Nothing is ever written or read through a symbolic link.

What is replaced is held open until the write has been answered for: a file system may take longer to free a file than
to write one (ext4 waits for its journal, and for the disk to discard the blocks), and nobody should wait for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import shlex
import stat
from collections.abc import Iterator
from functools import partial
from typing import Final

from bgproxy.control.state import State, StateFormatError, Texts
from bgproxy.control.statefile import decode, describe, encode
from bgproxy.control.threads import OneThread
from bgproxy.errors import StateError

log = logging.getLogger("bgproxy.controller")

NAME: Final = "state.json"
LAST: Final = "state.json.last"  # the content before the present one
KEY: Final = "session.key"
LOCK: Final = "lock"
_NEW: Final = ".new"  # behind the name of a file that is being written
_OLD: Final = ".old"  # behind the name of a file while its last copy is being made

_KEY_BYTES: Final = 32
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

#: Seconds after which a disk that does not answer counts as failed.
WRITE_WITHIN: Final = 10.0

_REMEDIES: Final = {
    errno.ENOSPC: "free some space on its file system",
    errno.EDQUOT: "free some space, or raise the quota",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EROFS: "mount its file system for writing",
    errno.EACCES: "let bgproxy's user write there",
    errno.EPERM: "let bgproxy's user write there",
    errno.EIO: "look into the kernel's log: the disk fails",
}


class Store:
    """The state directory of one bgproxy. `open` comes first; `close` gives it up to others."""

    def __init__(self, directory: str, *, write_within: float = WRITE_WITHIN) -> None:
        self.directory = directory
        self._write_within = write_within
        self._lock = -1
        self._good: bytes | None = None  # the content that was last read, or written and answered for
        self._writing: asyncio.Future[int] | None = None
        self._thread = OneThread("write state")
        self._texts = Texts()

    @property
    def path(self) -> str:
        """Of the state file."""
        return os.path.join(self.directory, NAME)  # noqa: PTH118 - names are joined here, nothing else

    # --- at the start (these block) ---------------------------------------------------------------------------------

    def open(self) -> State | None:
        """Take the directory and read the state; None when there is none yet.

        Raises:
            StateError: the directory cannot be used, another bgproxy uses it, or the state cannot be read; the text
                names what is wrong and how to go on.
        """
        self._make_directory()
        with self._opened() as directory:
            self._take(directory)
            try:
                for name in (NAME + _NEW, LAST + _OLD, KEY + _NEW):
                    _remove(directory, name)
                return self._restore(directory)
            except BaseException:
                self.close()
                raise

    def session_key(self) -> bytes:
        """The key that signs session cookies: made at the first start, the same ever after.

        Raises:
            StateError: it cannot be read or made.
        """
        path = os.path.join(self.directory, KEY)  # noqa: PTH118
        with self._opened() as directory:
            try:
                key = _read(directory, KEY, secret=True)
                if key is None:
                    key = os.urandom(_KEY_BYTES)
                    _write(directory, KEY, key)
                    os.fsync(directory)
            except StateFormatError as error:
                raise StateError(f"{path} {error}. Sessions begin anew without it: rm -- {shlex.quote(path)}") from None
            except OSError as error:
                raise StateError(f"{path} cannot be used: {_words(error)}.") from None
        if len(key) != _KEY_BYTES:
            raise StateError(
                f"{path} has {len(key)} bytes instead of {_KEY_BYTES}. "
                f"Sessions begin anew without it: rm -- {shlex.quote(path)}"
            )
        return key

    def close(self) -> None:
        """Give the directory up. Idempotent."""
        self._thread.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _make_directory(self) -> None:
        remedy = "; let bgproxy's user write there, or set state_dir to another directory"
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)  # noqa: PTH103 - as all of this file: os calls
            mode = os.stat(self.directory).st_mode  # noqa: PTH116
        except FileExistsError:
            raise StateError(f"state_dir {self.directory} is not a directory{remedy}.") from None
        except OSError as error:
            raise StateError(f"state_dir {self.directory} cannot be used: {error.strerror}{remedy}.") from None
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise StateError(
                f"state_dir {self.directory} can be written by every user of this machine: "
                f"chmod o-w -- {shlex.quote(self.directory)}"
            )

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        try:
            directory = os.open(self.directory, _DIRECTORY)
        except OSError as error:
            raise StateError(f"state_dir {self.directory} cannot be used: {_words(error)}.") from None
        try:
            yield directory
        finally:
            with contextlib.suppress(OSError):  # it was only read: nothing can be lost
                os.close(directory)

    def _take(self, directory: int) -> None:
        """Lock the directory; the kernel unlocks it when this process ends, however it ends."""
        path = os.path.join(self.directory, LOCK)  # noqa: PTH118
        try:
            descriptor = os.open(
                LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, mode=0o600, dir_fd=directory
            )
        except OSError as error:
            raise StateError(f"{path} cannot be used: {_words(error)}.") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                # Who ends that process alone has it restarted: the text must not take it for the whole program.
                who = f"Another bgproxy (its controller is pid {owner})" if owner.isdecimal() else "Another bgproxy"
                raise StateError(
                    f"{who} uses state_dir {self.directory}: stop it, or give this one a state_dir of its own."
                ) from None
            raise StateError(f"{path} cannot be locked: {_words(error)}.") from None
        self._lock = descriptor
        with contextlib.suppress(OSError):  # only a help for whoever is refused; a full disk is told of soon enough
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)

    # --- reading ----------------------------------------------------------------------------------------------------

    def _restore(self, directory: int) -> State | None:
        try:
            data = _read(directory, NAME)
            if data is not None:
                state = decode(data)
                self._good = data
                return state
        except StateFormatError as error:
            raise StateError(self._way_on(directory, str(error))) from None
        except OSError as error:
            raise StateError(f"{self.path} cannot be read: {_words(error)}.") from None
        if _exists(directory, LAST):
            raise StateError(self._way_on(directory, "is missing, although its last good copy is there"))
        return None

    def _way_on(self, directory: int, wrong: str) -> str:
        """What is wrong with the state file, what its last good copy says, and the commands to go on with."""
        last = os.path.join(self.directory, LAST)  # noqa: PTH118
        path, copy = shlex.quote(self.path), shlex.quote(last)
        aside = [f"mv -- {path} {path}.broken"] if _exists(directory, NAME) else []
        text = f"{self.path} {wrong}."
        try:
            data = _read(directory, LAST)
            if data is None:
                text += " There is no last good copy beside it."
            else:
                text += f" Its last good copy, {last}, is from one change earlier and says: {describe(decode(data))}."
                text += " To go on with that: " + " && ".join([*aside, f"cp -p -- {copy} {path}"]) + "."
        except (StateFormatError, OSError) as error:
            reason = _words(error) if isinstance(error, OSError) else str(error)
            text += f" Its last good copy is of no use either: {last} {reason}."
        if _exists(directory, LAST):
            aside.append(f"mv -- {copy} {copy}.broken")
        return (
            f"{text} To begin anew with the configuration alone, without who was live and what was changed at run time: "
            f"{' && '.join(aside)}"
        )

    # --- writing ----------------------------------------------------------------------------------------------------

    async def write(self, state: State) -> None:
        """Make `state` the content of the file; when this returns, it outlives a power cut. One at a time.

        Raises:
            StateError: it could not be written; the file has its former content.
        """
        if self._writing is not None and not self._writing.done():
            raise StateError(f"{self.path} is still being written: its disk does not answer. Nothing was changed.")
        data = encode(state, self._texts)
        writing = self._writing = self._thread.call(partial(self._replace, data))
        try:
            await asyncio.wait({writing}, timeout=self._write_within)
        except asyncio.CancelledError:
            writing.add_done_callback(self._came_late)  # even if it is done: nobody will put it in force
            raise
        if not writing.done():
            writing.add_done_callback(self._came_late)
            raise StateError(
                f"{self.path} was not written within {self._write_within:g}s: its disk does not answer. "
                "Nothing was changed."
            )
        try:
            self._let_go(writing.result())
        except OSError as error:  # no thread; what the disk says comes as a StateError
            raise StateError(f"{self.path} cannot be written: {_words(error)}. Nothing was changed.") from None
        self._good = data

    def _let_go(self, replaced: int) -> None:
        """Free what a write has replaced, behind everybody's back."""
        if replaced >= 0:
            self._thread.call(partial(_close, replaced))

    def _came_late(self, writing: asyncio.Future[int]) -> None:
        """A write that was given up has ended. If it succeeded, the file is ahead of what was answered: put it back."""
        error = None if writing.cancelled() else writing.exception()
        if error is None and not writing.cancelled():
            self._let_go(writing.result())
        if self._good is None or isinstance(error, StateError):
            return
        log.warning("%s was written too late, and is put back", self.path)
        # What came late was never in force, and must not become the last good copy on its way out.
        self._writing = self._thread.call(partial(self._replace, self._good, keep_last=False))
        self._writing.add_done_callback(self._was_put_back)

    def _was_put_back(self, writing: asyncio.Future[int]) -> None:
        error = None if writing.cancelled() else writing.exception()
        if error is not None:
            log.error("%s", error)
        elif not writing.cancelled():
            self._let_go(writing.result())

    def _replace(self, data: bytes, *, keep_last: bool = True) -> int:
        """Runs in a thread. Returns a descriptor of the file that has no name any more, for `_let_go`; -1 if there is none."""
        with self._opened() as directory:
            replaced = _hold(directory, LAST if keep_last else NAME)
            try:
                self._put(directory, data, keep_last=keep_last)
            except BaseException:
                _close(replaced)
                raise
            return replaced

    def _put(self, directory: int, data: bytes, *, keep_last: bool) -> None:
        try:
            _write(directory, NAME + _NEW, data, rename=False)
            if keep_last:
                _keep_last(directory)
            os.replace(NAME + _NEW, NAME, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError as error:
            with contextlib.suppress(OSError):
                _remove(directory, NAME + _NEW)
            raise StateError(f"{self.path} cannot be written: {_words(error)}. Nothing was changed.") from None
        try:
            os.fsync(directory)
        except OSError as error:
            raise StateError(f"{self.path} cannot be written: {_words(error)}. {self._undo(directory)}") from None

    def _undo(self, directory: int) -> str:
        """The new content is in place, but may not outlive a power cut: bring the former one back."""
        try:
            try:
                os.link(LAST, NAME + _NEW, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                os.unlink(NAME, dir_fd=directory)  # it was the first write
            else:
                os.replace(NAME + _NEW, NAME, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError as error:
            return f"Nothing was changed, but the file could not be put back ({error.strerror}): the next change will."
        with contextlib.suppress(OSError):
            os.fsync(directory)
        return "Nothing was changed."


def _read(directory: int, name: str, *, secret: bool = False) -> bytes | None:
    """The content of a file that only its owner may have written; None if there is none.

    Raises:
        StateFormatError: it is a symbolic link, not a file, or its owner or mode is not what we gave it.
        OSError: as the system says.
    """
    try:
        descriptor = os.open(name, _READ, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StateFormatError("is a symbolic link, which is not followed") from None
        if error.errno == errno.EACCES:
            raise StateFormatError(
                "may not be read by bgproxy's user; it should be that user's, with mode 0600"
            ) from None
        raise
    try:
        about = os.fstat(descriptor)
        mode = stat.S_IMODE(about.st_mode)
        if not stat.S_ISREG(about.st_mode):
            raise StateFormatError("is not a regular file")
        if about.st_uid not in (0, os.geteuid()):
            raise StateFormatError(f"belongs to another user (uid {about.st_uid})")
        if mode & (0o077 if secret else 0o022) or not mode & stat.S_IRUSR:
            raise StateFormatError(f"has mode {mode:04o} instead of 0600, so that it is not certain who wrote it")
        data = b""
        while piece := os.read(descriptor, max(1 << 16, about.st_size - len(data) + 1)):
            data += piece
        return data
    finally:
        os.close(descriptor)


def _write(directory: int, name: str, data: bytes, *, rename: bool = True) -> None:
    """Write a file whole, and sync it; with `rename`, under a name of its own until it is complete."""
    temporary = name + _NEW if rename else name
    _remove(directory, temporary)
    descriptor = os.open(temporary, _CREATE, mode=0o600, dir_fd=directory)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if rename:
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)


def _keep_last(directory: int) -> None:
    """Make the present file the last good copy, without a moment in which there is none."""
    _remove(directory, LAST + _OLD)
    try:
        os.link(NAME, LAST + _OLD, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return  # the first write
    os.replace(LAST + _OLD, LAST, src_dir_fd=directory, dst_dir_fd=directory)
    _remove(directory, LAST + _OLD)  # rename(2) leaves it where both were links to one file


def _hold(directory: int, name: str) -> int:
    """A descriptor that keeps a file from being freed, -1 where there is none: it spares time only, so that it may fail."""
    try:
        return os.open(name, _READ, dir_fd=directory)
    except OSError:
        return -1


def _close(descriptor: int) -> None:
    """Let go of what `_hold` has; nothing was written through it, so that nothing can be lost."""
    if descriptor >= 0:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _remove(directory: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return True


def _words(error: OSError) -> str:
    """An operator's words for an error: what, and what to do."""
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{error.strerror}{f': {remedy}' if remedy else ''}"
