"""WebSockets by the `websockets` library: what both ends see through the proxy is what they see directly.

Each scenario is played twice, client to server, and client to proxy to server, and everything that either end could notice
is compared: the handshake, every frame (after decompression), and how the connection ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket as sockets
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import pytest
from support.dataplane import DataPlane
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory
from websockets.frames import Frame

PATIENCE = 20.0
MIB = 1 << 20

Part = Callable[[Any], Awaitable[None]]

#: What a proxy on the way changes in a handshake: hop by hop, added for the upstream, or different every time.
ON_THE_WAY = {
    "connection",
    "upgrade",
    "date",
    "host",
    "via",
    "sec-websocket-key",
    "sec-websocket-accept",
    "x-request-id",
}
FORWARDED = "x-forwarded-"


class Recording:
    """Keeps the frames that an end gets."""

    frames: list[tuple[Any, ...]]

    def process_event(self, event: Any) -> None:
        if isinstance(event, Frame):
            data = bytes(event.data)
            shown = data if len(data) < 200 else (len(data), hashlib.sha256(data).hexdigest())
            self.__dict__.setdefault("frames", []).append((event.opcode.name, event.fin, shown))
        super().process_event(event)  # type: ignore[misc]


class Client(Recording, ClientConnection):
    pass


class Server(Recording, ServerConnection):
    pass


async def echo(socket: Connection) -> None:
    """The server that most scenarios have: every message back, until the end."""
    async for message in socket:
        await socket.send(message)


async def nothing(socket: Connection) -> None:
    """Says nothing, and reads until the end."""
    async for _ in socket:
        pass


@dataclass(frozen=True)
class Play:
    """One scenario: what each end does; the rest are arguments of `connect` and `serve`."""

    client: Part
    server: Part = echo
    connect: dict[str, Any] = field(default_factory=dict)
    serve: dict[str, Any] = field(default_factory=dict)


async def run(play: Play, *, proxied: bool) -> dict[str, Any]:
    """Play it; returns what both ends saw."""
    seen: dict[str, Any] = {}
    ended = asyncio.Event()

    async def handler(socket: Connection) -> None:
        try:
            with contextlib.suppress(ConnectionClosed):
                await play.server(socket)
            await socket.wait_closed()
        finally:
            seen["server"] = _end(socket)
            ended.set()

    serving = serve(handler, "127.0.0.1", 0, create_connection=Server, close_timeout=5, **play.serve)
    async with asyncio.timeout(PATIENCE), serving as server, contextlib.AsyncExitStack() as stack:
        port = next(iter(server.sockets)).getsockname()[1]
        if proxied:
            plane = await stack.enter_async_context(DataPlane())
            await plane.serve(port)
            port = plane.port
        url = f"ws://127.0.0.1:{port}/chat/room%20one?a=1&b=%2F"
        how = {"max_size": None} | play.connect
        try:
            async with connect(url, create_connection=Client, proxy=None, close_timeout=5, **how) as socket:
                with contextlib.suppress(ConnectionClosed):
                    await play.client(socket)
                await socket.close()
                await socket.wait_closed()
                seen["client"] = _end(socket)
            await ended.wait()
        except InvalidHandshake as error:
            seen["client"] = _refusal(error)
    return seen


def _end(socket: Any) -> dict[str, Any]:
    request, response = socket.request, socket.response
    protocol = socket.protocol
    return {
        "request": (request.path, _fields(request.headers)),
        "response": (response.status_code, response.reason_phrase, _fields(response.headers)),
        "subprotocol": socket.subprotocol,
        "extensions": [str(each) for each in protocol.extensions],
        "frames": socket.__dict__.get("frames", []),
        "code": socket.close_code,
        "reason": socket.close_reason,
        "received": protocol.close_rcvd,
        "sent": protocol.close_sent,
        "received first": protocol.close_rcvd_then_sent,
    }


def _fields(headers: Any) -> list[tuple[str, str]]:
    return [
        (name.lower(), value)
        for name, value in headers.raw_items()
        if name.lower() not in ON_THE_WAY and not name.lower().startswith(FORWARDED)
    ]


def _refusal(error: InvalidHandshake) -> dict[str, Any]:
    if not isinstance(error, InvalidStatus):
        return {"error": type(error).__name__, "text": str(error)}
    response = error.response
    return {
        "error": type(error).__name__,
        "status": response.status_code,
        "reason": response.reason_phrase,
        "body": response.body,
        "headers": _fields(response.headers),
    }


async def both_ways(play: Play) -> dict[str, Any]:
    """What both ends see directly, which must be what they see through the proxy."""
    direct = await run(play, proxied=False)
    proxied = await run(play, proxied=True)
    assert proxied == direct
    return direct


# --- messages -------------------------------------------------------------------------------------------------------

MESSAGES: list[Any] = [
    "",
    b"",
    "hello",
    "Grüße, 世界 \U0001f600",
    b"\x00\xff" * 60,
    "x" * 125,
    "x" * 126,
    b"y" * 65535,
    b"z" * 65536,
]


async def test_messages_of_every_length() -> None:
    """Text and binary, empty, with 7, 16 and 64 bits of length; echoed as they were."""

    async def client(socket: Any) -> None:
        for message in MESSAGES:
            await socket.send(message)
            assert await socket.recv() == message

    seen = await both_ways(Play(client))
    assert len(seen["server"]["frames"]) >= len(MESSAGES)
    assert (seen["client"]["code"], seen["server"]["code"]) == (1000, 1000)


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_messages_of_a_mebibyte(compression: str | None) -> None:
    """One frame of 1 MiB each way, several in flight at a time; and as 64 fragments."""
    bodies = [hashlib.shake_256(bytes([number])).digest(MIB) for number in range(3)]

    async def client(socket: Any) -> None:
        for body in bodies:
            await socket.send(body)
        for body in bodies:
            assert await socket.recv() == body
        pieces = [bodies[0][at : at + 16384] for at in range(0, MIB, 16384)]
        await socket.send(iter(pieces))
        assert await socket.recv() == bodies[0]

    seen = await both_ways(Play(client, connect={"compression": compression}, serve={"max_size": None}))
    assert sum(frame[0] in ("BINARY", "CONT") for frame in seen["server"]["frames"]) >= 3 + 64


async def test_fragments_keep_their_boundaries() -> None:
    """Each fragment arrives as the one that was sent, from either side; empty ones too."""

    async def server(socket: Any) -> None:
        assert await socket.recv() == "in three parts"
        await socket.send(iter([b"\x01", b"", b"\x02\x03"]))

    async def client(socket: Any) -> None:
        await socket.send(iter(["in ", "", "three ", "parts"]))
        assert await socket.recv() == b"\x01\x02\x03"

    seen = await both_ways(Play(client, server))
    texts = [frame for frame in seen["server"]["frames"] if frame[0] in ("TEXT", "CONT")]
    assert [frame[2] for frame in texts][:4] == [b"in ", b"", b"three ", b"parts"]


async def test_pings_and_pongs_of_both_sides() -> None:
    """With and without payload, answered by the other end and not by the proxy; unasked pongs; a ping between two fragments."""

    async def server(socket: Any) -> None:
        assert await socket.recv() == "ready"
        await asyncio.wait_for(await socket.ping(b"from the server"), 5)
        await socket.pong(b"unasked")
        await echo(socket)

    async def client(socket: Any) -> None:
        await socket.send("ready")
        await asyncio.wait_for(await socket.ping(b"from the client"), 5)
        await asyncio.wait_for(await socket.ping(b""), 5)
        await asyncio.wait_for(await socket.ping(b"p" * 125), 5)
        await socket.pong(b"unasked too")
        async with socket.send_context():
            socket.protocol.send_text(b"be", fin=False)
            socket.protocol.send_ping(b"within")
            socket.protocol.send_continuation(b"tween", fin=True)
        assert await socket.recv() == "between"

    seen = await both_ways(Play(client, server, connect={"ping_interval": None}, serve={"ping_interval": None}))
    assert ("PONG", True, b"from the client") in seen["client"]["frames"]
    assert ("PONG", True, b"from the server") in seen["server"]["frames"]
    assert ("PING", True, b"within") in seen["server"]["frames"]


async def test_what_the_server_says_at_once_is_not_lost() -> None:
    """Frames that come right behind the 101, maybe in its packet."""

    async def server(socket: Any) -> None:
        for number in range(5):
            await socket.send(f"{number}")
        await socket.close(1000, "that was all")

    async def client(socket: Any) -> None:
        assert [message async for message in socket] == ["0", "1", "2", "3", "4"]

    seen = await both_ways(Play(client, server))
    assert seen["client"]["reason"] == "that was all"


async def test_a_slow_reader_gets_everything() -> None:
    """Eight messages of 1 MiB to a server that reads late: held back, and none lost."""
    body = hashlib.shake_256(b"slow").digest(MIB)
    sent = asyncio.Event()

    async def server(socket: Any) -> None:
        await asyncio.sleep(0.05)  # not for a condition: this is how slow it is
        count = 0
        async for message in socket:
            count += message == body
            if count == 8:
                await socket.send(f"{count}")

    async def client(socket: Any) -> None:
        for _ in range(8):
            await socket.send(body)
        sent.set()
        assert await socket.recv() == "8"

    await both_ways(Play(client, server, connect={"compression": None}, serve={"max_size": None, "max_queue": 1}))
    assert sent.is_set()


# --- the end --------------------------------------------------------------------------------------------------------

CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
REASONS = ["", "as you wish", "tschüß", "r" * 123]


@pytest.mark.parametrize("code", CODES)
async def test_close_codes_of_the_client(code: int) -> None:
    """The server hears the code and the reason that the client gave, and the client its own back."""
    reason = REASONS[code % len(REASONS)]

    async def client(socket: Any) -> None:
        await socket.close(code, reason)

    seen = await both_ways(Play(client))
    for end in ("client", "server"):
        assert (seen[end]["code"], seen[end]["reason"]) == (code, reason)


@pytest.mark.parametrize("code", CODES)
async def test_close_codes_of_the_server(code: int) -> None:
    """The other way round."""
    reason = REASONS[code % len(REASONS)]

    async def server(socket: Any) -> None:
        await socket.close(code, reason)

    seen = await both_ways(Play(nothing, server))
    for end in ("client", "server"):
        assert (seen[end]["code"], seen[end]["reason"]) == (code, reason)


@pytest.mark.parametrize("closer", ["client", "server"])
async def test_a_close_without_a_code(closer: str) -> None:
    """An empty Close frame stays empty: 1005 at both ends."""

    async def close(socket: Any) -> None:
        async with socket.send_context():
            socket.protocol.send_close()

    play = Play(close) if closer == "client" else Play(nothing, close)
    seen = await both_ways(play)
    assert (seen["client"]["code"], seen["server"]["code"]) == (1005, 1005)


async def test_both_sides_close_at_the_same_time() -> None:
    """Two Close frames that cross."""
    gate = asyncio.Barrier(2)

    async def close(socket: Any) -> None:
        await gate.wait()
        await socket.close(4000, "crossed")

    # Which of them hears the other before it has spoken itself is chance, directly too.
    for proxied in (False, True):
        seen = await run(Play(close, close), proxied=proxied)
        for end in ("client", "server"):
            assert (seen[end]["code"], seen[end]["reason"]) == (4000, "crossed")
            assert seen[end]["received"] == seen[end]["sent"]


async def abort(socket: Any) -> None:
    """Gone without a Close frame."""
    await _greet(socket)
    socket.transport.abort()


async def reset(socket: Any) -> None:
    """Gone with RST."""
    await _greet(socket)
    sock = socket.transport.get_extra_info("socket")
    sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack("ii", 1, 0))
    socket.transport.abort()


async def half_close(socket: Any) -> None:
    """Sends FIN, and reads on."""
    await _greet(socket)
    socket.transport.write_eof()
    await nothing(socket)


async def within_a_frame(socket: Any) -> None:
    """Gone in the middle of a frame."""
    await _greet(socket)
    masked = socket.protocol.side.name == "CLIENT"
    socket.transport.write(b"\x82" + bytes([0x80 * masked + 100]) + b"\x00\x00\x00\x00abc")
    socket.transport.close()


async def _greet(socket: Any) -> None:
    """Let both sides know that the connection is there before it goes."""
    await socket.send("hello")
    await socket.recv()


async def greeting(socket: Any) -> None:
    await _greet(socket)
    await nothing(socket)


@pytest.mark.parametrize("leave", [abort, reset, half_close, within_a_frame])
@pytest.mark.parametrize("leaver", ["client", "server"])
async def test_who_goes_without_a_word_is_seen_to_be_gone(leave: Part, leaver: str) -> None:
    """1006 at the other end, at once and not at a time-out."""
    play = Play(leave, greeting) if leaver == "client" else Play(greeting, leave)
    seen = await both_ways(play)
    other = "server" if leaver == "client" else "client"
    assert seen[other]["code"] == 1006


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sender", ["client", "server"])
@pytest.mark.parametrize(
    "frames",
    [
        [b"\xff"],
        [b"gr\xc3", b"\x28"],
        [b"\xed\xa0\x80"],
        [b"ok", b"\xf4\x90\x80\x80"],
    ],
)
async def test_text_that_is_not_utf8_is_refused_by_its_reader(sender: str, frames: list[bytes]) -> None:
    """By the same party, with the same code (1007): the proxy does not look into frames."""

    async def send(socket: Any) -> None:
        async with socket.send_context():
            socket.protocol.send_text(frames[0], fin=len(frames) == 1)
            for number, data in enumerate(frames[1:], 2):
                socket.protocol.send_continuation(data, fin=number == len(frames))
        await nothing(socket)

    seen = await both_ways(Play(send, nothing) if sender == "client" else Play(nothing, send))
    reader = "server" if sender == "client" else "client"
    assert seen[reader]["sent"].code == 1007
    assert seen[sender]["received"].code == 1007


@pytest.mark.parametrize("sender", ["client", "server"])
async def test_a_message_that_is_too_large_is_refused_by_its_reader(sender: str) -> None:
    """1009, by whoever has the limit."""

    async def send(socket: Any) -> None:
        await socket.send(b"x" * 2000)
        await nothing(socket)

    limit = {"max_size": 1000}
    play = Play(send, nothing, serve=limit) if sender == "client" else Play(nothing, send, connect=limit)
    seen = await both_ways(play)
    reader = "server" if sender == "client" else "client"
    assert seen[reader]["sent"].code == 1009
    assert seen[sender]["received"].code == 1009


MASK = b"\x00\x00\x00\x00"
FROM_CLIENT = {
    "not masked": b"\x81\x02hi",
    "a reserved opcode": b"\x83\x80" + MASK,
    "a reserved bit": b"\xa1\x80" + MASK,
    "a ping in two parts": b"\x09\x80" + MASK,
    "a ping that is too long": b"\x89\xfe\x00\x7e" + MASK + b"p" * 126,
    "a continuation of nothing": b"\x80\x80" + MASK,
    "a close code that must not be sent": b"\x88\x82" + MASK + b"\x03\xed",
    "a close of one byte": b"\x88\x81" + MASK + b"\x03",
    "a close code that is none": b"\x88\x82" + MASK + b"\x00\x01",
}
FROM_SERVER = {
    "masked": b"\x81\x82" + MASK + b"hi",
    "a reserved opcode": b"\x8b\x00",
    "a reserved bit": b"\x91\x00",
    "a continuation of nothing": b"\x80\x00",
    "a close of one byte": b"\x88\x01\x03",
}


@pytest.mark.parametrize("name", FROM_CLIENT)
async def test_broken_frames_of_the_client_are_the_servers_to_refuse(name: str) -> None:
    """1002 from the server, as without a proxy."""

    async def client(socket: Any) -> None:
        socket.transport.write(FROM_CLIENT[name])
        await nothing(socket)

    seen = await both_ways(Play(client, nothing, connect={"compression": None}))
    assert seen["server"]["sent"].code == 1002


@pytest.mark.parametrize("name", FROM_SERVER)
async def test_broken_frames_of_the_server_are_the_clients_to_refuse(name: str) -> None:
    """1002 from the client."""

    async def server(socket: Any) -> None:
        socket.transport.write(FROM_SERVER[name])
        await nothing(socket)

    seen = await both_ways(Play(nothing, server, connect={"compression": None}))
    assert seen["client"]["sent"].code == 1002


# --- compression ----------------------------------------------------------------------------------------------------

COMPRESSION = {
    "context takeover": ({}, {}),
    "no takeover by the client": ({"client_no_context_takeover": True}, {}),
    "no takeover by the server": ({"server_no_context_takeover": True}, {}),
    "no takeover at all": ({}, {"server_no_context_takeover": True, "client_no_context_takeover": True}),
    "small windows": ({"client_max_window_bits": 9}, {"server_max_window_bits": 9, "client_max_window_bits": 9}),
}


@pytest.mark.parametrize("name", COMPRESSION)
async def test_compression_is_between_the_ends(name: str) -> None:
    """What is negotiated, and what is decompressed with or without the memory of earlier messages, is the same."""
    offered, accepted = COMPRESSION[name]

    async def client(socket: Any) -> None:
        for message in ("the same words " * 200, "the same words " * 200, b"other bytes" * 500, ""):
            await socket.send(message)
            assert await socket.recv() == message
        await socket.send(iter(["frag", "mented, ", "compressed " * 50]))
        await socket.recv()

    seen = await both_ways(
        Play(
            client,
            connect={"compression": None, "extensions": [ClientPerMessageDeflateFactory(**offered)]},
            serve={"compression": None, "extensions": [ServerPerMessageDeflateFactory(**accepted)]},
        )
    )
    assert "PerMessageDeflate" in str(seen["client"]["extensions"])


async def test_compression_that_the_server_does_not_want() -> None:
    """Offered and not taken: nothing is compressed."""

    async def client(socket: Any) -> None:
        await _greet(socket)

    seen = await both_ways(Play(client, serve={"compression": None}))
    assert seen["client"]["extensions"] == []


# --- handshakes -----------------------------------------------------------------------------------------------------


async def test_subprotocols_and_headers_of_a_handshake() -> None:
    """What the client offers and adds reaches the server, what the server picks and adds reaches the client: in order."""

    async def client(socket: Any) -> None:
        await _greet(socket)

    def add(_socket: Any, _request: Any, response: Any) -> None:
        response.headers["Set-Cookie"] = "a=1; Path=/"
        response.headers["Set-Cookie"] = "b=2"
        response.headers["X-Server"] = "yes"

    seen = await both_ways(
        Play(
            client,
            connect={
                "subprotocols": ["superchat", "chat"],
                "origin": "https://shop.example",
                "additional_headers": [
                    ("X-A", "1"),
                    ("x-a", "2"),
                    ("Cookie", "s=1; t=2"),
                    ("Authorization", "Bearer x"),
                ],
            },
            serve={"subprotocols": ["chat", "other"], "origins": ["https://shop.example"], "process_response": add},
        )
    )
    assert seen["client"]["subprotocol"] == seen["server"]["subprotocol"] == "chat"
    assert ("x-a", "1") in seen["server"]["request"][1]
    assert ("set-cookie", "b=2") in seen["client"]["response"][2]


REFUSALS = {
    "401 with a challenge": (HTTPStatus.UNAUTHORIZED, "Who are you?\n", {"WWW-Authenticate": 'Basic realm="chat"'}),
    "403 without a body": (HTTPStatus.FORBIDDEN, "", {}),
    "404 with a body": (HTTPStatus.NOT_FOUND, "There is no such room.\n" * 50, {}),
    "429 with a wait": (HTTPStatus.TOO_MANY_REQUESTS, "Later.", {"Retry-After": "120"}),
    "503": (HTTPStatus.SERVICE_UNAVAILABLE, "Maintenance.", {}),
    "200": (HTTPStatus.OK, "This is a page.", {}),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refused_handshake_is_refused_in_the_servers_words(name: str) -> None:
    """Status, headers and body."""
    status, text, headers = REFUSALS[name]

    def refuse(socket: Any, _request: Any) -> Any:
        response = socket.respond(status, text)
        for key, value in headers.items():
            response.headers[key] = value
        return response

    def never(error: Exception) -> Exception:
        return error  # no second try, which `connect` would make at 5xx

    play = Play(nothing, serve={"process_request": refuse}, connect={"process_exception": never})
    seen = await both_ways(play)
    assert seen["client"]["status"] == status
    assert seen["client"]["body"] == text.encode()


async def test_subprotocols_that_do_not_meet() -> None:
    """The server's refusal, or its silence, is the client's to judge."""

    def pick(_socket: Any, _offered: Any) -> None:
        return None

    async def client(socket: Any) -> None:
        await _greet(socket)

    seen = await both_ways(
        Play(client, connect={"subprotocols": ["mine"]}, serve={"subprotocols": ["yours"], "select_subprotocol": pick})
    )
    assert seen["client"]["subprotocol"] is None


async def test_a_server_that_does_not_finish_its_handshake() -> None:
    """It ends the connection instead of answering: the client gets a 502, which says so, and no hang."""

    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with asyncio.timeout(PATIENCE), DataPlane() as plane:
        await plane.serve(await plane.upstream(script))
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"ws://127.0.0.1:{plane.port}/", proxy=None, process_exception=lambda error: error):
                pass
        assert refused.value.response.status_code == 502
        assert not isinstance(refused.value, InvalidMessage)
