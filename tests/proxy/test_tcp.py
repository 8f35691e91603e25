"""Connections of any protocol: bytes both ways, half-closes, resets, the switch and the drain; on the test's own loop."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from dataclasses import replace

import pytest
from support.dataplane import DataPlane, ScriptedUpstream, reset, until

from bgproxy.config import schema
from bgproxy.proxy.accesslog import AccessLog
from bgproxy.proxy.tcp import TcpClient
from bgproxy.switchboard import layout

STREAMS = 1  # class


class TcpPlane(DataPlane):
    """A data plane whose listener is in mode tcp and leads to `shop`."""

    def _client(self):
        return TcpClient(self.context, "shop")

    async def serve(self, blue=(), green=(), **rules):
        return self.change(await super().serve(blue, green, **rules), tcp=True)

    async def __aexit__(self, *error):
        for stream in list(self.context.streams):
            stream.cut("the test is over")
        await until(lambda: not self.context.streams)
        await super().__aexit__(*error)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends back what comes, until the client sends no more; then says so and ends."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b"bye")


def greeter(name: bytes):
    """Speaks first, as many a database does, then echoes."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(name)
        await echo(reader, writer)

    return script


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


async def was_reset(wire) -> bool:
    """Whether the connection ends with a reset, and not as if all were well."""
    try:
        await wire.ended()
    except ConnectionResetError:
        return True
    return False


async def test_fifty_mebibytes_come_back() -> None:
    """What is sent comes back byte for byte, both ways at once, and is counted."""
    size = 50 * 1024 * 1024
    piece = random.Random(7).randbytes(1 << 20)
    async with TcpPlane() as plane:
        await plane.serve(await plane.upstream(echo))
        wire = await plane.connect()

        async def send() -> None:
            for _ in range(size >> 20):
                wire.writer.write(piece)
                await wire.writer.drain()
            wire.writer.write_eof()

        sending = asyncio.create_task(send())
        got = bytearray()
        while data := await asyncio.wait_for(wire.reader.read(1 << 18), 10):
            got += data
        await sending
        assert got == piece * (size >> 20) + b"bye"
        await until(lambda: plane.blue.streams == 1)
        assert (plane.blue.bytes_in, plane.blue.bytes_out) == (size, size + 3)


async def test_a_client_that_sends_no_more_still_reads() -> None:
    """The upstream hears that the client sends no more, and what it says then arrives."""
    async with TcpPlane() as plane:
        await plane.serve(await plane.upstream(echo))
        wire = await plane.connect()
        wire.send(b"hello")
        assert await wire.reader.readexactly(5) == b"hello"
        assert plane.blue.in_flight == [0, 1, 0]
        wire.writer.write_eof()
        assert await wire.ended() == b"bye"
        await until(lambda: plane.blue.in_flight == [0, 0, 0])
        await until(lambda: not plane.context.streams)
        assert plane.blue.upstreams[0].connections == 0


async def test_a_client_that_sends_no_more_at_once() -> None:
    """What comes and ends before the upstream has accepted gets there all the same, with its end."""
    async with TcpPlane() as plane:
        await plane.serve(await plane.upstream(echo))
        wire = await plane.connect()
        wire.send(b"all of it")
        wire.writer.write_eof()
        assert await wire.ended() == b"all of itbye"


async def test_an_upstream_that_sends_no_more_still_reads() -> None:
    """The client hears that the upstream sends no more, and what it says then arrives."""
    heard: list[bytes] = []

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"that was all")
        writer.write_eof()
        heard.append(await reader.read())

    async with TcpPlane() as plane:
        await plane.serve(await plane.upstream(half))
        wire = await plane.connect()
        assert await wire.ended() == b"that was all"
        assert plane.blue.in_flight == [0, 1, 0]
        wire.send(b"thanks")
        wire.writer.write_eof()
        await until(lambda: heard == [b"thanks"])
        await until(lambda: not plane.context.streams)


async def test_the_server_may_speak_first() -> None:
    """An upstream is connected to before the client has said a word."""
    async with TcpPlane() as plane:
        await plane.serve(await plane.upstream(greeter(b"220 ready")))
        wire = await plane.connect()
        assert await wire.reader.readexactly(9) == b"220 ready"


async def test_an_upstream_that_is_down_is_passed_over() -> None:
    """A connection that cannot be made is made to another upstream of the pool; the failure is told of."""
    async with TcpPlane() as plane:
        await plane.serve([closed_port(), await plane.upstream(greeter(b"up"))], balance="round_robin")
        for _ in range(4):
            wire = await plane.connect()
            wire.send(b"!")
            assert await wire.reader.readexactly(3) == b"up!"
        assert plane.blue.retries == 2
        assert plane.blue.streams_failed == 0
        assert [upstream.in_flight for upstream in plane.blue.upstreams] == [0, 4]
        assert "refused" in plane.failures[0][1]


async def test_without_any_upstream_the_client_is_reset() -> None:
    """Where nobody can be reached the connection is reset and counted as failed, whether tried or known before."""
    async with TcpPlane() as plane:
        await plane.serve(closed_port())
        assert await was_reset(await plane.connect())
        await plane.serve()
        assert await was_reset(await plane.connect())
        await until(lambda: plane.blue.streams_failed == 2)
        assert plane.blue.in_flight == [0, 0, 0]
        await until(lambda: not plane.context.streams)


async def test_a_reset_is_passed_on() -> None:
    """A side that breaks off is not made to look as if it had ended well, whichever side it is."""
    ended: list[str] = []

    async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(1) == b"1":
            reset(writer)
            return
        try:
            await reader.read()
        except ConnectionResetError:
            ended.append("reset")

    async with TcpPlane() as plane:
        await plane.serve(await plane.upstream(breaks))
        wire = await plane.connect()
        wire.send(b"1")
        assert await was_reset(wire)
        wire = await plane.connect()
        wire.send(b"2")
        await until(lambda: plane.blue.bytes_in == 1 and plane.blue.in_flight[STREAMS] == 1)
        reset(wire.writer)
        await until(lambda: ended == ["reset"])
        await until(lambda: not plane.context.streams)


async def test_a_switch_leaves_what_is_connected_where_it_is() -> None:
    """Connections that are there stay on their pool, byte for byte; those that come go to the new one."""
    async with TcpPlane() as plane:
        await plane.serve(await plane.upstream(greeter(b"blue")), await plane.upstream(greeter(b"green")))
        old = await plane.connect()
        assert await old.reader.readexactly(4) == b"blue"
        plane.switch(1)
        new = await plane.connect()
        assert await new.reader.readexactly(5) == b"green"
        for wire in (old, new):
            wire.send(b"still here")
            assert await wire.reader.readexactly(10) == b"still here"
        assert (plane.blue.in_flight, plane.green.in_flight) == ([0, 1, 0], [0, 1, 0])


async def test_a_drain_ends_at_its_deadline() -> None:
    """At `drain.streams` after the switch the connection is reset and counted as cut; before it, nothing happens."""
    async with TcpPlane() as plane:
        await plane.serve(
            await plane.upstream(greeter(b"blue")), await plane.upstream(echo), drain=schema.Drain(streams=0.2)
        )
        wire = await plane.connect()
        assert await wire.reader.readexactly(4) == b"blue"
        plane.switch(1)
        wire.send(b"x")
        assert await wire.reader.readexactly(1) == b"x"
        assert await was_reset(wire)
        assert plane.blue.cut == [0, 1, 0]
        await until(lambda: plane.blue.in_flight == [0, 0, 0])


async def test_limits_hold() -> None:
    """One connection more than `limits.connections`, or than an address may have, is reset and counted."""
    async with TcpPlane(limits=schema.Limits(connections=1)) as plane:
        await plane.serve(await plane.upstream(greeter(b"hi")))
        first = await plane.connect()
        assert await first.reader.readexactly(2) == b"hi"
        assert await was_reset(await plane.connect())
        assert plane.context.refused == 1
    async with TcpPlane(limits=schema.Limits(connections_per_address=1)) as plane:
        await plane.serve(await plane.upstream(greeter(b"hi")))
        first = await plane.connect()
        assert await first.reader.readexactly(2) == b"hi"
        assert await was_reset(await plane.connect())
        assert plane.context.hits[layout.REFUSED_ADDRESS] == 1
        first.close()
        await until(lambda: not plane.context.addresses)


async def test_an_idle_connection_is_ended() -> None:
    """Without a byte in either direction for `timeouts.stream_idle` both sides are reset; with some, they are not."""
    async with TcpPlane(timeouts=schema.Timeouts(stream_idle=0.3)) as plane:
        await plane.serve(await plane.upstream(echo))
        wire = await plane.connect()
        for _ in range(8):
            wire.send(b"x")
            assert await wire.reader.readexactly(1) == b"x"
            await asyncio.sleep(0.05)
        assert plane.context.hits[layout.TIMEOUT_TUNNEL] == 0
        assert await was_reset(wire)
        assert plane.context.hits[layout.TIMEOUT_TUNNEL] == 1


@pytest.mark.parametrize("reads", ["client", "upstream"])
async def test_who_does_not_read_stops_the_other(reads: str) -> None:
    """Where one side does not read, the other is not read either: what waits here stays within a bound."""
    gate = asyncio.Event()
    sent = 0

    async def pour(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        for _ in range(64):
            writer.write(bytes(1 << 20))
            await writer.drain()
            sent += 1 << 20

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if reads == "client":
            await gate.wait()
            while await reader.read(1 << 20):
                pass
        else:
            await pour(writer)

    async with TcpPlane() as plane:
        await plane.serve(await plane.upstream(script))
        if reads == "client":
            wire = await plane.connect()
            pouring = asyncio.create_task(pour(wire.writer))
        else:
            sock = socket.create_connection(("127.0.0.1", plane.port))
            pouring = None
        await until(lambda: plane.context.streams)
        stream = next(iter(plane.context.streams))
        end = lambda: stream.server if reads == "client" else stream.client  # noqa: E731
        await until(lambda: end() is not None and end().write_paused)
        assert end().transport.get_write_buffer_size() < 1 << 20
        assert sent < 64 << 20
        gate.set()
        if pouring is not None:
            await asyncio.wait_for(pouring, 20)
        else:
            sock.close()


async def test_source_hash_keeps_a_client_at_one_upstream() -> None:
    """With `source_hash`, and with sessions by source, one address gets one upstream."""
    for rules in ({"balance": "source_hash"}, {"sessions": schema.Sessions(mode="source")}):
        async with TcpPlane() as plane:
            servers = [await plane.upstream(greeter(name)) for name in (b"a", b"b", b"c")]
            await plane.serve(servers, **rules)
            seen = set()
            for _ in range(6):
                wire = await plane.connect()
                seen.add(await wire.reader.readexactly(1))
            assert len(seen) == 1


async def test_the_access_log_has_a_line(tmp_path) -> None:
    """A connection that has ended is a line: where it went, how long it took, its bytes, and why it ended."""
    async with TcpPlane() as plane:
        log = plane.context.access_log = AccessLog(str(tmp_path / "access.log"))
        upstream = await plane.upstream(echo)
        await plane.serve(upstream)
        wire = await plane.connect()
        wire.send(b"12345")
        wire.writer.write_eof()
        assert await wire.ended() == b"12345bye"
        await until(lambda: plane.blue.streams == 1)
        log.flush()
        line = json.loads((tmp_path / "access.log").read_text())
        assert (line["service"], line["pool"], line["upstream"]) == ("shop", "blue", f"127.0.0.1:{upstream.port}")
        assert (line["client"], line["bytes_in"], line["bytes_out"]) == ("127.0.0.1", 5, 8)
        assert line["closed"] == "upstream closed"
        plane.context.access_log = None
        log.close()


async def test_a_service_that_is_gone_takes_nobody() -> None:
    """Where the listener's service is not there the connection is reset; no HTTP route leads to a tcp service."""
    async with TcpPlane() as plane:
        await plane.serve(await plane.upstream(echo))
        assert plane.context.routes.candidates(b"") == []
        plane.context.set_services((), (), whole=True)
        assert await was_reset(await plane.connect())
        assert plane.context.unmatched == 1


async def test_a_client_that_leaves_at_once_leaves_nothing_behind() -> None:
    """A client that is gone before its upstream has accepted: that connection is ended as well."""
    async with TcpPlane() as plane:
        upstream: ScriptedUpstream = await plane.upstream(echo)
        await plane.serve(upstream)
        for _ in range(20):
            reset((await plane.connect()).writer)
        await until(lambda: plane.blue.streams == plane.context.accepted)
        await until(lambda: not plane.context.streams and not plane.context.tasks)
        assert plane.blue.in_flight == [0, 0, 0]
        await until(lambda: plane.blue.upstreams[0].connections == 0)


async def test_an_upstream_is_told_who_the_client_is() -> None:
    """With `send_proxy` the upstream reads a PROXY header before the first byte, and only then what the client sends."""
    heard: list[bytes] = []

    async def listens(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n"))
        await echo(reader, writer)

    async with TcpPlane() as plane:
        spec = await plane.serve(await plane.upstream(listens))
        plane.change(spec, pools=(replace(spec.pools[0], send_proxy="v1"), spec.pools[1]))
        wire = await plane.connect()
        wire.send(b"hello")
        assert await wire.reader.readexactly(5) == b"hello"
        port = wire.writer.get_extra_info("sockname")[1]
        assert heard == [f"PROXY TCP4 127.0.0.1 127.0.0.1 {port} {plane.port}\r\n".encode()]
        assert plane.blue.bytes_in == 0  # counted at the end, and without the header
        wire.writer.write_eof()
        assert await wire.ended() == b"bye"
        await until(lambda: plane.blue.bytes_in == 5)
