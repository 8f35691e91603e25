"""The certificate of the admin API: in force from the start, and anew when its files change."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from support.certificates import Authority
from support.fake_controller import FakeController, config

from bgproxy.admin.app import AdminServer
from bgproxy.admin.tls import Certificate
from bgproxy.config.schema import AdminTls
from bgproxy.errors import StartError


@pytest.fixture(scope="module")
def authority():
    return Authority()


def settings(files, **more: str) -> AdminTls:
    return AdminTls(cert=str(files.cert), key=str(files.key), **more)


def renew(authority, folder, files) -> None:
    """Put others in the place of the files."""
    renewed = authority.issue(folder, "localhost", stem="b")
    Path(renewed.key).replace(files.key)
    Path(renewed.cert).replace(files.cert)


def spoil(files) -> None:
    Path(files.cert).write_text("half a certifi")


class Served:
    """The API on a TLS socket; `controller.config` is the configuration in force."""

    def __init__(self, tls: AdminTls) -> None:
        self.controller = FakeController(config(tls=tls))
        self.sock = socket.socket()
        self.sock.bind(("127.0.0.1", 0))
        self.sock.listen()
        self.port = self.sock.getsockname()[1]
        self.server = AdminServer(self.controller, self.controller.config)

    async def __aenter__(self):
        await self.server.start([self.sock])
        return self

    async def __aexit__(self, *_):
        await self.server.stop()
        self.sock.close()

    async def serial(self, context: ssl.SSLContext, name: str = "localhost") -> str:
        """Which certificate it shows."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname=name)
        found = writer.get_extra_info("peercert")["serialNumber"]
        writer.close()
        del reader
        return found


async def test_the_api_is_served_over_tls(tmp_path, authority):
    """A client that trusts its authority is answered; one that does not, or that speaks plain HTTP, is not."""
    async with Served(settings(authority.issue(tmp_path, "localhost"))) as served:
        url = f"https://localhost:{served.port}/v1/status"
        async with aiohttp.ClientSession() as client:
            async with client.get(url, ssl=authority.client_context()) as answer:
                assert answer.status == 200
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await client.get(url)
            with pytest.raises(aiohttp.ClientError):
                await client.get(url.replace("https", "http"))


async def test_tls_1_1_is_not_spoken(tmp_path, authority):
    """1.2 is the least."""
    context = authority.client_context()
    made = Certificate(lambda: settings(authority.issue(tmp_path, "localhost"))).context()
    assert made.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


async def test_renewed_files_are_taken_without_a_reload(tmp_path, authority):
    """The next client sees the new certificate; a connection that is open stays."""
    files = authority.issue(tmp_path, "localhost", stem="a")
    async with Served(settings(files)) as served:
        context = authority.client_context()
        async with aiohttp.ClientSession() as client:
            url = f"https://localhost:{served.port}/healthz"
            async with client.get(url, ssl=context) as answer:
                assert answer.status == 200
            before = await served.serial(context)
            renew(authority, tmp_path, files)
            after = await served.serial(context)
            assert after != before
            async with client.get(url, ssl=context) as answer:
                assert answer.status == 200


async def test_files_that_turn_bad_change_nothing(tmp_path, authority, caplog):
    """The certificate in force stays, and the log says why, once."""
    caplog.set_level(logging.INFO)
    files = authority.issue(tmp_path, "localhost")
    async with Served(settings(files)) as served:
        context = authority.client_context()
        before = await served.serial(context)
        spoil(files)
        for _ in range(2):
            assert await served.serial(context) == before
        said = [record.getMessage() for record in caplog.records if "admin.tls.cert" in record.getMessage()]
        assert len(said) == 1
        assert "the certificate that is in force stays" in said[0]


async def test_a_reload_that_names_other_files_puts_them_in_force(tmp_path, authority):
    """For the next client."""
    first = authority.issue(tmp_path, "localhost", stem="a")
    second = authority.issue(tmp_path, "localhost", stem="b")
    async with Served(settings(first)) as served:
        context = authority.client_context()
        before = await served.serial(context)
        served.controller.config = replace(served.controller.config, admin=config(tls=settings(second)).admin)
        assert await served.serial(context) != before


async def test_clients_show_a_certificate_where_that_is_asked_for(tmp_path, authority):
    """Without one of the authority there is no answer; renewed files ask for it as well."""
    files = authority.issue(tmp_path, "localhost", stem="a")
    mine = authority.issue(tmp_path, "ci.test", stem="mine")
    async with Served(settings(files, client_ca=str(authority.write(tmp_path)))) as served:
        url = f"https://localhost:{served.port}/v1/status"
        for _ in range(2):
            async with aiohttp.ClientSession() as client:
                with pytest.raises(aiohttp.ClientError):
                    await client.get(url, ssl=authority.client_context())
                context = authority.client_context()
                context.load_cert_chain(mine.cert, mine.key)
                async with client.get(url, ssl=context) as answer:
                    assert answer.status == 200
            renew(authority, tmp_path, files)


async def test_a_reload_that_begins_to_ask_for_certificates_is_obeyed(tmp_path, authority):
    """From the next client on: one without is let in no more, not by a session of before either."""
    files = authority.issue(tmp_path, "localhost", stem="a")
    mine = authority.issue(tmp_path, "ci.test", stem="mine")
    asking = settings(files, client_ca=str(authority.write(tmp_path)))
    async with Served(settings(files)) as served:
        without, known = authority.client_context(), authority.client_context()
        known.load_cert_chain(mine.cert, mine.key)
        sessions: list[ssl.SSLSession] = []
        assert await asyncio.to_thread(status_of, served.port, without, ssl.TLSVersion.TLSv1_2, sessions) == 200
        assert sessions
        served.controller.config = replace(served.controller.config, admin=config(tls=asking).admin)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            assert await asyncio.to_thread(status_of, served.port, without, version) is None
            assert await asyncio.to_thread(status_of, served.port, known, version) == 200
            for session in sessions:
                assert await asyncio.to_thread(status_of, served.port, without, version, [session]) is None
        served.controller.config = replace(served.controller.config, admin=config(tls=settings(files)).admin)
        assert await asyncio.to_thread(status_of, served.port, without, ssl.TLSVersion.TLSv1_3) == 200


def status_of(
    port: int, context: ssl.SSLContext, version: ssl.TLSVersion, sessions: list[ssl.SSLSession] | None = None
) -> int | None:
    """Of GET /v1/status; None if there is no answer. Begins with the first of `sessions`, and adds the one that it made."""
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_2, version
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        try:
            first = sessions[0] if sessions else None
            with context.wrap_socket(plain, server_hostname="localhost", session=first) as sock:
                sock.sendall(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answer = b"".join(iter(lambda: sock.recv(65536), b""))
                if sessions is not None and sock.session is not None:
                    sessions.append(sock.session)
                return int(answer.split()[1]) if answer else None
        except OSError:
            return None


async def test_who_does_not_finish_the_handshake_is_let_go(tmp_path, authority, monkeypatch):
    """After a deadline, so that silence costs a descriptor for seconds only."""
    monkeypatch.setattr("bgproxy.admin.handshakes.HANDSHAKE_WITHIN", 0.1)
    async with Served(settings(authority.issue(tmp_path, "localhost"))) as served:
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        assert time.monotonic() - began < 3
        writer.close()


def test_a_certificate_that_cannot_be_used_is_refused_at_start(tmp_path, authority):
    """The text names the key of the configuration and the file."""
    files = authority.issue(tmp_path, "localhost")
    with pytest.raises(StartError, match=r"admin\.tls\.cert: .*none does not exist"):
        Certificate(lambda: AdminTls(cert=str(tmp_path / "none"), key=str(files.key)))
