"""The client of the admin API: addresses, errors in words, tokens, Unix sockets."""

from __future__ import annotations

import socket
import threading

import pytest
from support.fake_admin import FakeAdmin, problem, service

from bgproxy.cli.client import Address, ApiError, Client, service_path, sole_service
from bgproxy.cli.exits import UnreachableError, UsageError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://127.0.0.1:8900", "http://127.0.0.1:8900"),
        ("127.0.0.1:8900", "http://127.0.0.1:8900"),
        ("http://admin.internal/", "http://admin.internal:80"),
        ("http://[::1]:8900", "http://[::1]:8900"),
        ("https://admin.internal:8900", "https://admin.internal:8900"),
        ("https://admin.internal", "https://admin.internal:443"),
        ("unix:/run/a.sock", "unix:/run/a.sock"),
        ("unix:///run/a.sock", "unix:/run/a.sock"),
    ],
)
def test_addresses(text, shown):
    """Every way to write an address is shown in one way."""
    assert str(Address.parse(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "https://a:1/x",
        "http://a:1/x",
        "http://",
        "http://a:99999",
        "unix:a.sock",
        "http://u@a:1",
        "http://[::1",
        "ftp://a",
        "ftp://a:1",
    ],
)
def test_ill_addresses(text):
    """What is no address is wrong usage, and the text says what one looks like."""
    with pytest.raises(UsageError, match=r"must be http\[s\]://HOST:PORT or unix:/PATH|given as unix:/PATH"):
        Address.parse(text)


def test_nothing_listens():
    """A refused connection names the address and how to give another."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", sock.getsockname()[1])
    with pytest.raises(
        UnreachableError, match=rf"{address.port} cannot be reached: Connection refused.*--admin URL or BGPROXY_ADMIN"
    ):
        Client(address).get("/v1/status")


def test_missing_socket_file(tmp_path):
    """A Unix socket that is not there is said as such."""
    with pytest.raises(UnreachableError, match=r"unix:.*No such file"):
        Client(Address(path=str(tmp_path / "none"))).get("/v1/status")


def test_unix_socket(tmp_path):
    """The API is reached over a Unix socket as over TCP."""
    fake = FakeAdmin(tmp_path / "admin.sock")
    try:
        assert Client(Address.parse(fake.url)).get("/v1/status").data["program"] == "bgproxy"
    finally:
        fake.stop()


def test_token_is_sent(admin, monkeypatch):
    """BGPROXY_TOKEN is the bearer token."""
    monkeypatch.setenv("BGPROXY_TOKEN", "secret\n")
    Client.of(None).get("/v1/status")
    assert admin.requests[0][2]["Authorization"] == "Bearer secret"


def test_ill_token(monkeypatch):
    """A token that no header can carry is wrong usage; it is not shown."""
    monkeypatch.setenv("BGPROXY_TOKEN", "geh\u00e4im")
    with pytest.raises(UsageError, match="BGPROXY_TOKEN") as caught:
        Client.of(None)
    assert "geh" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "slug", "exit_status", "remedy"),
    [
        (400, "malformed", 2, ""),
        (401, "unauthorized", 4, "set BGPROXY_TOKEN"),
        (403, "forbidden", 4, "another role"),
        (404, "not-found", 2, ""),
        (409, "busy", 4, "try again"),
        (409, "refused", 4, ""),
        (412, "stale", 4, "decide anew"),
        (422, "invalid", 2, ""),
        (500, "internal", 1, ""),
        (503, "unavailable", 1, "shows the workers"),
        (507, "state-not-written", 1, ""),
    ],
)
def test_problems(admin, status, slug, exit_status, remedy):
    """Each problem becomes its text, its details, a way on, and an exit status."""
    admin.script["GET", "/x"] = lambda: problem(status, slug, "what \x1b[31mhappened", "line one")
    with pytest.raises(ApiError) as caught:
        Client.of(None).get("/x")
    assert caught.value.status == exit_status
    first, second, *rest = str(caught.value).splitlines()
    assert (first, second) == ("what ?[31mhappened", "  line one")
    assert remedy in "".join(rest)


@pytest.mark.parametrize("status", [200, 302, 404])
def test_something_else_listens(admin, status):
    """A web server that is not bgproxy is told from one that says no."""
    admin.script["GET", "/v1/status"] = lambda: (status, b"<html>hello")
    with pytest.raises(UnreachableError, match=f"not as bgproxy's admin API .status {status}, text/html"):
        Client.of(None).get("/v1/status")


@pytest.mark.parametrize(("said", "reason"), [(b"SSH-2.0-x\r\n", "broke off"), (b"", "broke off"), (None, "too long")])
def test_no_http_at_all(said, reason):
    """Something that speaks otherwise, ends the connection, or says nothing; after a change the doubt is named."""
    done = threading.Event()

    def serve(sock):
        peer, _ = sock.accept()
        with peer:
            peer.recv(65536)
            if said is None:
                done.wait(10)
            else:
                peer.sendall(said)

    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=serve, args=(sock,))
        thread.start()
        client = Client(Address("127.0.0.1", sock.getsockname()[1]))
        with pytest.raises(UnreachableError, match=rf"{reason}.*Whether the change was made, `bgproxy status` tells"):
            client.send("POST", "/v1/reload", {}, timeout=0.2)
        done.set()
        thread.join()


def test_paths_are_quoted():
    """An upstream's id goes into one segment of the path."""
    assert service_path("a b", "pools", "http://x:1/") == "/v1/services/a%20b/pools/http%3A%2F%2Fx%3A1%2F"


def test_sole_service(admin):
    """The service may be left out where there is one; with several they are listed, with none it is said."""
    client = Client.of(None)
    assert sole_service(client, "named") == "named"
    assert sole_service(client, None) == "shop"
    admin.services["api"] = service("api")
    with pytest.raises(UsageError, match=r"2 services.*: api, shop"):
        sole_service(client, None)
    admin.services.clear()
    with pytest.raises(UsageError, match="no service"):
        sole_service(client, None)


@pytest.mark.parametrize("how", ["option", "environment"])
def test_an_authority_that_cannot_be_read(tmp_path, monkeypatch, how):
    """Wrong usage, with the file and the reason; not looked at where there is no TLS."""
    for file, reason in ((tmp_path / "none", "No such file"), (tmp_path / "junk", "no certificate in PEM")):
        (tmp_path / "junk").write_text("junk")
        option = str(file) if how == "option" else None
        if how == "environment":
            monkeypatch.setenv("BGPROXY_CACERT", str(file))
        with pytest.raises(UsageError, match=rf"BGPROXY_CACERT.*{file.name}: {reason}"):
            Client.of("https://127.0.0.1:1", option)
        Client.of("http://127.0.0.1:1", option)


def test_a_certificate_of_ours_that_cannot_be_read(tmp_path, monkeypatch):
    """The same for BGPROXY_CERT."""
    monkeypatch.setenv("BGPROXY_CERT", str(tmp_path / "none"))
    with pytest.raises(UsageError, match=r"BGPROXY_CERT, BGPROXY_KEY: .*none: No such file"):
        Client.of("https://127.0.0.1:1")


def test_no_tls_where_it_was_asked_for(admin):
    """A server that speaks plain HTTP is said to be one that does not speak TLS."""
    with pytest.raises(UnreachableError, match="no TLS there, or not with us"):
        Client.of(admin.url.replace("http", "https")).get("/v1/status")


def test_a_detail_that_says_no_more_is_not_said(admin):
    """A single mistake of a body is the problem itself."""
    admin.script["GET", "/x"] = lambda: problem(422, "invalid", "limit: at least 1", "limit: at least 1", "another")
    with pytest.raises(ApiError) as caught:
        Client.of(None).get("/x")
    assert str(caught.value).splitlines() == ["limit: at least 1", "  another"]
