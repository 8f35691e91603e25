"""Which pool and which upstream a request goes to: preview before session before canary before who is live.

Synchronous from the load of the word to the count: see `Exchange.claim`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bgproxy.http1.request import RequestFields, cookie_value
from bgproxy.model.pool import POOLS
from bgproxy.proxy.balance import SOURCE_HASH, by_hash, hash_of, pick
from bgproxy.proxy.canary import number_of, side
from bgproxy.proxy.peers import PRIVATE, Networks, client_address
from bgproxy.proxy.sessions import FOLLOW

if TYPE_CHECKING:
    from bgproxy.proxy.client import ClientConnection
    from bgproxy.proxy.runtime import Pool, Service, Upstream
    from bgproxy.proxy.sessions import Pin, SessionRules

_NO_PREVIEW: Final = -1
_LIVE: Final = 2
_IDLE: Final = 3
_PREVIEWS: Final = {POOLS[0].encode(): 0, POOLS[1].encode(): 1, b"live": _LIVE, b"idle": _IDLE}


class Memory:
    """What one header block means to one service; kept with the block, since the one follows from the other."""

    def __init__(self, service: Service, fields: RequestFields, client: ClientConnection) -> None:
        self.service = service
        address = address_of(client, fields)
        self.preview = _preview(service, fields, address)
        self.key = 0
        if service.balance == SOURCE_HASH or service.source_sessions:
            self.key = hash_of(address.encode()) or 1
        self.marks = self.key != 0 or self.preview != _NO_PREVIEW  # an exchange has to know of it
        rules = service.sessions
        self.pin: Pin | None = None
        if rules is not None and fields.cookies:
            self.pin = rules.read(cookie_value(fields.cookies, rules.cookie))
        #: Nothing but who is live decides.
        self.plain = self.preview == _NO_PREVIEW and rules is None and not service.source_sessions


def address_of(client: ClientConnection, fields: RequestFields) -> str:
    """The address of the client, behind trusted proxies."""
    if not client.trusted:
        return client.peer
    # Several lines are one list (RFC 9110 section 5.3): a proxy may have added a line of its own.
    hops = b",".join([value for name, value in fields.forwarding if name == b"x-forwarded-for"])
    return client_address(client.peer, hops.decode("latin-1"), client.context.trusted)


def remember(service: Service, fields: RequestFields, client: ClientConnection) -> Memory:
    """What a block means to a service; it holds until the services change (`Context.generation`)."""
    if not service.simple or fields.extra is not None:
        return Memory(service, fields, client)
    cookie = service.preview_cookie
    if cookie and cookie in fields.cookies:
        return Memory(service, fields, client)
    if service.memory is None:  # this service asks nothing of clients and their blocks: all of them mean the same
        service.memory = Memory(service, fields, client)
    return service.memory


def _preview(service: Service, fields: RequestFields, address: str) -> int:
    """The pool that a tester named; -1 if none did, or somebody who may not."""
    value = b""
    if service.preview_header and fields.extra:
        value = fields.extra.get(service.preview_header, b"")
    if not value and service.preview_cookie and service.preview_cookie in fields.cookies:
        value = cookie_value(fields.cookies, service.preview_cookie)
    if not value:
        return _NO_PREVIEW
    named = _PREVIEWS.get(value.lower(), _NO_PREVIEW)
    if named == _NO_PREVIEW:
        return named
    allow = service.preview_allow
    if allow == "any":
        return named
    networks = PRIVATE if isinstance(allow, str) else Networks(allow)
    # A peer on a Unix socket has no address; whoever may open the socket is of this host.
    return named if not address or networks.holds(address) else _NO_PREVIEW


class Choice:
    """What was chosen: a pool, an upstream if it has one, and what the answer's head gets."""

    def __init__(self, pool: Pool, upstream: Upstream | None, extra: bytes = b"") -> None:
        self.pool = pool
        self.upstream = upstream
        self.extra = extra


def choose(service: Service, memory: Memory, routing: int, client: ClientConnection) -> Choice:
    """Choose for a request that is not `plain`, or in a canary; `routing` has just been loaded from the board."""
    live = routing & 1
    share = routing >> 1
    if memory.preview != _NO_PREVIEW:
        index = live if memory.preview == _LIVE else 1 - live if memory.preview == _IDLE else memory.preview
        pool = service.pools[index]
        return Choice(pool, pick(pool, service.balance, memory.key))
    rules = service.sessions
    if rules is not None:
        return _by_session(service, rules, memory, live, share, client)
    pool = service.pools[live]
    extra = b""
    if share and service.pools[1 - live].ready:  # a canary that is down as a whole is nobody's error
        found = side(service, share, client, address_of(client, client.fields))
        extra = found.extra
        if found.other:
            pool = service.pools[1 - live]
    upstream = by_hash(pool, memory.key) if service.source_sessions else pick(pool, service.balance, memory.key)
    return Choice(pool, upstream, extra)


def _by_session(
    service: Service, rules: SessionRules, memory: Memory, live: int, share: int, client: ClientConnection
) -> Choice:
    pin = memory.pin
    context = client.context
    if pin is None:
        pin = rules.begin(live, b"")
        if share and service.pools[1 - live].ready and _is_canary(service, pin, share, client):
            pin.pool = 1 - live
        pool = service.pools[pin.pool]
        upstream = pick(pool, service.balance, memory.key)
        if upstream is None:
            return Choice(pool, None)
        pin.tag = upstream.tag
        pool.note_session(pin.session)
        return Choice(pool, upstream, rules.write(pin, secure=client.listener.secure))
    index = pin.pool
    if share:
        # Both pools are in service: a session moves with the share if it follows, and else stays where it is.
        if rules.policy == FOLLOW:
            index = 1 - live if _is_canary(service, pin, share, client) else live
        if not service.pools[index].ready:
            index = live
    elif index != live:
        switched_at = context.board.switched_at(service.slot)
        if not rules.stays(pin, live, switched_at, context.now) or not service.pools[index].ready:
            index = live  # moved, or its pool is down as a whole: never an error
    pool = service.pools[index]
    pool.note_session(pin.session)
    upstream = pool.by_tag.get(pin.tag) if index == pin.pool else None
    if upstream is not None and upstream.usable:
        if index == live and rules.expired(pin):  # a new life, for the same pin
            return Choice(pool, upstream, rules.write(rules.begin(index, upstream.tag), secure=client.listener.secure))
        return Choice(pool, upstream)
    # Re-picked by the session's id, so that every worker picks the same and a rollback finds the same again.
    upstream = by_hash(pool, hash_of(pin.session))
    if upstream is None:
        return Choice(pool, None)
    pin.tag = upstream.tag
    pin.pool = index
    if rules.expired(pin):
        rules.renew(pin)
    return Choice(pool, upstream, rules.write(pin, secure=client.listener.secure))


def _is_canary(service: Service, pin: Pin, share: int, client: ClientConnection) -> bool:
    return number_of(pin.session, service, client.context.board.switched_at(service.slot)) < share
