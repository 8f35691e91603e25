"""Who may do what: bearer tokens and their roles.

Where no tokens are configured and every listener is local (loopback or a Unix socket), who can connect is `anonymous`
and may do everything. With tokens, who sends none gets only what is public. A token's text is never logged; only its
digest is kept, and all of them are compared, each in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from bgproxy.admin.problems import Problem
from bgproxy.config.schema import Admin, Role, Token
from bgproxy.config.tokens import content_of, token_in
from bgproxy.errors import StartError

log = logging.getLogger("bgproxy.admin")

#: Each role may do what those before it may.
ROLES: Final[tuple[Role, ...]] = ("viewer", "operator", "admin")

ANONYMOUS: Final = "anonymous"

_LOCAL_NAMES: Final = frozenset({"localhost", "localhost."})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a token's name, or `anonymous`; what they may do (None: public things only); where from."""

    name: str
    role: Role | None
    address: str

    def may(self, role: Role | None) -> bool:
        """Whether the caller may do what takes `role`; None is public."""
        return role is None or (self.role is not None and ROLES.index(self.role) >= ROLES.index(role))


def host_of(listen: str) -> str:
    """The host of `host:port`, lower-case, an IPv6 literal without its brackets; "" for any address and Unix sockets."""
    if listen.startswith("unix:"):
        return ""
    return listen.rpartition(":")[0].strip("[]").lower()


def is_loopback(host: str) -> bool:
    """Whether a name or literal stands for this machine alone."""
    if host in _LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_local(listen: str) -> bool:
    """Whether only processes of this machine can connect to a listener."""
    return listen.startswith("unix:") or is_loopback(host_of(listen))


def read_token(token: Token) -> str:
    """The text of a token.

    Raises:
        StartError: its file or variable cannot be read, or holds no token.
    """
    if token.token_file is not None:
        source = f"the file {token.token_file}"
        try:
            text, _ = content_of(Path(token.token_file))
        except OSError as error:
            raise StartError(f"admin token {token.name!r}: {source} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise StartError(f"admin token {token.name!r}: {source} {error}") from None
    else:
        source = f"the environment variable {token.token_env}"
        text = os.environ.get(token.token_env or "", "")
    try:
        return token_in(text)
    except ValueError as error:
        raise StartError(f"admin token {token.name!r}: {source} {error}") from None


class Authority:
    """Knows the tokens, and says who a request comes from.

    `admin` gives the settings in force: after a reload they are another object, and the tokens are read again.
    """

    def __init__(self, admin: Callable[[], Admin]) -> None:
        self._admin = admin
        self._seen = admin()
        self._open = self._anyone(self._seen)
        if not self._seen.tokens and not self._open:
            raise StartError(
                f"admin.listen {', '.join(self._seen.listen)}: an address beyond this machine needs admin.tokens;"
                " or listen on 127.0.0.1 or on a Unix socket"
            )
        self._digests = [(_digest(read_token(token)), token) for token in self._seen.tokens]

    def caller(self, request: web.Request, *, strict: bool = True) -> Caller:
        """Who asks; one without a token is `anonymous`.

        Raises:
            Problem: 401, when `strict` and a token was sent that is not one of ours.
        """
        self._refresh()
        address = peer_of(request)
        if self._open:
            return Caller(ANONYMOUS, "admin", address)
        said = request.headers.get("Authorization")
        if said is None:
            return Caller(ANONYMOUS, None, address)
        scheme, _, text = said.partition(" ")
        found: Token | None = None
        if scheme.lower() == "bearer":
            digest = _digest(text.strip())
            for known, token in self._digests:  # all of them: the time taken says nothing about which
                if hmac.compare_digest(known, digest):
                    found = token
        if found is None:
            if not strict:
                return Caller(ANONYMOUS, None, address)
            raise unauthorized("The token is not a known one.", 'Bearer realm="bgproxy", error="invalid_token"')
        return Caller(found.name, found.role, address)

    def require(self, caller: Caller, role: Role | None) -> None:
        """Pass a caller who may do what takes `role`; else raises `Problem`: 401 without a token, 403 with one."""
        if caller.may(role):
            return
        if caller.role is None:
            raise unauthorized(f"This needs a token with the role {role}.")
        raise Problem("forbidden", f"This needs the role {role}; the token {caller.name!r} has the role {caller.role}.")

    @staticmethod
    def _anyone(admin: Admin) -> bool:
        return not admin.tokens and all(is_local(listen) for listen in admin.listen)

    def _refresh(self) -> None:
        admin = self._admin()
        if admin is self._seen:
            return
        self._seen, self._open, self._digests = admin, self._anyone(admin), []
        for token in admin.tokens:
            try:
                self._digests.append((_digest(read_token(token)), token))
            except StartError as error:  # closed rather than open: it is not valid until the next reload
                log.error("%s; it is refused until the next reload", error)  # noqa: TRY400 - the text says it all


def unauthorized(detail: str, challenge: str = 'Bearer realm="bgproxy"') -> Problem:
    """A 401 with the challenge that RFC 6750 section 3 asks for."""
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": challenge})


def peer_of(request: web.Request) -> str:
    """Where a request comes from: an address, or for a Unix socket who is at its other end, as the kernel says."""
    if request.transport is None:
        return "gone"
    peer = request.transport.get_extra_info("peername")
    if isinstance(peer, tuple) and peer:
        return str(peer[0])
    sock = request.transport.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_UNIX:
        pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return f"unix:uid={uid},pid={pid}"
    return "unknown"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
