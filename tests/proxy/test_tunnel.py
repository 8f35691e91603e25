"""Upgraded connections: untouched bytes, half-closes, and a Close frame between two frames at a drain's deadline."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace

import pytest
from support.builds import interpreted_only
from support.dataplane import OK, DataPlane, get, read_head, until
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve as serve_websockets
from websockets.exceptions import ConnectionClosed

from bgproxy.config import schema
from bgproxy.model import connection
from bgproxy.proxy import tunnel as tunnel_module
from bgproxy.proxy.tunnel import GRACE, Tunnel

UPGRADE = get("/", "Connection: Upgrade", "Upgrade: echo")
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Switches to an echo, until the client ends its side."""
    head = await read_head(reader)
    assert b"Connection: Upgrade\r\nUpgrade: echo\r\n" in head
    writer.write(SWITCHING)
    while data := await reader.read(65536):
        writer.write(data)
    writer.write(b"bye")


def test_states_are_those_of_the_table() -> None:
    """The constants are the members of the enums, so that the table means them."""
    for enum in (connection.TunnelState, connection.TunnelEvent):
        for member in enum:
            assert getattr(tunnel_module, member.name) == member.value


async def test_bytes_go_both_ways_and_half_closes_are_followed() -> None:
    """After 101 bytes pass untouched; a client that ends its side still reads what the upstream has to say."""
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(echo))
        wire = await plane.connect()
        wire.send(UPGRADE)
        head = await wire.head()
        assert head.status == 101
        assert head.get("upgrade") == "echo"
        wire.send(b"hello")
        assert await wire.reader.readexactly(5) == b"hello"
        assert plane.blue.in_flight == [0, 0, 1]
        wire.writer.write_eof()
        assert await wire.ended() == b"bye"
        await until(lambda: plane.blue.in_flight == [0, 0, 0])
        await until(lambda: not plane.context.clients)


async def test_what_is_sent_ahead_of_the_101_waits_for_it() -> None:
    """Bytes behind the upgrade request go on only once the upstream has switched (CVE-2026-2833)."""
    gate = asyncio.Event()
    ahead = b""

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal ahead
        await read_head(reader)
        with pytest.raises(TimeoutError):
            ahead = await asyncio.wait_for(reader.read(100), 0.05)
        gate.set()
        writer.write(SWITCHING)
        writer.write(await reader.readexactly(5))
        await reader.read()

    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(late))
        wire = await plane.connect()
        wire.send(UPGRADE + b"early")
        assert (await wire.head()).status == 101
        assert await wire.reader.readexactly(5) == b"early"
        assert gate.is_set()
        assert ahead == b""


async def test_a_refused_upgrade_stays_http() -> None:
    """Without a 101 the connection stays HTTP, and what was sent ahead is the next request."""
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(OK))
        wire = await plane.connect()
        wire.send(UPGRADE + get("/next"))
        assert (await wire.response()).status == 200
        assert (await wire.response()).status == 200
        assert plane.upstreams[0].heads[1].startswith(b"GET /next ")


async def test_an_idle_tunnel_ends() -> None:
    """A tunnel without a byte for `stream_idle` ends."""
    async with DataPlane(timeouts=schema.Timeouts(stream_idle=0.1)) as plane:
        await plane.serve(await plane.upstream(echo))
        wire = await plane.connect()
        wire.send(UPGRADE)
        assert (await wire.head()).status == 101
        await wire.ended()
        assert plane.blue.in_flight == [0, 0, 0]


async def test_websockets_work_as_they_do_directly() -> None:
    """Fragments, pings, compression, a message of 1 MiB and close codes pass through."""

    async def handler(socket) -> None:
        async for message in socket:
            if message == "close":
                await socket.close(4001, "as you wish")
            else:
                await socket.send(message)

    async with serve_websockets(handler, "127.0.0.1", 0, max_size=None) as server, DataPlane() as plane:
        await plane.serve(server.sockets[0].getsockname()[1])
        async with connect(f"ws://127.0.0.1:{plane.port}/", max_size=None) as socket:
            for message in ("hello", b"\x00" * (1 << 20), "ü" * 1000):
                await socket.send(message)
                assert await socket.recv() == message
            await socket.send(iter(["in ", "three ", "parts"]))
            assert await socket.recv() == "in three parts"
            await (await socket.ping())
            await socket.send("close")
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as you wish")


async def test_a_drained_websocket_gets_a_close_frame_on_both_sides() -> None:
    """At the deadline of a drain client and upstream are told 1012, service restart, and the connection ends."""
    codes: list[int | None] = []

    async def handler(socket) -> None:
        with contextlib.suppress(ConnectionClosed):  # 1012 is no normal end, and raises
            async for message in socket:
                await socket.send(message)
        codes.append(socket.close_code)

    async with serve_websockets(handler, "127.0.0.1", 0) as server, DataPlane() as plane:
        port = server.sockets[0].getsockname()[1]
        await plane.serve(port, await plane.upstream(OK), drain=schema.Drain(websockets=0.1))
        async with connect(f"ws://127.0.0.1:{plane.port}/") as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"
            plane.switch(1)
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        await until(lambda: codes == [1012])
        assert plane.blue.cut == [0, 0, 1]
        await until(lambda: plane.blue.in_flight == [0, 0, 0])


async def test_a_frame_under_way_is_finished_before_the_close() -> None:
    """The Close waits for the end of the frame that is being sent; nothing follows it."""
    gate = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(SWITCHING.replace(b"echo", b"websocket"))
        writer.write(b"\x82\x05he")
        await gate.wait()
        writer.write(b"llo\x82\x03abc")
        await reader.read()

    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(script), drain=schema.Drain(websockets=0.05))
        wire = await plane.connect()
        wire.send(UPGRADE.replace(b"echo", b"websocket"))
        await wire.head()
        assert await wire.reader.readexactly(4) == b"\x82\x05he"
        plane.switch(1)
        await until(lambda: plane.blue.cut == [0, 0, 1])
        gate.set()
        assert await wire.reader.readexactly(7) == b"llo\x88\x02\x03\xf4"
        wire.send(b"\x88\x82\x00\x00\x00\x00\x03\xf4")
        assert await wire.ended() == b""


class Side:
    """One side of a tunnel, as far as an end concerns it; `whole`: over TLS, which knows no half-closes."""

    def __init__(self, *, whole: bool) -> None:
        self.transport = self
        self.whole = whole
        self.said: list[str] = []

    def is_closing(self) -> bool:
        return "close" in self.said

    def can_write_eof(self) -> bool:
        return not self.whole

    def write_eof(self) -> None:
        assert not self.whole, "NotImplementedError in uvloop"
        self.said.append("eof")

    def close(self) -> None:
        self.said.append("close")


@pytest.mark.parametrize("end", ["client_eof", "server_eof"])
@pytest.mark.parametrize("whole", [False, True])
@interpreted_only
def test_a_side_that_knows_no_half_close_is_closed(end: str, whole: bool) -> None:
    """Over TLS the other side's end cannot be passed on by itself: both are closed, once what was written is sent."""
    client, server = Side(whole=whole), Side(whole=whole)
    tunnel = Tunnel(SimpleNamespace(finish=lambda: None), client, server, b"echo")  # type: ignore[arg-type]
    told, teller = (server, client) if end == "client_eof" else (client, server)
    assert getattr(tunnel, end)() is not whole
    assert told.said == (["close"] if whole else ["eof"])
    assert teller.said == (["close"] if whole else [])


async def test_a_client_that_half_closed_before_the_101_has_ended_its_side() -> None:
    """The upstream is told so as soon as it has switched; the tunnel does not wait for an end that has come already."""
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(echo))
        wire = await plane.connect()
        wire.send(UPGRADE + b"hello")
        wire.writer.write_eof()
        assert (await wire.head()).status == 101
        assert await wire.ended() == b"hellobye"
        await until(lambda: plane.blue.in_flight == [0, 0, 0])
        await until(lambda: not plane.context.clients)


async def test_a_websocket_that_is_told_to_end_has_no_more_time_by_reading_on() -> None:
    """The time for the Close frames stands, whether the client reads slowly, not at all, or on again."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(SWITCHING.replace(b"echo", b"websocket"))
        await reader.read()

    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(script))
        wire = await plane.connect()
        wire.send(UPGRADE.replace(b"echo", b"websocket"))
        await wire.head()
        (client,) = plane.clients
        assert client.tunnel is not None
        client.tunnel.restart()
        within = client.deadline
        assert within <= plane.context.now + GRACE
        client.pause_writing()
        assert client.deadline == within
        client.resume_writing()
        assert client.deadline == within
