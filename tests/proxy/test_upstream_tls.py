"""Requests to `https://` upstreams, and to those that want a PROXY header first."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from datetime import timedelta

import pytest
from support.certificates import Authority
from support.dataplane import OK, DataPlane, get, read_head, until
from support.tls_upstreams import TlsBackend, contents, issue, secure, serve, server_context, tls_upstream

from bgproxy.config import schema
from bgproxy.model.snapshot import TlsSpec
from bgproxy.proxy.dial import warm
from bgproxy.proxy.proxy_protocol import HeaderDecoder

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def authority():
    return Authority()


def trusting(authority: Authority, **more) -> TlsSpec:
    return TlsSpec(authorities=authority.root.pem(), **more)


async def test_a_verified_upstream_is_asked_by_its_name_over_connections_that_are_kept(authority, tmp_path):
    """SNI is the host of the URL; the second request goes over the connection of the first."""
    context = server_context(authority.issue(tmp_path, "app.test"))
    async with DataPlane() as plane:
        upstream = await tls_upstream(plane, OK, context)
        await serve(plane, secure(upstream.port), tls=trusting(authority))
        wire = await plane.connect()
        for _ in range(2):
            wire.send(get())
            assert (await wire.response()).body == b"ok"
        assert (upstream.asked, upstream.connections) == (["app.test"], 1)
        assert plane.failures == []


async def test_http_1_1_is_agreed_on(authority, tmp_path):
    """An upstream that prefers HTTP/2 is told that this is none (ALPN, RFC 7301)."""
    context = server_context(authority.issue(tmp_path, "app.test"))
    context.set_alpn_protocols(["h2", "http/1.1"])
    agreed = []

    async def script(reader, writer):
        agreed.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await read_head(reader)
        writer.write(OK)

    async with DataPlane() as plane:
        upstream = await tls_upstream(plane, script, context)
        await serve(plane, secure(upstream.port), tls=trusting(authority))
        assert (await plane.ask(get())).status == 200
        assert agreed == ["http/1.1"]


@pytest.mark.parametrize(
    ("names", "options", "host", "reason"),
    [
        (("other.test",), {}, "app.test", "host name does not match: the certificate is not for app.test"),
        (("app.test",), {}, "127.0.0.1", "host name does not match: the certificate is not for 127.0.0.1"),
        (("app.test",), {"not_before": -2 * DAY, "not_after": -DAY}, "app.test", "certificate has expired"),
        (("app.test",), {"not_before": DAY}, "app.test", "certificate is not valid yet"),
    ],
    ids=["wrong name", "wrong address", "expired", "not valid yet"],
)
async def test_a_certificate_that_does_not_hold_is_a_502(authority, tmp_path, names, options, host, reason):
    """The operator reads why, and it counts as a failure; the client reads that there was no secure connection."""
    context = server_context(authority.issue(tmp_path, *names, **options))
    async with DataPlane() as plane:
        upstream = await tls_upstream(plane, OK, context)
        await serve(plane, secure(upstream.port, host), tls=trusting(authority))
        answer = await plane.ask(get())
        assert (answer.status, answer.get("proxy-status")) == (502, "bgproxy; error=tls_certificate_error")
        assert plane.failures == [(f"{host}:{upstream.port}", reason)]
        assert upstream.heads == []
        assert b"no secure connection to the upstream could be made" in answer.body
        assert b"certificate" not in answer.body
        assert host.encode() not in answer.body
        assert reason in plane.clients[0].closed_because


async def test_an_authority_that_is_not_known_is_a_502(authority, tmp_path):
    """Whatever the names in the certificate."""
    context = server_context(authority.issue(tmp_path, "app.test"))
    async with DataPlane() as plane:
        upstream = await tls_upstream(plane, OK, context)
        await serve(plane, secure(upstream.port), tls=trusting(Authority()))
        assert (await plane.ask(get())).status == 502
        ((_, reason),) = plane.failures
        assert "authority is not known" in reason


async def test_without_an_authority_of_its_own_the_trust_store_decides(authority, tmp_path):
    """And it does not know ours."""
    context = server_context(authority.issue(tmp_path, "app.test"))
    async with DataPlane() as plane:
        upstream = await tls_upstream(plane, OK, context)
        await serve(plane, secure(upstream.port), tls=TlsSpec())
        assert (await plane.ask(get())).status == 502


async def test_insecure_believes_everybody(authority, tmp_path):
    """Wrong name, expired, unknown authority: all of it."""
    context = server_context(authority.issue(tmp_path, "x.test", not_before=-2 * DAY, not_after=-DAY))
    async with DataPlane() as plane:
        upstream = await tls_upstream(plane, OK, context)
        await serve(plane, secure(upstream.port), tls=TlsSpec(verify=False))
        assert (await plane.ask(get())).status == 200


async def test_server_name_is_asked_for_and_looked_for(authority, tmp_path):
    """Instead of the host of the URL."""
    context = server_context(authority.issue(tmp_path, "inner.test"))
    async with DataPlane() as plane:
        upstream = await tls_upstream(plane, OK, context)
        await serve(plane, secure(upstream.port, "127.0.0.1"), tls=trusting(authority, server_name="inner.test"))
        assert (await plane.ask(get())).status == 200
        assert upstream.asked == ["inner.test"]


async def test_an_address_is_verified_as_one(authority, tmp_path):
    """A certificate may be for an IP address; none is asked for then (RFC 6066 section 3)."""
    context = server_context(authority.issue(tmp_path, "127.0.0.1"))
    async with DataPlane() as plane:
        upstream = await tls_upstream(plane, OK, context)
        await serve(plane, secure(upstream.port, "127.0.0.1"), tls=trusting(authority))
        assert (await plane.ask(get())).status == 200
        assert upstream.asked == [None]


async def test_a_client_certificate_is_shown_to_who_asks_for_one(authority, tmp_path):
    """Without it the upstream refuses, and says so by an alert: 502, told in its words."""
    context = server_context(authority.issue(tmp_path, "app.test"), clients=authority)
    own = authority.issue(tmp_path, stem="own")
    chain, secret = contents(own)
    with TlsBackend("blue", context) as upstream:
        async with DataPlane() as plane:
            await serve(plane, secure(upstream.port), tls=trusting(authority, chain=chain, secret=secret))
            assert (await plane.ask(get())).body == b"blue"
            await serve(plane, secure(upstream.port), tls=trusting(authority))
            answer = await plane.ask(get())
            assert (answer.status, answer.get("proxy-status")) == (502, "bgproxy; error=tls_alert_received")
            ((_, reason),) = plane.failures
            assert reason.startswith("it refused TLS: certificate required")


async def test_who_speaks_no_tls_is_told_so(authority):
    """A plain server behind https:// is a 502 of TLS, not of HTTP."""

    async def script(reader, writer):
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with DataPlane() as plane:
        upstream = await plane.upstream(script)
        await serve(plane, secure(upstream.port), tls=trusting(authority))
        answer = await plane.ask(get())
        assert (answer.status, answer.get("proxy-status")) == (502, "bgproxy; error=tls_protocol_error")
        assert plane.failures[0][1] == "it does not speak TLS"


@pytest.mark.parametrize("closes", [True, False])
async def test_a_handshake_that_does_not_come_to_an_end(authority, *, closes):
    """Closed in its middle: 502 of TLS. Silent: 504 at the time-out for connecting."""

    async def script(reader, writer):
        await reader.read(1)
        if not closes:
            await reader.read()

    async with DataPlane(timeouts=schema.Timeouts(connect=0.1)) as plane:
        upstream = await plane.upstream(script)
        await serve(plane, secure(upstream.port), tls=trusting(authority))
        answer = await plane.ask(get())
        if closes:
            assert (answer.status, answer.get("proxy-status")) == (502, "bgproxy; error=tls_protocol_error")
        else:
            assert (answer.status, answer.get("proxy-status")) == (504, "bgproxy; error=connection_timeout")
            assert plane.failures[0][1] == "no connection, TLS included, within 0.1s"


async def test_another_upstream_gets_what_the_handshake_failed_for(authority, tmp_path):
    """Nothing was sent, so even a POST is safe with it."""
    good, bad = (server_context(authority.issue(tmp_path, name, stem=name)) for name in ("app.test", "other.test"))
    async with DataPlane() as plane:
        first, second = await tls_upstream(plane, OK, bad), await tls_upstream(plane, OK, good)
        await serve(
            plane, secure(first.port), secure(second.port, slot=1), tls=trusting(authority), balance="round_robin"
        )
        for _ in range(2):
            assert (await plane.ask(get("/", "Content-Length: 0", method="POST"))).status == 200


async def test_files_that_cannot_be_used_are_an_error_of_ours(authority):
    """Nobody is connected to; the client does not read the path."""
    async with DataPlane() as plane:
        await serve(plane, secure(1), tls=TlsSpec(trouble="/etc/x/ca.pem does not exist"))
        answer = await plane.ask(get())
        assert (answer.status, answer.get("proxy-status")) == (502, "bgproxy; error=proxy_configuration_error")
        assert b"/etc/x" not in answer.body
        assert plane.failures[0][1] == "/etc/x/ca.pem does not exist"


async def test_other_settings_hold_from_the_next_request_on(authority, tmp_path):
    """Connections that were made by the old ones are not used again; one under way ends in peace."""
    context = server_context(authority.issue(tmp_path, "app.test"))
    gate = asyncio.Event()

    async def script(reader, writer):
        while True:
            head = await read_head(reader)
            if b"/slow" in head:
                await gate.wait()
            writer.write(OK)

    async with DataPlane() as plane:
        upstream = await tls_upstream(plane, script, context)
        await serve(plane, secure(upstream.port), tls=trusting(authority))
        assert (await plane.ask(get())).status == 200
        slow = await plane.connect()
        slow.send(get("/slow"))
        await until(lambda: plane.blue.upstreams[0].in_flight)
        spec = plane.context.services["shop"].spec
        blue = replace(spec.pools[0], tls=trusting(Authority()))
        plane.change(spec, pools=(blue, spec.pools[1]))
        assert (await plane.ask(get())).status == 502
        gate.set()
        assert (await slow.response()).status == 200
        await until(lambda: not plane.context.servers)
        assert plane.blue.in_flight == [0, 0, 0]


@pytest.mark.parametrize("polite", [True, False])
async def test_a_body_without_a_length_must_be_ended_by_tls(authority, tmp_path, *, polite):
    """Over TLS its end is told by close_notify; a connection that just ends has been cut (RFC 9112 section 9.8)."""
    context = server_context(authority.issue(tmp_path, "app.test"))

    async def script(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nbody")
        await writer.drain()
        if not polite:
            await asyncio.sleep(0.05)  # so that the bytes go out before the end
            writer.transport.abort()

    async with DataPlane() as plane:
        upstream = await tls_upstream(plane, script, context)
        await serve(plane, secure(upstream.port), tls=trusting(authority))
        wire = await plane.connect()
        wire.send(get())
        if polite:
            assert (await wire.response()).body == b"body"
        else:
            assert not (await wire.ended()).endswith(b"0\r\n\r\n")


async def test_what_waits_for_a_slow_client_is_not_lost_when_the_upstream_closes(authority, tmp_path):
    """A long answer, its connection closed at once behind it, and a client that reads late: all of it arrives."""
    context = server_context(authority.issue(tmp_path, "app.test"))
    body = b"x" * 16_000_000  # more than the sockets between hold

    async def script(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()

    async with DataPlane() as plane:
        upstream = await tls_upstream(plane, script, context)
        await serve(plane, secure(upstream.port), tls=trusting(authority))
        wire = await plane.connect()
        wire.writer.transport.pause_reading()
        wire.send(get())
        await until(lambda: plane.clients and plane.clients[0].write_paused)
        await asyncio.sleep(0.1)  # the upstream has long written and closed by then, if it can
        wire.writer.transport.resume_reading()
        assert len((await wire.response()).body) == len(body)


async def test_an_upgraded_connection_ends_for_both_when_tls_does(authority, tmp_path):
    """TLS has no half-closes here: bytes go both ways, and the upstream's end is the client's."""
    context = server_context(authority.issue(tmp_path, "app.test"))

    async def script(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
        writer.write(await reader.readexactly(4))

    async with DataPlane() as plane:
        upstream = await tls_upstream(plane, script, context)
        await serve(plane, secure(upstream.port), tls=trusting(authority))
        wire = await plane.connect()
        wire.send(get("/", "Connection: Upgrade", "Upgrade: x"))
        assert (await wire.head()).status == 101
        wire.send(b"ping")
        assert await wire.ended() == b"ping"
        await until(lambda: not plane.context.servers)


# --- PROXY headers --------------------------------------------------------------------------------------------------


def announced(reader_of):
    """A script that reads a PROXY header, tells what it says, and answers."""

    async def script(reader, writer):
        decoder = HeaderDecoder()
        found = None
        while found is None:
            found = decoder.feed(await reader.readexactly(1))
        reader_of.append(found.source)
        while True:
            await read_head(reader)
            writer.write(OK)

    return script


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_header_announces_the_client_of_each_connection(version):
    """A connection that begins with one client's address is nobody else's: it is not kept, nor opened ahead."""
    async with DataPlane() as plane:
        told = []
        upstream = await plane.upstream(announced(told))
        spec = await plane.serve(upstream)
        plane.change(spec, pools=(replace(spec.pools[0], send_proxy=version), spec.pools[1]))
        wires = [await plane.connect() for _ in range(2)]
        for wire in wires:
            wire.send(get())
            assert (await wire.response()).status == 200
        assert told == [wire.writer.get_extra_info("sockname") for wire in wires]
        await warm(plane.context, plane.blue.upstreams[0], 3)
        assert (upstream.connections, plane.blue.upstreams[0].idle) == (2, [])


async def test_a_header_goes_before_tls(authority, tmp_path):
    """In the clear, as HAProxy sends it; then the handshake."""
    context = server_context(authority.issue(tmp_path, "app.test"))
    lines: list[bytes] = []
    with TlsBackend("blue", context, lines=lines) as upstream:
        async with DataPlane() as plane:
            await serve(plane, secure(upstream.port), tls=trusting(authority), send_proxy="v1")
            assert (await plane.ask(get())).body == b"blue"
            assert lines[0].startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")


def test_the_helpers_authority_is_real(tmp_path):
    """What the tests above trust verifies by itself."""
    authority, files = issue(tmp_path)
    assert isinstance(server_context(files), ssl.SSLContext)
    assert authority.client_context().verify_mode is ssl.CERT_REQUIRED
