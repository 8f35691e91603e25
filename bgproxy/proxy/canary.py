"""On which side of a canary a client is: the same one in all workers, and for as long as the share does not fall below it.

A client has a number from 0 to 99, a hash of who it is, of the service and of when that last switched; those whose number is below the
share (per cent) go to the pool that is not live. So a share that grows takes clients along and sends none back, and each
deployment begins with others, and each service. Who a client is says its session, where sessions are pinned; else a cookie that it is given (as
Traefik and the ingresses of Kubernetes do it), or its address, by `strategy.sticky`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from bgproxy.config.schema import ONLY_SERVICE
from bgproxy.http1.request import cookie_value
from bgproxy.proxy.balance import hash_of

if TYPE_CHECKING:
    from bgproxy.proxy.client import ClientConnection
    from bgproxy.proxy.runtime import Pool, Service

COOKIE: Final = "bgproxy_canary"
_ID: Final = 16  # hexadecimal digits
_DIGITS: Final = b"0123456789abcdef"
#: Seconds that a browser keeps it: longer than a strategy takes.
_MAX_AGE: Final = 86400


def cookie_of(service: str) -> bytes:
    """The name of the cookie: services of one host have one each."""
    return (COOKIE if service == ONLY_SERVICE else f"{COOKIE}_{service}").encode()


def number_of(who: bytes, service: Service, switched_at: float) -> int:
    """The number of a client, 0 to 99; `switched_at` is the service's, from the switchboard: that of others may be the same."""
    return hash_of(b"%b@%d@%b" % (who, int(switched_at * 1e6), service.canary_cookie)) % 100


def canary_of(service: Service, routing: int, address: str, switched_at: float) -> Pool:
    """The pool of a connection in mode tcp: it has no cookie, so its address decides, or, without `source`, chance."""
    other = service.pools[1 - (routing & 1)]
    who = address.encode() if service.canary_by_address else os.urandom(_ID)
    taken = bool(other.ready) and number_of(who, service, switched_at) < routing >> 1
    return other if taken else service.pools[routing & 1]


class Side:
    """Whether a client goes to the pool that is not live, and what the head of its answer gets."""

    def __init__(self, other: bool, extra: bytes = b"") -> None:
        self.other = other
        self.extra = extra


def side(service: Service, share: int, client: ClientConnection, address: str) -> Side:
    """The side of a client without a pinned session; `address` is its own, behind trusted proxies."""
    switched_at = client.context.board.switched_at(service.slot)
    if service.canary_by_address:
        return Side(number_of(address.encode(), service, switched_at) < share)
    name = service.canary_cookie
    cookies = client.fields.cookies
    who = cookie_value(cookies, name) if name in cookies else b""
    extra = b""
    if len(who) != _ID or who.translate(None, _DIGITS):
        who = os.urandom(_ID // 2).hex().encode()
        secure = b"; Secure\r\n" if client.listener.secure else b"\r\n"
        extra = b"Set-Cookie: %b=%b; Max-Age=%d; Path=/; HttpOnly; SameSite=Lax" % (name, who, _MAX_AGE) + secure
    return Side(number_of(who, service, switched_at) < share, extra)
