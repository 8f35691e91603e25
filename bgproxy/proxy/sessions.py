"""Cookie sessions: which pool and upstream a client is pinned to, said by a cookie that only we can have written.

The cookie is the whole memory; a worker keeps none, so that all workers and all restarts decide alike. Its value is
base64url(payload) "." base64url(mac): payload is pool (1 byte), time of issue (4, seconds since 1970), session id (8)
and upstream tag (5); mac is keyed BLAKE2b (RFC 7693 section 2.9) over the service's name and the payload, 12 bytes.

What a cookie that names the pool that is not live means, by `on_switch` (product.md section 5):

    follow    nothing: the client goes to the live pool, at once
    finish    the client stays, until the cookie's life (`ttl`, from its first issue) or `drain` from the switch ends
    deadline  the client stays until `drain` from the switch has passed, however long the cookie lives
"""

from __future__ import annotations

import os
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from hmac import compare_digest
from typing import Final

from bgproxy.config.schema import ONLY_SERVICE, Sessions

_PAYLOAD: Final = 18
_MAC: Final = 12
_VALUE: Final = 41  # 24 + "." + 16

FOLLOW: Final = 0
FINISH: Final = 1
DEADLINE: Final = 2
_POLICIES: Final = {"follow": FOLLOW, "finish": FINISH, "deadline": DEADLINE}


def tag_of(upstream_id: str) -> bytes:
    """Five bytes that stand for an upstream in cookies."""
    return blake2b(upstream_id.encode(), digest_size=5).digest()


class Pin:
    """What a valid cookie says."""

    def __init__(self, pool: int, issued: int, session: bytes, tag: bytes) -> None:
        self.pool = pool
        self.issued = issued  # seconds since 1970
        self.session = session
        self.tag = tag

    def __repr__(self) -> str:
        return f"<Pin pool={self.pool} issued={self.issued} session={self.session.hex()}>"


class SessionRules:
    """The cookie sessions of one service."""

    def __init__(self, service: str, settings: Sessions, key: bytes) -> None:
        self.policy = _POLICIES[settings.on_switch]
        self.drain = settings.drain
        self.ttl = int(settings.ttl)
        # Two services on one host must not overwrite each other's pins: the default name carries the service's.
        name = settings.cookie
        if name == Sessions().cookie and service != ONLY_SERVICE:
            name = f"{name}_{service}"
        self.cookie = name.encode()
        self._service = service.encode()
        self._key = key

    def _mac(self, payload: bytes) -> bytes:
        return blake2b(self._service + b"\0" + payload, key=self._key, digest_size=_MAC).digest()

    def read(self, value: bytes) -> Pin | None:
        """The pin in a cookie's value; None if it is absent, of another service, or forged."""
        if len(value) != _VALUE:
            return None
        try:
            payload = urlsafe_b64decode(value[:24])
            mac = urlsafe_b64decode(value[25:])
        except ValueError:
            return None
        if len(payload) != _PAYLOAD or not compare_digest(mac, self._mac(payload)) or payload[0] > 1:
            return None
        return Pin(payload[0], int.from_bytes(payload[1:5], "big"), payload[5:13], payload[13:])

    def write(self, pin: Pin, *, secure: bool = False) -> bytes:
        """A Set-Cookie line for a pin, with its CRLF (RFC 6265 section 4.1); `secure` for a client that came over TLS."""
        payload = bytes([pin.pool]) + pin.issued.to_bytes(4, "big") + pin.session + pin.tag
        value = urlsafe_b64encode(payload) + b"." + urlsafe_b64encode(self._mac(payload))
        left = max(1, pin.issued + self.ttl - int(time.time()))
        end = b"; Secure\r\n" if secure else b"\r\n"
        return b"Set-Cookie: %b=%b; Max-Age=%d; Path=/; HttpOnly; SameSite=Lax" % (self.cookie, value, left) + end

    def stays(self, pin: Pin, live: int, switched_at: float, now: float) -> bool:
        """Whether a pinned client stays on its pool: `now` and `switched_at` are CLOCK_MONOTONIC seconds.

        On the live pool it always does. Off it, `follow` never; the others while the drain since the switch lasts,
        which `finish` ends earlier when the cookie's life does.
        """
        if pin.pool == live:
            return True
        if self.policy == FOLLOW or now >= switched_at + self.drain:
            return False
        return self.policy == DEADLINE or not self.expired(pin)

    def expired(self, pin: Pin) -> bool:
        """Whether the cookie's life is over; one from the future (a clock set back) counts as fresh."""
        return time.time() >= pin.issued + self.ttl

    def renew(self, pin: Pin) -> None:
        """A new life for a pin that was moved when its own was over, else its new cookie would be over at once too."""
        pin.issued = int(time.time())

    def begin(self, pool: int, tag: bytes) -> Pin:
        """A pin for a client that had none."""
        return Pin(pool, int(time.time()), os.urandom(8), tag)
