"""Listeners with the PROXY protocol: who is believed, what follows from the address, and who is turned away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import struct

import pytest
from support.certificates import Authority
from support.dataplane import OK, DataPlane, Wire, get, read_head, until

from bgproxy.config import schema
from bgproxy.proxy.client import ClientConnection
from bgproxy.proxy.introduced import IntroducedServer
from bgproxy.proxy.proxy_protocol import SIGNATURE
from bgproxy.proxy.tcp import TcpClient

V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"
V2 = SIGNATURE + b"\x21\x11\x00\x0c" + bytes([192, 0, 2, 7, 198, 51, 100, 1]) + struct.pack(">HH", 56324, 443)
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"

LOOPBACK = ("127.0.0.0/8",)


class IntroducedPlane(DataPlane):
    """A data plane with one listener more, at which the PROXY protocol is expected."""

    def __init__(self, *, mode="http", tls=None, unix=None, trusted_proxies=LOOPBACK, **settings):
        super().__init__(trusted_proxies=trusted_proxies, **settings)
        self._mode = mode
        self._tls = tls
        self._unix = unix

    async def __aenter__(self):
        await super().__aenter__()
        if self._unix is None:
            sock = socket.create_server(("127.0.0.1", 0))
            self.proxied = sock.getsockname()[1]
        else:
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(self._unix)
            sock.listen()
        tls = {} if self._tls is None else {"ssl": self._tls, "ssl_handshake_timeout": 2.0}
        self.introduced = IntroducedServer(self.context, sock, self._protocol, tls)
        self.introduced.start()
        self._sweeping = asyncio.create_task(self._sweep_introduced())
        return self

    def _protocol(self):
        return TcpClient(self.context, "shop") if self._mode == "tcp" else ClientConnection(self.context, self.listener)

    async def _sweep_introduced(self):
        while True:
            await asyncio.sleep(0.02)
            self.introduced.sweep(self.context.now)

    async def __aexit__(self, *error):
        self._sweeping.cancel()
        await asyncio.gather(self._sweeping, return_exceptions=True)
        self.introduced.close()
        for stream in list(self.context.streams):
            stream.cut("the test is over")
        await until(lambda: not self.context.streams)
        await super().__aexit__(*error)

    async def introduce(self, *pieces: bytes) -> Wire:
        """Connect, and send these one after the other."""
        if self._unix is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.proxied)
        else:
            reader, writer = await asyncio.open_unix_connection(self._unix)
        wire = Wire(reader, writer)
        self.wires.append(wire)
        for piece in pieces:
            wire.send(piece)
            await asyncio.sleep(0)
        return wire


def field(head: bytes, name: bytes) -> bytes | None:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(name.lower() + b":"):
            return line.partition(b":")[2].strip()
    return None


async def closed(wire: Wire) -> bool:
    """Whether the connection ends, in whatever way, without a byte."""
    with contextlib.suppress(ConnectionResetError):
        return await wire.ended() == b""
    return True


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
async def test_the_announced_address_is_the_clients(header: bytes) -> None:
    """Both versions: the upstream reads the address from the header, and not the proxy's."""
    async with IntroducedPlane() as plane:
        upstream = await plane.upstream(OK)
        await plane.serve(upstream)
        wire = await plane.introduce(header + get())
        assert (await wire.response()).status == 200
        wire.send(get("/again"))
        assert (await wire.response()).status == 200
        assert [field(head, b"X-Forwarded-For") for head in upstream.heads] == [b"192.0.2.7", b"192.0.2.7"]
        assert next(iter(plane.context.clients)).peer == "192.0.2.7"
        assert plane.context.waiting == 0


async def test_a_header_in_pieces() -> None:
    """A header that comes a byte at a time is waited for, and what follows it in the same packet is the request's."""
    async with IntroducedPlane() as plane:
        upstream = await plane.upstream(OK)
        await plane.serve(upstream)
        whole = V2 + get()
        wire = await plane.introduce()
        wire.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(V2) - 1):
            wire.send(whole[at : at + 1])
            await asyncio.sleep(0.001)
        await until(lambda: plane.context.waiting == 1)
        wire.send(whole[len(V2) - 1 :])
        assert (await wire.response()).status == 200
        assert field(upstream.heads[0], b"X-Forwarded-For") == b"192.0.2.7"


async def test_the_proxys_own_connections() -> None:
    """LOCAL, as a balancer's health check sends it, and UNKNOWN: the peer's own address holds."""
    async with IntroducedPlane() as plane:
        upstream = await plane.upstream(OK)
        await plane.serve(upstream)
        for header in (LOCAL, b"PROXY UNKNOWN\r\n"):
            wire = await plane.introduce(header + get())
            assert (await wire.response()).status == 200
        assert [field(head, b"X-Forwarded-For") for head in upstream.heads] == [b"127.0.0.1", b"127.0.0.1"]


async def test_whose_forwarding_fields_count() -> None:
    """The announced address decides: a client's X-Forwarded-For is replaced, that of a trusted proxy behind is kept."""
    async with IntroducedPlane(trusted_proxies=("127.0.0.0/8", "203.0.113.0/24")) as plane:
        upstream = await plane.upstream(OK)
        await plane.serve(upstream)
        for header in (V1, V1.replace(b"192.0.2.7", b"203.0.113.9")):
            wire = await plane.introduce(header + get("/", "X-Forwarded-For: 10.9.8.7"))
            assert (await wire.response()).status == 200
        assert [field(head, b"X-Forwarded-For") for head in upstream.heads] == [b"192.0.2.7", b"10.9.8.7, 203.0.113.9"]


async def test_previews_look_at_the_announced_address() -> None:
    """The balancer's address is private, the client's is not: no preview for it."""
    async with IntroducedPlane() as plane:
        blue, green = await plane.upstream(OK), await plane.upstream(OK)
        await plane.serve(blue, green)
        for header in (V1, V1.replace(b"192.0.2.7", b"10.1.2.3")):
            wire = await plane.introduce(header + get("/", "X-BGProxy-Pool: green"))
            assert (await wire.response()).status == 200
        assert (len(blue.heads), len(green.heads)) == (1, 1)


async def test_strangers_are_turned_away(caplog: pytest.LogCaptureFixture) -> None:
    """Who is not in trusted_proxies is closed without an answer, good header or not; it is counted, and logged."""
    async with IntroducedPlane(trusted_proxies=("10.0.0.0/8",)) as plane:
        await plane.serve(await plane.upstream(OK))
        with caplog.at_level(logging.WARNING, "bgproxy.worker"):
            assert await closed(await plane.introduce(V1 + get()))
            await until(lambda: caplog.messages)
        assert plane.context.unintroduced == 1
        assert "127.0.0.1: it is not in trusted_proxies" in caplog.messages[0]


@pytest.mark.parametrize("data", [get(), b"PROXY TCP4 a b c d\r\n" + get(), SIGNATURE + b"\x11"])
async def test_what_is_no_header_is_closed(data: bytes) -> None:
    """A request without a header, or with a malformed one, is closed without an answer and counted."""
    async with IntroducedPlane() as plane:
        await plane.serve(await plane.upstream(OK))
        assert await closed(await plane.introduce(data))
        assert plane.context.unintroduced == 1
        assert plane.context.waiting == 0


async def test_who_says_nothing_is_closed_in_time() -> None:
    """A header that has not come whole within `timeouts.header` is not waited for; who only connects is not counted as bad."""
    async with IntroducedPlane(timeouts=schema.Timeouts(header=0.1)) as plane:
        await plane.serve(await plane.upstream(OK))
        assert await closed(await plane.introduce(V1[:20]))
        assert plane.context.unintroduced == 1
        (await plane.introduce()).close()
        await until(lambda: plane.context.waiting == 0)
        assert plane.context.unintroduced == 1


async def test_those_who_wait_count_as_connections() -> None:
    """Connections without a header yet are within `limits.connections`; the next one is closed."""
    async with IntroducedPlane(limits=schema.Limits(connections=1)) as plane:
        await plane.serve(await plane.upstream(OK))
        first = await plane.introduce(V1[:5])
        await until(lambda: plane.context.waiting == 1)
        assert await closed(await plane.introduce(V1 + get()))
        assert plane.context.refused == 1
        first.send(V1[5:] + get())
        assert (await first.response()).status == 200


async def test_over_a_unix_socket(tmp_path) -> None:
    """Who may open the socket is trusted to introduce others."""
    async with IntroducedPlane(unix=str(tmp_path / "p.sock"), trusted_proxies=()) as plane:
        upstream = await plane.upstream(OK)
        await plane.serve(upstream)
        wire = await plane.introduce(V2 + get())
        assert (await wire.response()).status == 200
        assert field(upstream.heads[0], b"X-Forwarded-For") == b"192.0.2.7"


async def test_in_mode_tcp() -> None:
    """In mode tcp the header is taken off, and the announced address is the client's for the balance and the log."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)

    async with IntroducedPlane(mode="tcp") as plane:
        plane.change(await plane.serve(await plane.upstream(echo), balance="source_hash"), tcp=True)
        wire = await plane.introduce(V2 + b"hello")
        assert await wire.reader.readexactly(5) == b"hello"
        assert next(iter(plane.context.streams)).client.peer == "192.0.2.7"
        wire.writer.write_eof()
        assert await wire.ended() == b""


async def test_before_tls(tmp_path) -> None:
    """The header comes before the handshake: what follows it is TLS, also in the same packet."""
    authority = Authority()
    files = authority.issue(tmp_path, "a.test")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(files.cert, files.key)
    async with IntroducedPlane(tls=served) as plane:
        upstream = await plane.upstream(OK)
        await plane.serve(upstream)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = authority.client_context().wrap_bio(incoming, outgoing, server_hostname="a.test")
        with contextlib.suppress(ssl.SSLWantReadError):
            session.do_handshake()
        wire = await plane.introduce(V2 + outgoing.read())
        while True:
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                wire.send(outgoing.read())
                incoming.write(await asyncio.wait_for(wire.reader.read(65536), 5))
        session.write(get())
        wire.send(outgoing.read())
        await until(lambda: upstream.heads)
        assert field(upstream.heads[0], b"X-Forwarded-For") == b"192.0.2.7"


async def test_a_failed_handshake_leaves_nothing_behind(tmp_path) -> None:
    """A good header and then no TLS: the connection ends, and nobody waits for it."""
    files = Authority().issue(tmp_path, "a.test")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(files.cert, files.key)
    async with IntroducedPlane(tls=served) as plane:
        await plane.serve(await plane.upstream(OK))
        wire = await plane.introduce(V1 + get())
        with contextlib.suppress(ConnectionResetError):
            await wire.ended()  # an alert, perhaps
        await until(lambda: not plane.context.tasks)
        assert plane.context.waiting == 0
        assert not plane.context.clients


async def test_closing_ends_those_who_wait() -> None:
    """A server that is closed lets go of those who have not introduced themselves, and accepts nobody."""
    async with IntroducedPlane() as plane:
        await plane.serve(await plane.upstream(OK))
        wire = await plane.introduce(V1[:5])
        await until(lambda: plane.context.waiting == 1)
        plane.introduced.close()
        assert await closed(wire)
        assert plane.context.waiting == 0
        with pytest.raises(ConnectionRefusedError):
            await plane.introduce()


async def test_a_connection_that_is_not_http_after_the_header() -> None:
    """Behind a good header everything is as on any listener: rubbish is answered with 400."""
    async with IntroducedPlane() as plane:
        await plane.serve(await plane.upstream(read_head))
        wire = await plane.introduce(V1 + b"rubbish\r\n\r\n")
        assert (await wire.response()).status == 400
