"""TLS with the clients that operators use: curl, openssl s_client, WebSockets; and who a client says it is."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shutil
import ssl
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
import uvloop
from support.backends import Backend
from support.certificates import Authority
from support.dataplane import DataPlane
from support.http import Client
from support.proxy import Proxy
from support.tls_upstreams import server_context
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError

from bgproxy.config.schema import Certificate, Limits, Listen, ListenTls, Timeouts
from bgproxy.model.snapshot import CertificateSpec, ProxySpec
from bgproxy.proxy.client import ClientConnection
from bgproxy.proxy.heads import Listener
from bgproxy.proxy.tls import Tls

RENEWALS = 20


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def backend():
    with Backend() as running:
        yield running


def listener(pair, **tls):
    return {"address": "127.0.0.1:0", "tls": {"certificates": [pair.as_config()], **tls}}


class TlsClient(Client):
    """A connection over TLS that asks for `name`."""

    def __init__(self, address, context: ssl.SSLContext, name: str = "shop.test") -> None:
        super().__init__(address)
        try:
            self.sock = context.wrap_socket(self.sock, server_hostname=name)
        except BaseException:
            self.sock.close()
            raise


def test_a_client_that_verifies_nothing_is_misdirected_all_the_same(authority, backend, tmp_path):
    """421: the default certificate does not speak for the name that was asked for, and neither does Host's."""
    site = authority.issue(tmp_path, "shop.test", stem="shop")
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    with (
        Proxy(tmp_path / "proxy", blue=[backend.url], listen=[listener(site)]) as proxy,
        TlsClient(proxy.address, unverified, "other.test") as client,
    ):
        assert client.get("/", Host="other.test").status == 421
        assert client.get("/", Host="shop.test").status == 200
        assert client.get("/", Host="other.test").status == 421
    assert {each.header("Host") for each in backend.requests if each.target == "/"} == {"shop.test"}


def test_upstreams_are_told_which_certificate_a_client_has_shown(authority, backend, tmp_path):
    """`Client-Cert` by RFC 9440, of each connection its own, also from one address and on kept connections."""
    site = authority.issue(tmp_path, "shop.test", stem="shop")
    clients = [authority.issue(tmp_path, f"{name}.test", stem=name) for name in ("ann", "bob")]
    ca = authority.write(tmp_path)
    listen = [listener(site, client_ca=ca, client_auth="optional"), "127.0.0.1:0"]
    forged = {"Client-Cert": ":Zm9yZ2Vk:", "client-cert-chain": ":Zm9yZ2Vk:", "Client_Cert": "x"}
    with Proxy(tmp_path / "proxy", blue=[backend.url], listen=listen, workers=1) as proxy:
        for own in (*clients, None, *clients, None):
            expected = None
            if own is not None:
                leaf = Path(own.cert).read_text().partition("-----END")[0] + "-----END CERTIFICATE-----\n"
                expected = f":{base64.b64encode(ssl.PEM_cert_to_DER_cert(leaf)).decode()}:"
            with TlsClient(proxy.address, authority.client_context(own)) as client:
                for more in ({}, {}, forged, {"Max-Forwards": "7"}):
                    assert client.get("/", Host="shop.test", **more).status == 200
                    seen = backend.requests[-1]
                    lines = [value for name, value in seen.headers if name.lower() == "client-cert"]
                    assert lines == ([expected] if expected else [])
                    assert seen.header("Client-Cert-Chain") is None
                    assert seen.header("Client_Cert") is None
        host, _, port = proxy.serving["listen"][1].rpartition(":")
        with Client((host, int(port))) as client:
            assert client.get("/", Host="shop.test", **forged).status == 200
            assert backend.requests[-1].header("Client-Cert") is None, "an upstream cannot tell by which way it came"


def test_without_client_certificates_the_field_is_the_applications(backend, tmp_path):
    """Nobody here says who a client is, so nothing is taken away."""
    with Proxy(tmp_path / "proxy", blue=[backend.url]) as proxy:
        assert proxy.get("/", **{"Client-Cert": ":eA==:"}).status == 200
        assert backend.requests[-1].header("Client-Cert") == ":eA==:"


def test_a_redirect_to_another_port(backend, tmp_path):
    """`redirect: https:8443` names the port; `https` does not, since 443 goes without saying."""
    listen = [{"address": "127.0.0.1:0", "redirect": text} for text in ("https:8443", "https:443")]
    with Proxy(tmp_path / "proxy", blue=[backend.url], listen=listen) as proxy:
        for address, expected in zip(proxy.serving["listen"], ("shop.test:8443", "shop.test"), strict=True):
            host, _, port = address.rpartition(":")
            with Client((host, int(port))) as client:
                answer = client.get("/a?b=c", Host="shop.test:8080")
                assert (answer.status, answer.header("Location")) == (308, f"https://{expected}/a?b=c")


def test_websockets_over_tls_on_both_sides(authority, tmp_path):
    """A wss client to the proxy, and TLS from there to the upstream: every message comes back, and the closing code arrives."""
    site = authority.issue(tmp_path, "shop.test", "127.0.0.1", stem="shop")
    messages = ["", "text", bytes(range(256)), "x" * 300_000, b"y" * (1 << 20)]
    closed: list[int | None] = []

    async def echo(peer: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosedError):  # 4001 is an end that `websockets` calls an error
            async for message in peer:
                await peer.send(message)
        closed.append(peer.close_code)

    async def talk() -> None:
        async with serve(echo, "127.0.0.1", 0, ssl=server_context(site), max_size=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            pools = {"blue": {"upstreams": [f"https://127.0.0.1:{port}"], "tls": {"ca": authority.write(tmp_path)}}}
            config = {"pools": pools, "health": {"type": "tcp"}, "listen": [listener(site)]}
            proxy = await asyncio.to_thread(Proxy(tmp_path / "proxy", **config).__enter__)
            try:
                host, at = proxy.address
                there = connect(
                    f"wss://shop.test:{at}/", host=host, port=at, ssl=authority.client_context(), max_size=None
                )
                async with asyncio.timeout(20), there as client:
                    for message in messages:
                        await client.send(message)
                        assert await client.recv() == message
                    await client.close(4001, "enough")
            finally:
                await asyncio.to_thread(proxy.__exit__, None, None, None)

    asyncio.run(talk())
    assert closed == [4001]


@pytest.mark.parametrize("program", ["curl", "openssl"])
def test_programs_through_twenty_renewals(authority, tmp_path, program):
    """Each takes every one of the certificates, verified, over a connection of its own, and gets its answer."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not on this machine")
    listen = Listen(address=":443", tls=ListenTls(certificates=(Certificate(cert="shop", key="shop.key"),)))
    ca = authority.write(tmp_path)

    async def run(port: int) -> tuple[str, str]:
        curl = ["curl", "-sS", "-w", "%{http_code}", "--cacert", ca, "--resolve", f"shop.test:{port}:127.0.0.1"]
        openssl = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "shop.test", "-CAfile", ca]
        openssl += ["-verify_return_error", "-verify_hostname", "shop.test", "-ign_eof"]
        command = [*curl, f"https://shop.test:{port}/"] if program == "curl" else openssl
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        try:
            async with asyncio.timeout(20):
                told = await process.communicate(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, told
        return told[0].decode(), told[1].decode()

    def issued() -> CertificateSpec:
        files = authority.issue(tmp_path, "shop.test", stem="shop")
        return CertificateSpec("shop", ("shop.test",), Path(files.cert).read_bytes(), Path(files.key).read_bytes())

    async def renew() -> None:
        async with DataPlane() as plane:
            answers = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
            await plane.serve([await plane.upstream(answers)])
            tls = Tls(plane.context, [listen])
            about = Listener(443, unix=False, tls=True)
            made = tls.counting(lambda: ClientConnection(plane.context, about), listen)
            loop = asyncio.get_running_loop()
            server = await loop.create_server(made, "127.0.0.1", 0, ssl=tls.context_of(listen))
            port = server.sockets[0].getsockname()[1]
            served: set[str] = set()
            for _ in range(RENEWALS):
                spec = issued()
                chain = spec.chain
                tls.take(ProxySpec(Limits(), Timeouts(), (), "off", b"", certificates=(spec,)))
                said, complaints = await run(port)
                if program == "curl":
                    assert (said, complaints) == ("hello200", "")
                else:
                    assert "Verify return code: 0 (ok)" in said
                    assert "HTTP/1.1 200 OK" in said
                    leaf = said[said.index("-----BEGIN") :].partition("-----END")[0].strip()
                    assert chain.decode().startswith(leaf)
                    served.add(leaf)
            server.close()
            assert len(served) == (RENEWALS if program == "openssl" else 0)

    uvloop.run(renew())
