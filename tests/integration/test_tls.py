"""TLS on listeners, with real certificates and real clients: SNI, client certificates, 421, redirects, renewal under load."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from typing import Self

import pytest
from support.backends import Backend
from support.certificates import DAY, Authority, replace
from support.http import Client, Response, TruncatedError
from support.proxy import Proxy
from support.waiting import eventually


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def site(authority, tmp_path):
    """Two certificates in files: the default one, with a wildcard, and one more."""
    return (
        authority.issue(tmp_path, "shop.test", "*.shop.test", "localhost", stem="shop"),
        authority.issue(tmp_path, "api.test", stem="api"),
    )


@pytest.fixture
def backend():
    with Backend() as running:
        yield running


def listener(*pairs, **tls):
    return {"address": "127.0.0.1:0", "tls": {"certificates": [pair.as_config() for pair in pairs], **tls}}


class TlsClient(Client):
    """A connection over TLS; `name` is asked for by SNI, unless it is empty."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext, name: str = "shop.test") -> None:
        super().__init__(address)
        if not name:
            context.check_hostname = False
        try:
            self.sock = context.wrap_socket(self.sock, server_hostname=name or None)
        except BaseException:
            self.sock.close()
            raise

    def names(self) -> set[str]:
        """Of the certificate that was served."""
        return {name for _, name in self.sock.getpeercert()["subjectAltName"]}


def test_requests_over_tls(authority, site, backend, tmp_path):
    """TLS 1.3 by default and 1.2 where asked for, ALPN http/1.1, and the upstream learns how the client came."""
    with Proxy(tmp_path / "proxy", blue=[backend.url], listen=[listener(*site)]) as proxy:
        context = authority.client_context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        with TlsClient(proxy.address, context) as client:
            assert (client.sock.version(), client.sock.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
            assert client.sock.compression() is None
            for _ in range(3):
                answer = client.get("/", Host="shop.test")
                assert answer.status == 200
        seen = backend.requests[-1]
        assert seen.header("X-Forwarded-Proto") == "https"
        assert seen.header("X-Forwarded-Port") == str(proxy.address[1])
        context = authority.client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with TlsClient(proxy.address, context) as client:
            assert client.sock.version() == "TLSv1.2"
            assert client.sock.cipher()[0].startswith("ECDHE-")
            assert client.get("/", Host="shop.test").status == 200


def test_a_large_body_goes_through_both_ways(authority, site, backend, tmp_path):
    """Megabytes up and down, byte for byte."""
    with (
        Proxy(tmp_path / "proxy", blue=[backend.url], listen=[listener(*site)]) as proxy,
        TlsClient(proxy.address, authority.client_context()) as client,
    ):
        body = bytes(range(256)) * 8192
        answer = client.request("POST", "/echo", {"Host": "shop.test"}, body)
        assert (answer.status, answer.body) == (200, body)


@pytest.mark.parametrize("secure", [True, False])
def test_an_answer_cut_short_does_not_end_in_order_for_a_client_of_http_1_0(
    authority, site, backend, tmp_path, *, secure
):
    """A close_notify, or a FIN, would tell it that this was all; a whole answer has one."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
    backend.script("/cut", head, close=True)
    backend.script("/whole", head, b"4\r\nhalf\r\n0\r\n\r\n")
    listen = [listener(*site)] if secure else ["127.0.0.1:0"]
    with Proxy(tmp_path / "proxy", blue=[backend.url], listen=listen) as proxy:
        for target, whole in (("/cut", False), ("/whole", True)):
            with socket.create_connection(proxy.address, timeout=10) as sock, contextlib.ExitStack() as stack:
                if secure:
                    context = authority.client_context()
                    sock = context.wrap_socket(sock, server_hostname="shop.test", suppress_ragged_eofs=False)  # noqa: PLW2901
                    stack.enter_context(sock)
                sock.sendall(f"GET {target} HTTP/1.0\r\nHost: shop.test\r\n\r\n".encode())
                got = b""
                with contextlib.nullcontext() if whole else pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
                    while data := sock.recv(4096):
                        got += data
                assert got.endswith(b"halfhalf" if whole else b"half")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2])
def test_old_versions_are_refused(authority, site, backend, tmp_path, version):
    """Below `min_version` there is no handshake; it is counted."""
    least = "1.3" if version == ssl.TLSVersion.TLSv1_2 else "1.2"
    with Proxy(tmp_path / "proxy", blue=[backend.url], listen=[listener(*site, min_version=least)]) as proxy:
        context = authority.client_context()
        context.set_ciphers("ALL:@SECLEVEL=0")
        with (
            pytest.warns(DeprecationWarning, match="TLSv1_1")
            if version == ssl.TLSVersion.TLSv1_1
            else contextlib.nullcontext()
        ):
            context.minimum_version = version
            context.maximum_version = version
        with pytest.raises(OSError, match=r"(?i)alert|closed|reset|eof"):
            TlsClient(proxy.address, context)
        eventually(lambda: _metric(proxy, 'bgproxy_tls_handshakes_failed_total{reason="refused"}') >= 1.0)


def _metric(proxy: Proxy, name: str) -> float:
    _, text = proxy.api("GET", "/metrics")
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name + " "))


def test_the_certificate_is_chosen_by_name(authority, site, backend, tmp_path):
    """Exact name, wildcard, and the first where none was asked for or none fits."""
    with Proxy(tmp_path / "proxy", blue=[backend.url], listen=[listener(*site)]) as proxy:
        for name, expected in (("api.test", "api.test"), ("eu.shop.test", "*.shop.test"), ("shop.test", "shop.test")):
            with TlsClient(proxy.address, authority.client_context(), name) as client:
                assert expected in client.names()
        with TlsClient(proxy.address, authority.client_context(), "") as client:
            assert "shop.test" in client.names()
        context = authority.client_context()
        context.check_hostname = False
        for stranger in ("other.test", "a.b.shop.test"):
            with TlsClient(proxy.address, context, stranger) as client:
                assert "shop.test" in client.names()


def test_row_66_a_host_that_the_certificate_does_not_speak_for_is_misdirected(authority, site, backend, tmp_path):
    """421 by the certificate that was served, and the connection goes on; not where the client asked for no name."""
    with Proxy(tmp_path / "proxy", blue=[backend.url], listen=[listener(*site, hsts="1d")]) as proxy:
        with TlsClient(proxy.address, authority.client_context(), "api.test") as client:
            assert client.get("/", Host="api.test").status == 200
            wrong = client.get("/", Host="shop.test")
            assert (wrong.status, wrong.header("Proxy-Status")) == (421, "bgproxy; error=http_request_denied")
            assert wrong.header("Strict-Transport-Security") == "max-age=86400"
            assert client.get("/", Host="api.test:8443").status == 200
            assert client.get("/", Host="shop.test").status == 421
        with TlsClient(proxy.address, authority.client_context(), "shop.test") as client:
            assert client.get("/", Host="eu.shop.test").status == 200
            assert client.get("/", Host="a.eu.shop.test").status == 421
        with TlsClient(proxy.address, authority.client_context(), "") as client:
            assert client.get("/", Host="127.0.0.1").status == 200
        assert {request.header("Host") for request in backend.requests if request.target == "/"} == {
            "api.test",
            "api.test:8443",
            "eu.shop.test",
            "127.0.0.1",
        }


def test_hsts_on_every_answer_once(authority, site, backend, tmp_path):
    """On answers of upstreams, on our own, not over plain HTTP."""
    listen = [listener(*site, hsts="365d"), "127.0.0.1:0"]
    with Proxy(tmp_path / "proxy", blue=[backend.url], listen=listen) as proxy:
        with TlsClient(proxy.address, authority.client_context()) as client:
            for _ in range(2):
                assert client.get("/", Host="shop.test").all("Strict-Transport-Security") == ["max-age=31536000"]
            assert client.request("BAD METHOD", "/").all("Strict-Transport-Security") == ["max-age=31536000"]
        host, _, port = proxy.serving["listen"][1].rpartition(":")
        with Client((host, int(port))) as client:
            assert client.get("/", Host="shop.test").all("Strict-Transport-Security") == []


def test_redirect_to_https(backend, tmp_path):
    """308 to the name that Host has, path and query kept; a request without a name cannot be redirected."""
    listen = [{"address": "127.0.0.1:0", "redirect": "https"}]
    with Proxy(tmp_path / "proxy", blue=[backend.url], listen=listen) as proxy:
        before = len([request for request in backend.requests if request.target != "/health"])
        with proxy.client() as client:
            for target in ("/", "/a/b%20c?d=e&f=%2F", "//x"):
                answer = client.get(target, Host="Shop.test:8080")
                assert (answer.status, answer.header("Location")) == (308, f"https://shop.test{target}")
                assert answer.header("Proxy-Status") is None
            assert client.request("OPTIONS", "*", {"Host": "shop.test"}).status == 400
        with proxy.client() as client:
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            assert client.read_response("GET").status == 400
        with proxy.client() as client:
            answer = client.request("POST", "/x", {"Host": "shop.test", "Content-Length": "3"}, b"abc")
            assert (answer.status, answer.header("Location")) == (308, "https://shop.test/x")
        assert len([request for request in backend.requests if request.target != "/health"]) == before


def test_client_certificates(authority, site, backend, tmp_path):
    """Required: without one, and with one of another authority, nobody gets an answer."""
    stranger = Authority()
    mine = authority.issue(tmp_path, "me.test", stem="mine")
    other = stranger.issue(tmp_path, "me.test", stem="other")
    # Its chain is in the file, and so is what the server needs to know of between leaf and root.
    listen = [listener(*site, client_ca=authority.write(tmp_path))]
    with Proxy(tmp_path / "proxy", blue=[backend.url], listen=listen) as proxy:
        for _ in range(2):
            with TlsClient(proxy.address, authority.client_context(mine)) as client:
                assert client.get("/", Host="shop.test").status == 200
        for context in (authority.client_context(), authority.client_context(other)):
            with pytest.raises((OSError, TruncatedError)), TlsClient(proxy.address, context) as client:
                client.get("/", Host="shop.test")
        eventually(lambda: _metric(proxy, 'bgproxy_tls_handshakes_failed_total{reason="refused"}') == 2.0)


def test_optional_client_certificates(authority, site, backend, tmp_path):
    """Who has none may come; who shows a wrong one may not."""
    other = Authority().issue(tmp_path, "me.test", stem="other")
    listen = [listener(*site, client_ca=authority.write(tmp_path), client_auth="optional")]
    with Proxy(tmp_path / "proxy", blue=[backend.url], listen=listen) as proxy:
        with TlsClient(proxy.address, authority.client_context()) as client:
            assert client.get("/", Host="shop.test").status == 200
        strange = authority.client_context(other)
        with pytest.raises((OSError, TruncatedError)), TlsClient(proxy.address, strange) as client:
            client.get("/", Host="shop.test")


def test_a_handshake_that_stalls_is_ended(authority, site, backend, tmp_path):
    """Within `timeouts.header`; plain HTTP to a TLS port is ended at once, and both are counted."""
    timeouts = {"header": "500ms"}
    with Proxy(tmp_path / "proxy", blue=[backend.url], listen=[listener(*site)], timeouts=timeouts) as proxy:
        with socket.create_connection(proxy.address, timeout=5) as stalled:
            begun = time.monotonic()
            assert stalled.recv(1) == b""
            assert 0.3 < time.monotonic() - begun < 3.0
        eventually(lambda: _metric(proxy, 'bgproxy_tls_handshakes_failed_total{reason="timeout"}') == 1.0)
        with socket.create_connection(proxy.address, timeout=5) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                while plain.recv(4096):
                    pass
        eventually(lambda: _metric(proxy, 'bgproxy_tls_handshakes_failed_total{reason="refused"}') == 1.0)
        with TlsClient(proxy.address, authority.client_context()) as client:
            assert client.get("/", Host="shop.test").status == 200


def test_an_error_is_read_over_tls(authority, site, backend, tmp_path):
    """A client that is refused in the middle of its body reads why."""
    with Proxy(
        tmp_path / "proxy", blue=[backend.url], listen=[listener(*site)], limits={"body_bytes": "1KiB"}
    ) as proxy:
        with TlsClient(proxy.address, authority.client_context()) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100000\r\n\r\n" + bytes(5000))
            assert client.read_response("POST").status == 413
        assert "Traceback" not in proxy.log()


def test_sessions_cookies_are_secure_over_tls(authority, site, backend, tmp_path):
    """And are not over plain HTTP, where a browser would drop them."""
    listen = [listener(*site), "127.0.0.1:0"]
    with Proxy(tmp_path / "proxy", blue=[backend.url], listen=listen, sessions={"mode": "cookie"}) as proxy:
        with TlsClient(proxy.address, authority.client_context()) as client:
            assert (client.get("/", Host="shop.test").header("Set-Cookie") or "").endswith("; Secure")
        host, _, port = proxy.serving["listen"][1].rpartition(":")
        with Client((host, int(port))) as client:
            assert "Secure" not in (client.get("/", Host="shop.test").header("Set-Cookie") or "Secure")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not there")
def test_curl(authority, site, backend, tmp_path):
    """A client that checks everything takes it."""
    with Proxy(tmp_path / "proxy", blue=[backend.url], listen=[listener(*site)]) as proxy:
        port = proxy.address[1]
        done = subprocess.run(
            [
                "curl",
                "-sS",
                "--cacert",
                authority.write(tmp_path),
                "--resolve",
                f"shop.test:{port}:127.0.0.1",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                f"https://shop.test:{port}/",
            ],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert (done.stdout, done.stderr) == ("200", "")


# --- renewal --------------------------------------------------------------------------------------------------------


class Newcomers(threading.Thread):
    """Comes anew for each request, with a whole handshake, and notes what went wrong."""

    def __init__(self, proxy: Proxy, context: ssl.SSLContext) -> None:
        super().__init__(name="newcomers")
        self.address = proxy.address
        self.context = context
        self.over = threading.Event()
        self.requests = 0
        self.failures: list[str] = []

    def run(self) -> None:
        while not self.over.is_set():
            try:
                with TlsClient(self.address, self.context) as client:
                    answer: Response = client.get("/", Host="shop.test")
                if answer.status != 200:
                    self.failures.append(str(answer.status))
            except Exception as error:  # noqa: BLE001 - whatever it is, the test wants to know
                self.failures.append(repr(error))
            self.requests += 1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join(20)


def serial(proxy: Proxy, context: ssl.SSLContext) -> str:
    with TlsClient(proxy.address, context) as client:
        return str(client.sock.getpeercert()["serialNumber"])


@pytest.mark.slow
def test_twenty_renewals_under_load(authority, site, backend, tmp_path):
    """Each is in force in every worker after a reload, no handshake and no request fails, and no connection is closed."""
    with Proxy(tmp_path / "proxy", blue=[backend.url], listen=[listener(*site)], workers=2) as proxy:
        context = authority.client_context()
        with TlsClient(proxy.address, context) as steady, Newcomers(proxy, context) as load:
            first = str(steady.sock.getpeercert()["serialNumber"])
            seen = {first}
            for _ in range(20):
                authority.issue(tmp_path, "shop.test", "*.shop.test", "localhost", stem="shop")
                code, answer = proxy.api("POST", "/v1/reload", {})
                assert code == 200, answer
                now = {serial(proxy, context) for _ in range(8)}
                assert len(now) == 1
                assert not now & seen
                seen |= now
                assert steady.get("/", Host="shop.test").status == 200
        assert load.requests > 20
        assert load.failures == []
        assert len(seen) == 21


def test_renewed_files_are_noticed(authority, site, backend, tmp_path):
    """Without a word to bgproxy; the status and the metrics say until when the new one is valid."""
    with Proxy(tmp_path / "proxy", blue=[backend.url], listen=[listener(*site)], workers=1) as proxy:
        context = authority.client_context()
        first = serial(proxy, context)
        authority.issue(tmp_path, "shop.test", "localhost", stem="shop", not_after=90 * DAY)
        eventually(lambda: serial(proxy, context) != first, within=10.0)
        told = proxy.status()["certificates"]
        assert [each["cert"] for each in told] == [site[0].cert, site[1].cert]
        assert (told[0]["names"], told[0]["problem"]) == (["shop.test", "localhost"], "")
        name = f'bgproxy_certificate_not_after_seconds{{cert="{site[0].cert}"}}'
        assert _metric(proxy, name) == pytest.approx(time.time() + 90 * 86400, abs=120)


@pytest.mark.slow
def test_a_broken_new_file_keeps_the_old_certificate(authority, site, backend, tmp_path):
    """It is logged, and in the status and the metrics; a worker that starts anew has the old one too; then all is well again."""
    with Proxy(tmp_path / "proxy", blue=[backend.url], listen=[listener(*site)], workers=1) as proxy:
        context = authority.client_context()
        first = serial(proxy, context)
        good = Path(site[0].cert).read_bytes()
        replace(site[0].cert, good[: len(good) // 3])
        problem = f'bgproxy_certificate_refused{{cert="{site[0].cert}"}}'
        eventually(lambda: _metric(proxy, problem) == 1.0, within=15.0)
        assert "cut short" in proxy.status()["certificates"][0]["problem"]
        assert serial(proxy, context) == first
        os.kill(proxy.worker_pids()[0], signal.SIGKILL)
        assert serial(proxy, context) == first, "of the worker that took its place: connections wait for it"
        code, answer = proxy.api("POST", "/v1/reload", {})
        assert code in {409, 422}, answer
        assert "cut short" in json.dumps(answer)
        assert serial(proxy, context) == first
        authority.issue(tmp_path, "shop.test", "localhost", stem="shop")
        eventually(lambda: serial(proxy, context) != first, within=15.0)
        eventually(lambda: _metric(proxy, problem) == 0.0)


def test_a_listener_is_not_changed_by_a_reload(authority, site, backend, tmp_path):
    """Which certificates there are is part of `listen`, which only a restart can change: it is named."""
    with Proxy(tmp_path / "proxy", blue=[backend.url], listen=[listener(*site)], workers=1) as proxy:
        proxy.config["listen"] = [listener(site[1])]
        proxy.write()
        code, answer = proxy.api("POST", "/v1/reload", {})
        assert code == 409
        assert "Only a restart can change listen" in answer["detail"]


def test_the_start_is_refused_with_a_bad_certificate(authority, backend, tmp_path):
    """Exit status 2, and the line of the file."""
    expired = authority.issue(tmp_path, "a.test", not_before=-9 * DAY, not_after=-DAY)
    proxy = Proxy(tmp_path / "proxy", blue=[backend.url], listen=[listener(expired)], ready=False)
    assert proxy.process.wait(20) == 2
    assert "listen[0].tls.certificates[0].cert" in proxy.log()
    assert "expired on" in proxy.log()


def test_the_end_does_not_wait_for_clients_that_say_nothing(authority, site, backend, tmp_path):
    """Idle connections over TLS are closed at a stop, whether or not the client answers the close."""
    with (
        Proxy(tmp_path / "proxy", blue=[backend.url], listen=[listener(*site)]) as proxy,
        TlsClient(proxy.address, authority.client_context()) as client,
    ):
        assert client.get("/", Host="shop.test").status == 200
        begun = time.monotonic()
        assert proxy.stop() == 0
        assert time.monotonic() - begun < 8.0
