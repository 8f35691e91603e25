"""Asks the upstreams of the idle pool, past the workers: what checks, comparisons and warm-ups have in common.

Whatever happens is an `Answer`. Live users are not touched: no worker, no live upstream, and no counter of theirs has a part in it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from bgproxy import __version__
from bgproxy.config.addresses import host_of, is_secure
from bgproxy.config.schema import MiB
from bgproxy.config.units import format_duration
from bgproxy.control.deployments.wire import Kind, Reply, Unanswered, Way, Wire
from bgproxy.control.registry import Pool, Service, Upstream
from bgproxy.control.watching import PRELUDES
from bgproxy.http1.names import NameTable
from bgproxy.http1.request import is_token

#: Who asks, as upstreams see it.
USER_AGENT: Final = f"bgproxy/{__version__} check"

#: Bytes of a body that are kept, unless said otherwise.
BODY_BYTES: Final = 1 * MiB

#: Connections to an upstream that are kept for the next question.
MAX_IDLE: Final = 64

_SAFE: Final = ("GET", "HEAD", "OPTIONS")

#: Fields that are the connection's business, and how long the body is: both are decided here.
_OURS: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an upstream has answered, or why it has not."""

    seconds: float
    status: int = 0  # 0: there is no answer
    headers: tuple[tuple[str, str], ...] = ()  # latin-1
    body: bytes = b""  # as it came: a content coding is still on it
    cut: bool = False  # the body was longer than what is kept
    reason: str = ""  # why there is none
    kind: Kind = ""  # the same in a word

    def header(self, name: str) -> str | None:
        """The value of a field, those of one that came more than once with ", " between; None without."""
        values = [value for field, value in self.headers if field.lower() == name.lower()]
        return ", ".join(values) if values else None


def authority(service: Service, upstream: Upstream) -> str:
    """What upstreams are asked for: the first host of the service's routes that is no wildcard, else what their URL names."""
    for host in service.settings.match.hosts:
        if not host.startswith("*"):
            return host
    if isinstance(upstream.address, str):
        return "localhost"
    return urlsplit(upstream.url).netloc.removesuffix(":443" if is_secure(upstream.url) else ":80")


def way_to(service: Service, pool: Pool, upstream: Upstream) -> Way:
    """How an upstream is reached, as the pool's settings have it."""
    secure = is_secure(upstream.url)
    return Way(
        id=upstream.id,
        address=upstream.address,
        host=authority(service, upstream),
        prelude=PRELUDES[pool.send_proxy],
        tls=pool.tls if secure else None,
        server_name=(pool.tls.server_name or host_of(upstream.url)) if secure else "",
    )


def request_bytes(
    method: str, target: str, host: str, headers: Iterable[tuple[str, str]], body: bytes, *, copied: bool = False
) -> bytes:
    """A request, whole; `headers` go before our own of the same name, but framing is decided here.

    One that is `copied` says nothing of who asks and of what is accepted, unless `headers` do.

    Raises:
        ValueError: something in it cannot be sent, and what.
    """
    if not is_token(method.encode("latin-1", "replace")) or method == "CONNECT":
        raise ValueError(f"{method!r} is not a method that can be sent")
    if not target.isascii() or not target.isprintable() or " " in target or not target.startswith(("/", "*", "http")):
        raise ValueError(f"{target!r} is not a path: write it as /cart?id=1, with %20 for a space and the like")
    given = [(name, value) for name, value in headers if name.lower() not in _OURS]
    names = {name.lower() for name, _ in given}
    lines = [f"{method} {target} HTTP/1.1"]
    defaults = (("Host", host), ("User-Agent", USER_AGENT), ("Accept", "*/*"))[: 1 if copied else 3]
    lines += [f"{name}: {value}" for name, value in defaults if name.lower() not in names]
    for name, value in given:
        if not is_token(name.encode("latin-1", "replace")):
            raise ValueError(f"{name!r} is not the name of a header")
        if any(char in value for char in "\r\n\0"):
            raise ValueError(f"the value of {name} has a line break in it")
        lines.append(f"{name}: {value}")
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join([*lines, "", ""])
    try:
        return head.encode("latin-1") + body
    except UnicodeEncodeError:
        return head.encode() + body


class Caller:
    """Asks the upstreams of one pool; `body_bytes` of an answer's body are kept. Close it: it holds connections."""

    def __init__(self, service: Service, pool: Pool, *, body_bytes: int = BODY_BYTES) -> None:
        self._service = service
        self._pool = pool
        self._keep = body_bytes
        self._names = NameTable()
        self._idle: dict[Way, deque[Wire]] = {}
        self._busy: set[Wire] = set()

    def upstreams(self) -> list[Upstream]:
        """Those that are not out by hand."""
        return [upstream for upstream in self._pool.upstreams if not upstream.by_hand]

    async def ask(
        self,
        upstream: Upstream,
        method: str,
        target: str,
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        head_only: bool = False,
        copied: bool = False,
        timeout: float,  # noqa: ASYNC109 - what its end is belongs into the answer
    ) -> Answer:
        """Ask one upstream, and have all of its answer within `timeout` seconds; nothing is raised but `CancelledError`.

        With `head_only` its body is not waited for: it ends with its head, and the connection with it. `copied`: see `request_bytes`.
        """
        way = way_to(self._service, self._pool, upstream)
        began = time.monotonic()
        try:
            request = request_bytes(method, target, way.host, headers, body, copied=copied)
            async with asyncio.timeout(timeout):
                reply = await self._exchange(way, method, request, head_only=head_only)
        except ValueError as error:
            return Answer(seconds=0.0, reason=str(error), kind="other")
        except TimeoutError:
            reason = f"timed out after {format_duration(timeout)}"
            return Answer(seconds=time.monotonic() - began, reason=reason, kind="timed out")
        except Unanswered as error:
            return Answer(seconds=time.monotonic() - began, reason=str(error), kind=error.kind)
        return Answer(
            seconds=time.monotonic() - began,
            status=reply.status,
            headers=reply.fields,
            body=reply.body,
            cut=reply.cut,
        )

    async def _exchange(self, way: Way, method: str, request: bytes, *, head_only: bool) -> Reply:
        kept = self._idle.get(way)
        while kept and method in _SAFE:
            wire = kept.pop()
            if not wire.reusable:
                continue
            try:
                return await self._over(wire, way, method, request, head_only=head_only)
            except Unanswered as error:
                if error.fresh:
                    raise
        wire = Wire(way, self._names)
        self._busy.add(wire)
        try:
            await wire.open()
        finally:
            self._busy.discard(wire)
        return await self._over(wire, way, method, request, head_only=head_only)

    async def _over(self, wire: Wire, way: Way, method: str, request: bytes, *, head_only: bool) -> Reply:
        self._busy.add(wire)
        bodyless = method == "HEAD"
        try:
            reply = await wire.ask(request, head_only=bodyless or head_only, keep=self._keep, whole=False)
        except BaseException:
            wire.close()
            raise
        finally:
            self._busy.discard(wire)
        kept = self._idle.setdefault(way, deque())
        if wire.reusable and len(kept) < MAX_IDLE and (bodyless or not head_only):
            kept.append(wire)
        else:
            wire.close()
        return reply

    def close(self) -> None:
        """End all connections; what is under way is answered with a reason. Idempotent."""
        for kept in self._idle.values():
            for wire in kept:
                wire.close()
        self._idle.clear()
        for wire in list(self._busy):
            wire.close()
