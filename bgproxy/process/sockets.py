"""Binding: the listening sockets, which are the supervisor's and outlive every worker.

Each worker has a socket of its own for each TCP address (SO_REUSEPORT), so that the kernel spreads the connections and
a dead worker's socket, with the connections waiting in it, can be handed to its successor. A Unix listener is one socket
that all workers accept from, since the kernel has no SO_REUSEPORT for those.

**SO_REUSEPORT and strangers.** It lets any process of the same user share a port, so a second bgproxy would silently take
half of the first one's connections. Hence the first socket of an address is bound without it: that succeeds only where
nobody else listens. It is opened for sharing afterwards, and the others join it. (Linux takes the option after bind(2) too.)
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bgproxy.config.addresses import TcpAddress, UnixAddress, parse_listen
from bgproxy.config.schema import Listen
from bgproxy.errors import StartError

#: Connections that may wait in one socket; the kernel cuts it to net.core.somaxconn.
BACKLOG: Final = 65535

DATA_MODE: Final = 0o660  # of a Unix socket's file: the group is the way to let others in
ADMIN_MODE: Final = 0o600

SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h; the socket module does not name it

#: What binding one of several addresses of a host may fail with while the others do: there is no IPv6 here, say.
_NO_SUCH_ADDRESS: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@dataclass(slots=True)
class Listener:
    """One address as bound: `sockets[i]` is worker i's. A Unix listener's sockets are one and the same object."""

    address: str  # "127.0.0.1:8080", "[::1]:8080", "unix:/run/bgproxy.sock"; port 0 is resolved
    sockets: list[socket.socket]
    _file: tuple[str, int, int] | None = field(default=None, repr=False)  # a Unix socket's path, device, inode
    listen: Listen | None = None  # what it was bound for; None for the admin API

    def turn_away(self) -> None:
        """From now on no connection comes about that is not made yet; those that wait can still be accepted.

        A listening socket that is closed resets what waits in it, and under load something always does. So the first
        packet of every further connection (SYN) is dropped, the queue is served empty, and then the socket is closed: the
        client sends that packet again after a second, and is refused. Of a Unix socket, the file is removed.
        """
        self.unlink()
        for sock in self.sockets:
            if sock.family != socket.AF_UNIX:
                try:
                    _drop_syn(sock)
                except OSError:  # a sandbox without filters: a few may be reset then
                    return

    def unlink(self) -> None:
        """Remove the Unix socket's file, if it is still the one that was made here."""
        if self._file is None:
            return
        path, device, inode = self._file
        self._file = None
        try:
            found = os.lstat(path)
            if (found.st_dev, found.st_ino) == (device, inode):
                os.unlink(path)  # noqa: PTH108 - beside lstat
        except OSError:
            pass  # gone already, or its directory is: nothing is left to clean up

    def close(self) -> None:
        """Close this process's copies. The file stays: see `unlink`."""
        for sock in self.sockets:
            sock.close()


def bind_data(listens: Sequence[Listen | str], workers: int) -> list[Listener]:
    """Bind what the workers accept from; a text stands for a `Listen` that is nothing but its address.

    Raises:
        StartError: an address cannot be bound; none is then.
    """
    listeners: list[Listener] = []
    for each in listens:
        listen = Listen(address=each) if isinstance(each, str) else each
        try:
            bound = _bind_all([listen.address], workers, DATA_MODE, "listen")
        except StartError:
            _discard(listeners)
            raise
        for listener in bound:
            listener.listen = listen
        listeners += bound
    return listeners


def bind_admin(addresses: Sequence[str]) -> list[Listener]:
    """Bind what the controller accepts from: one socket an address, shared with nobody.

    Raises:
        StartError: an address cannot be bound; none is then.
    """
    return _bind_all(addresses, 1, ADMIN_MODE, "admin.listen")


def _bind_all(addresses: Sequence[str], count: int, mode: int, key: str) -> list[Listener]:
    listeners: list[Listener] = []
    try:
        for text in addresses:
            address = parse_listen(text)
            if isinstance(address, UnixAddress):
                listeners.append(_bind_unix(address, count, mode, key))
            else:
                listeners += _bind_tcp(address, count, key)
    except ValueError as error:  # a Config that was not made by the loader
        _discard(listeners)
        raise StartError(f"{key}: {error}") from None
    except StartError:
        _discard(listeners)
        raise
    return listeners


def _discard(listeners: list[Listener]) -> None:
    for listener in listeners:
        listener.unlink()
        listener.close()


# --- TCP ------------------------------------------------------------------------------------------------------------


def _bind_tcp(address: TcpAddress, count: int, key: str) -> list[Listener]:
    """A listener for each address of the host; those that this machine does not have are left out if another is there."""
    listeners: list[Listener] = []
    failure: OSError | None = None
    port = address.port
    for family, host in _hosts(address, key):
        try:
            sockets = _bind_shared(family, host, port, count)
        except OSError as error:
            if error.errno in _NO_SUCH_ADDRESS:
                failure = error
                continue
            _discard(listeners)
            raise StartError(_explain(error, str(TcpAddress(host, port)), key)) from None
        port = sockets[0].getsockname()[1]  # port 0: the host's other addresses get the same one
        listeners.append(Listener(str(TcpAddress(host, port)), sockets))
    if not listeners and failure is not None:
        raise StartError(_explain(failure, str(address), key))
    return listeners


def _hosts(address: TcpAddress, key: str) -> list[tuple[socket.AddressFamily, str]]:
    """The numeric addresses of a host. Every address is two of them, so that a client's address is never ::ffff:1.2.3.4."""
    if not address.host:
        return [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]  # noqa: S104 - as the operator asked
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise StartError(
            f"cannot listen on {address}: the name does not resolve ({error.strerror}); "
            f"write an address of this machine at `{key}`"
        ) from None
    return list(dict.fromkeys((family, str(where[0])) for family, _, _, _, where in found))


def _bind_shared(family: socket.AddressFamily, host: str, port: int, count: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            # Not a way around another server: it lets a successor bind while connections of its predecessor end.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            first = len(sockets) == 1
            if not first:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((host, port))
            if first and count > 1:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                port = sock.getsockname()[1]
        for sock in sockets:
            sock.listen(BACKLOG)
            sock.setblocking(False)
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _drop_syn(sock: socket.socket) -> None:
    """Have the kernel drop the packets that would open a connection (socket(7), SO_ATTACH_FILTER).

    The filter sees the TCP header; its 14th byte has the flags (RFC 9293, section 3.1).
    """
    instructions = b"".join(
        struct.pack("HBBI", *each)
        for each in (
            (0x30, 0, 0, 13),  # ldb [13]
            (0x45, 0, 1, 0x02),  # jset SYN, next, the one after
            (0x06, 0, 0, 0),  # ret 0: drop
            (0x06, 0, 0, 0xFFFFFFFF),  # ret all: take
        )
    )
    program = ctypes.create_string_buffer(instructions)
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 4, ctypes.addressof(program)))


# --- Unix -----------------------------------------------------------------------------------------------------------


def _bind_unix(address: UnixAddress, count: int, mode: int, key: str) -> Listener:
    _remove_stale(address, key)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    former = os.umask(0o777 & ~mode)  # not chmod afterwards: at no moment may others connect
    try:
        sock.bind(address.path)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise StartError(_explain(error, str(address), key)) from None
    finally:
        os.umask(former)
    sock.setblocking(False)
    made = os.lstat(address.path)
    return Listener(str(address), [sock] * count, (address.path, made.st_dev, made.st_ino))


def _remove_stale(address: UnixAddress, key: str) -> None:
    """Remove the socket file of a server that has died; whoever answers there is alive."""
    try:
        found = os.lstat(address.path)
    except OSError:
        return  # nothing there; if the directory is missing, bind(2) says so
    if not stat.S_ISSOCK(found.st_mode):
        raise StartError(
            f"cannot listen on {address}: the file exists and is not a socket; "
            f"move it away, or write another path at `{key}`"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a live server with a full queue is EAGAIN at once
        try:
            probe.connect(address.path)
        except ConnectionRefusedError:
            Path(address.path).unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass
        except OSError as error:
            raise StartError(_explain(error, str(address), key)) from None
    raise StartError(_explain(OSError(errno.EADDRINUSE, ""), str(address), key))


# --- what to do about it --------------------------------------------------------------------------------------------


def _explain(error: OSError, address: str, key: str) -> str:
    """One sentence on what went wrong, and one on the way on."""
    port = address.rpartition(":")[2]
    match error.errno:
        case errno.EADDRINUSE if address.startswith("unix:"):
            cause = f"another process answers there; stop it, or write another path at `{key}`"
        case errno.EADDRINUSE:
            cause = (
                f"another process listens there; stop it (ss -ltnp 'sport = :{port}' names it), "
                f"or write another port at `{key}`"
            )
        case errno.EACCES | errno.EPERM if address.startswith("unix:"):
            cause = f"permission denied; make its directory writable for this user, or write another path at `{key}`"
        case errno.EACCES | errno.EPERM:
            cause = (
                "permission denied; ports below 1024 need the capability CAP_NET_BIND_SERVICE "
                f"(setcap, or AmbientCapabilities= of systemd), or write a higher port at `{key}`"
            )
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            cause = f"this machine has no such address; `ip address` lists them, write one of those at `{key}`"
        case errno.ENOENT:
            cause = f"its directory does not exist; create it, or write another path at `{key}`"
        case _:
            cause = f"{error.strerror or error}; write another address at `{key}`"
    return f"cannot listen on {address}: {cause}"
