"""The states of the two kinds of connections of a worker, and of the tunnel that two can become, and their tables.

A worker steps through these tables for every request, so they are also had flat: `flatten` makes a list in which
`states * event + state` holds the next state, or -1 where the table has none.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

from bgproxy.model.machine import IllegalTransition, Table


class ClientState(IntEnum):
    """A connection from a client."""

    IDLE = 0  # nothing of a next request has come
    HEAD = 1  # some bytes of a head have
    BUSY = 2  # a request is being answered
    TUNNEL = 3  # upgraded: bytes go through untouched
    LINGERING = 4  # answered for the last time; what still comes is thrown away, so that the answer is read
    CLOSED = 5


class ClientEvent(IntEnum):
    """What happens to a connection from a client."""

    BYTES = 0  # the beginning of a head
    REQUEST = 1  # a head is complete
    ANSWERED = 2  # the answer is complete, and another request may follow
    UPGRADED = 3
    ENDING = 4  # the last answer is complete
    LOST = 5
    EMPTY = 6  # the bytes were an empty line, and nothing of a head


_C, _D = ClientState, ClientEvent

CLIENT_TABLE: Final = Table(
    "client connection",
    _C.IDLE,
    {
        (_C.IDLE, _D.BYTES): _C.HEAD,
        (_C.IDLE, _D.REQUEST): _C.BUSY,
        (_C.HEAD, _D.BYTES): _C.HEAD,
        (_C.HEAD, _D.REQUEST): _C.BUSY,
        (_C.HEAD, _D.EMPTY): _C.IDLE,
        (_C.BUSY, _D.ANSWERED): _C.IDLE,
        (_C.BUSY, _D.UPGRADED): _C.TUNNEL,
        (_C.IDLE, _D.ENDING): _C.LINGERING,
        (_C.HEAD, _D.ENDING): _C.LINGERING,
        (_C.BUSY, _D.ENDING): _C.LINGERING,
        (_C.TUNNEL, _D.ENDING): _C.LINGERING,
        **{(state, _D.LOST): _C.CLOSED for state in _C},
    },
)


class ServerState(IntEnum):
    """A connection to an upstream."""

    CONNECTING = 0
    IDLE = 1  # kept for the next request
    WAITING = 2  # a request is being sent or is sent; nothing of the answer has come
    ANSWERING = 3  # the head of the answer has come
    TUNNEL = 4
    CLOSED = 5


class ServerEvent(IntEnum):
    """What happens to a connection to an upstream."""

    CONNECTED = 0
    CLAIMED = 1  # a request is given to it
    HEAD = 2  # the final head of an answer
    ANSWERED = 3  # the answer is complete, and it may be used again
    UPGRADED = 4
    LOST = 5


_S, _E = ServerState, ServerEvent

SERVER_TABLE: Final = Table(
    "upstream connection",
    _S.CONNECTING,
    {
        (_S.CONNECTING, _E.CONNECTED): _S.IDLE,
        (_S.IDLE, _E.CLAIMED): _S.WAITING,
        (_S.WAITING, _E.HEAD): _S.ANSWERING,
        (_S.WAITING, _E.UPGRADED): _S.TUNNEL,
        (_S.ANSWERING, _E.ANSWERED): _S.IDLE,
        **{(state, _E.LOST): _S.CLOSED for state in _S},
    },
)


class TunnelState(IntEnum):
    """An upgraded connection. A side that has answered our Close frame (RFC 6455 section 5.5.1), or ended, says no more."""

    OPEN = 0
    CLIENT_ENDED = 1  # half-closed: only the upstream sends
    SERVER_ENDED = 2
    RESTARTING = 3  # both sides are told to end
    CLIENT_ANSWERED = 4  # and the client has said that it does
    SERVER_ANSWERED = 5
    OVER = 6


class TunnelEvent(IntEnum):
    """What happens to an upgraded connection."""

    CLIENT_END = 0  # it sends no more
    SERVER_END = 1
    RESTART = 2  # a drain's deadline, or bgproxy stops
    CLIENT_ANSWER = 3  # its Close frame
    SERVER_ANSWER = 4
    END = 5  # at once, for whatever reason


_T, _W = TunnelState, TunnelEvent

TUNNEL_TABLE: Final = Table(
    "tunnel",
    _T.OPEN,
    {
        (_T.OPEN, _W.CLIENT_END): _T.CLIENT_ENDED,
        (_T.OPEN, _W.SERVER_END): _T.SERVER_ENDED,
        (_T.CLIENT_ENDED, _W.SERVER_END): _T.OVER,
        (_T.SERVER_ENDED, _W.CLIENT_END): _T.OVER,
        (_T.OPEN, _W.RESTART): _T.RESTARTING,
        (_T.CLIENT_ENDED, _W.RESTART): _T.CLIENT_ANSWERED,
        (_T.SERVER_ENDED, _W.RESTART): _T.SERVER_ANSWERED,
        (_T.RESTARTING, _W.CLIENT_ANSWER): _T.CLIENT_ANSWERED,
        (_T.RESTARTING, _W.SERVER_ANSWER): _T.SERVER_ANSWERED,
        (_T.CLIENT_ANSWERED, _W.CLIENT_ANSWER): _T.CLIENT_ANSWERED,
        (_T.CLIENT_ANSWERED, _W.SERVER_ANSWER): _T.OVER,
        (_T.SERVER_ANSWERED, _W.SERVER_ANSWER): _T.SERVER_ANSWERED,
        (_T.SERVER_ANSWERED, _W.CLIENT_ANSWER): _T.OVER,
        **{
            (state, event): _T.OVER
            for state in (_T.RESTARTING, _T.CLIENT_ANSWERED, _T.SERVER_ANSWERED)
            for event in (_W.CLIENT_END, _W.SERVER_END)
        },
        **{(state, _W.END): _T.OVER for state in _T},
    },
)


def flatten(table: Table[Any, Any]) -> list[int]:
    """A table as a list: `[event * states + state]` is the next state, -1 where there is none."""
    kind: type[IntEnum] = type(table.initial)
    states = len(kind)
    events = len({event for _, event in table.transitions})
    flat = [-1] * (states * events)
    for (state, event), after in table.transitions.items():
        flat[int(event) * states + int(state)] = int(after)
    return flat


CLIENT_STEPS: Final = flatten(CLIENT_TABLE)
SERVER_STEPS: Final = flatten(SERVER_TABLE)
TUNNEL_STEPS: Final = flatten(TUNNEL_TABLE)


def illegal(name: str, state: int, event: int) -> IllegalTransition:
    """The exception for a step that a flat table does not have."""
    return IllegalTransition(f"{name}: event {event} in state {state}")
