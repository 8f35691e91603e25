"""One question to one upstream, over a connection of its own: what a health check sends and how it reads the answer.

A check is small, and there are many: a thousand a second with a thousand services. So it is a bare socket and a few system calls,
no more. All sockets are watched by one epoll(7), and the event loop watches that one.

The answer is looked at, not taken (MSG_PEEK): closing a connection with something unread resets it (RFC 1122 section
4.2.2.13). So the upstream stops sending a body that nobody wants, and no check leaves a port in TIME-WAIT behind: at a thousand
checks a second these would soon be all ports that there are. `Connection: close` tells the upstream that nothing more will come.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from bgproxy import __version__
from bgproxy.config.addresses import is_secure
from bgproxy.config.schema import Health
from bgproxy.config.statuses import parse_statuses
from bgproxy.http1.errors import BadResponse
from bgproxy.http1.names import NameTable
from bgproxy.http1.response import parse_response_head
from bgproxy.model.snapshot import Address

#: Bytes of a response head, with the interim ones before it. It bounds what is looked at, too.
MAX_HEAD: Final = 64 * 1024

#: What this process or machine has no room for: nothing that an upstream could help.
_OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_ANSWER: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_ENDED: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_STATUS_LINE: Final = b"HTTP/1."
#: socket(7): closing sends a reset.
RESET: Final = struct.pack("ii", 1, 0)


class Probe:
    """How one upstream is asked, and the question that is under way, if one is. `prelude` goes before it: a PROXY header."""

    __slots__ = (
        "_address",
        "_expect",
        "_family",
        "_prelude",
        "_statuses",
        "connects",
        "key",
        "request",
        "socket",
        "unsent",
    )

    def __init__(self, key: str, url: str, address: Address, settings: Health, *, prelude: bytes = b"") -> None:
        default = ":443" if is_secure(url) else ":80"
        # The path and the host as they are written: what is escaped in the file stays so.
        host = "localhost" if isinstance(address, str) else urlsplit(url).netloc.removesuffix(default)
        self.key = key
        self.socket: socket.socket | None = None
        self.unsent = b""
        self._address = address
        self._family = (
            socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        )
        self._prelude = prelude
        self.request = (
            f"GET {settings.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bgproxy-health/{__version__}\r\n"
            "Accept: */*\r\nConnection: close\r\n\r\n"
        ).encode()
        self.connects = settings.type == "tcp"  # nothing is asked: that it accepts is all
        self._expect = settings.expect
        self._statuses = _statuses(settings.expect)

    def open(self) -> socket.socket:
        """Connect and send, as far as that goes without waiting: `unsent` is what is left. Raises `OSError`."""
        connection = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.socket = connection
        self.unsent = b"" if self.connects else self.beginning()
        error = connection.connect_ex(self._address)
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, os.strerror(error))
        if self.connects:
            connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, RESET
            )  # as after an answer: no port in TIME-WAIT
            return connection
        self.send(connection)  # on the loopback, and to a Unix socket, the connection stands already
        return connection

    def beginning(self) -> bytes:
        """What is sent as soon as the connection stands. Raises `OSError`."""
        return self._prelude + self.request

    def send(self, connection: socket.socket) -> None:
        """Send what is unsent, as far as that goes without waiting. Raises `OSError`."""
        try:
            self.unsent = self.unsent[connection.send(self.unsent) :]
        except BlockingIOError:
            return

    def receive(self, connection: socket.socket, buffer: bytearray) -> bytes:
        """The answer as far as it is there; `buffer` bounds it. Raises `OSError`."""
        return bytes(memoryview(buffer)[: connection.recv_into(buffer, 0, socket.MSG_PEEK)])

    def words(self, error: OSError) -> str:
        """Why asking failed, for an operator."""
        return words(error)

    def release(self, connection: socket.socket) -> None:
        """The question is over: close."""
        connection.close()

    def judge(self, seen: bytes, names: NameTable) -> str | None:
        """What the beginning of an answer says: "" if it is good, else why not; None if more must be seen. Raises `BadResponse`."""
        while (end := seen.find(b"\r\n\r\n")) != -1:
            response = parse_response_head(seen[: end + 2], names)
            if response.status >= 200 or response.status == 101:  # nothing follows a 101 that would be HTTP
                return "" if response.status in self._statuses else f"status {response.status}, expected {self._expect}"
            seen = seen[end + 4 :]
        # Whatever is wrong is told now, since the end of such a head may never come.
        if seen[: len(_STATUS_LINE)] != _STATUS_LINE[: len(seen)]:
            raise BadResponse("not an HTTP/1 status line")
        if seen.count(b"\n") != seen.count(b"\r\n"):
            raise BadResponse("a bare LF in the header")
        return None


class Prober:
    """Asks; `on_end(probe, reason)` is called once for each question, with "" if the answer was good, None if nothing was asked.

    That may be within `ask`, where an upstream refuses at once. Nothing here has a deadline: whoever asks has to `drop`.
    """

    def __init__(self, on_end: Callable[[Probe, str | None], None]) -> None:
        self._on_end = on_end
        self._under_way: dict[int, Probe] = {}  # by descriptor
        self._names = NameTable()
        self._seen = bytearray(MAX_HEAD)
        self._epoll: select.epoll | None = None

    def __len__(self) -> int:
        """How many questions are under way."""
        return len(self._under_way)

    def start(self) -> None:
        """Have the running loop watch for answers."""
        self._epoll = select.epoll()
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self.look)

    def close(self) -> None:
        """Drop all. Idempotent."""
        for probe in list(self._under_way.values()):
            self.drop(probe)
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def ask(self, probe: Probe) -> None:
        """Ask, unless this upstream is being asked already."""
        if probe.socket is not None or self._epoll is None:
            return
        try:
            descriptor = probe.open().fileno()
            self._epoll.register(descriptor, _ANSWER | select.EPOLLOUT if probe.unsent or probe.connects else _ANSWER)
        except OSError as error:
            self._end(probe, None if error.errno in _OURS else probe.words(error))
        else:
            self._under_way[descriptor] = probe

    def drop(self, probe: Probe) -> None:
        """Forget a question that is under way; nobody is told."""
        connection, probe.socket = probe.socket, None
        if connection is None:
            return
        descriptor = connection.fileno()
        if self._under_way.pop(descriptor, None) is not None and self._epoll is not None:
            self._epoll.unregister(descriptor)
        probe.release(connection)

    def look(self) -> None:
        """Read what has come by now."""
        if self._epoll is None:
            return
        for descriptor, events in self._epoll.poll(0):
            probe = self._under_way.get(descriptor)
            if probe is None or probe.socket is None:
                continue  # dropped by what an answer before it led to
            reason = self._look_at(probe, probe.socket, ended=bool(events & _ENDED))
            if reason is not None:
                self._end(probe, reason)

    def _look_at(self, probe: Probe, connection: socket.socket, *, ended: bool) -> str | None:
        if probe.connects:
            error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return os.strerror(error).lower() if error else ""
        try:
            if probe.unsent:
                probe.send(connection)
                if probe.unsent:
                    return None
            seen = probe.receive(connection, self._seen)
            reason = probe.judge(seen, self._names)
        except BlockingIOError:
            return None
        except OSError as error:
            return probe.words(error)
        except BadResponse as error:
            return f"not an HTTP answer: {error.detail}"
        if reason is None and len(seen) >= MAX_HEAD:
            return f"not an HTTP answer: a response head of more than {MAX_HEAD} bytes"
        return "connection closed before it answered" if reason is None and (ended or not seen) else reason

    def _end(self, probe: Probe, reason: str | None) -> None:
        self.drop(probe)
        self._on_end(probe, reason)


@lru_cache(maxsize=256)
def _statuses(expect: str) -> frozenset[int]:
    return frozenset(status for statuses in parse_statuses(expect) for status in statuses)


def words(error: OSError) -> str:
    """The system's words for an error."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return str(error).splitlines()[0].lower() if str(error) else type(error).__name__
