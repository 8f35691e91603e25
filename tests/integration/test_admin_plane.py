"""The admin plane as a whole, as an operator gets it: where it is, who may, and that no data listener leads to it."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.backends import Backend
from support.certificates import Authority
from support.dataplane import DataPlane
from support.fake_controller import FakeController, config
from support.http import Client
from support.proxy import ROOT, Proxy
from support.waiting import eventually

from bgproxy.admin.app import AdminServer
from bgproxy.config.schema import Config

POOLS = "pools: {blue: {upstreams: ['http://127.0.0.1:9']}}\n"


def audit(proxy: Proxy, why: str) -> list[dict[str, Any]]:
    """The lines of the audit log with that reason."""
    lines = [json.loads(line) for line in proxy.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line["logger"] == "bgproxy.audit" and line["why"] == why]


def test_it_listens_on_loopback_by_default():
    """And nowhere else."""
    assert Config().admin.listen == ("127.0.0.1:8900",)


def bgproxy(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A verb, to its end."""
    command = [sys.executable, "-m", "bgproxy", *arguments]
    where = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"} | environment
    return subprocess.run(command, env=where, capture_output=True, text=True, timeout=60, check=False)


def test_another_address_without_tokens_does_not_start(tmp_path: Path):
    """Exit status 2, and what to do."""
    file = tmp_path / "c.yaml"
    file.write_text(f"{POOLS}listen: 127.0.0.1:0\nadmin: {{listen: '0.0.0.0:0'}}\n")
    done = bgproxy("run", "-c", str(file))
    assert done.returncode == 2
    assert "add admin.tokens, or listen on 127.0.0.1 or unix:/path" in done.stderr


def test_check_warns_of_what_is_allowed_but_unwise(tmp_path: Path):
    """Tokens that cross a network readable, and a file that everyone can read: exit status 0, lines on stderr."""
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    token.chmod(0o644)
    file = tmp_path / "c.yaml"
    file.write_text(f"{POOLS}admin:\n  listen: ':8900'\n  tokens: [{{name: a, role: admin, token_file: token}}]\n")
    done = bgproxy("check", str(file))
    assert done.returncode == 0, done.stderr
    assert f"{file}:3: admin.listen: warning: :8900 can be reached from other machines without TLS" in done.stderr
    assert f"{file}:4: admin.tokens[0].token_file: warning: {token} can be read by every user" in done.stderr
    assert "ok" in done.stdout


def test_a_unix_socket_is_its_users_alone(
    start_proxy: Callable[..., Proxy], blue: Backend, green: Backend, tmp_path: Path
):
    """Mode 0600; who connects needs no token, and is known by uid and pid in the audit log."""
    path = tmp_path / "admin.sock"
    listens = ["127.0.0.1:0", f"unix:{path}"]
    proxy = start_proxy(blue=[blue.url], green=[green.url], admin={"listen": listens})
    proxy.wait_healthy()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Client(str(path)) as client:
        body = b'{"reason": "by the socket"}'
        answer = client.request("POST", "/v1/services/default/switch", {"Content-Type": "application/json"}, body)
    assert answer.status == 200, answer.body
    line = eventually(lambda: audit(proxy, "by the socket"))[0]
    assert line["from"].startswith("unix:uid=")
    assert (line["who"], line["role"], line["outcome"]) == ("anonymous", "admin", "done")


@pytest.mark.parametrize("path", ["/v1/status", "/v1/services", "/healthz", "/metrics", "/v1/openapi.json"])
def test_the_apis_paths_at_a_data_listener_are_the_upstreams(proxy: Proxy, blue: Backend, path: str):
    """They mean nothing to the data plane."""
    with Client(proxy.address) as client:
        answer = client.get(path)
    assert (answer.status, answer.body, answer.header("X-Pool")) == (200, b"blue", "blue")
    assert blue.counts[path] == 1
    with Client(proxy.address) as client:
        assert client.request("POST", "/v1/services/default/switch", {}, b"{}").body == b"blue"
    assert proxy.api("GET", "/v1/services/default")[1]["live"] == "blue"


def test_an_upstream_that_is_the_admin_api_is_refused_at_run_time(start_proxy: Callable[..., Proxy], blue: Backend):
    """422 by the API, as by `check` in the file."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    proxy = start_proxy(blue=[blue.url], admin={"listen": f"127.0.0.1:{port}"})
    for url in (f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
        status, problem = proxy.api("PUT", "/v1/services/default/pools/green", {"upstreams": [url]})
        assert (status, problem["type"]) == (422, "urn:bgproxy:problem:invalid"), problem
        assert "is where the admin API listens" in problem["detail"]
    assert proxy.api("GET", "/v1/services/default")[1]["pools"]["green"]["upstreams"] == []


def test_a_tcp_listener_does_not_lead_there_by_a_name(tmp_path: Path):
    """Its bytes carry no Via, so that the API could not tell: a name that resolves to the API is no upstream at all."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    name = "0x7f000001"  # getaddrinfo(3) takes it for 127.0.0.1
    url = f"tcp://{name}:{port}"
    listen = {"address": "127.0.0.1:0", "mode": "tcp", "service": "db"}
    services = {"db": {"pools": {"blue": {"upstreams": [url]}}}}
    admin = {"listen": f"127.0.0.1:{port}"}
    with Proxy(tmp_path, listen=[listen], services=services, admin=admin, ready=False) as proxy:
        eventually(lambda: proxy.lines("serving"), within=15)
        (unresolved,) = eventually(lambda: proxy.api("GET", "/v1/services/db")[1]["pools"]["blue"]["unresolved"])
        assert unresolved["url"] == url
        assert "is where the admin API listens" in unresolved["reason"]
        # It is reset at once, which may come as early as the end of connect(2).
        with (
            contextlib.suppress(ConnectionResetError, BrokenPipeError),
            socket.create_connection(proxy.address, timeout=10) as client,
        ):
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(100) == b""


async def test_an_upstream_that_turns_out_to_be_the_admin_api_opens_nothing(caplog: pytest.LogCaptureFixture):
    """A name that resolves to it, say: what came through the data plane is refused, whatever Host it names."""
    caplog.set_level(logging.INFO, "bgproxy.audit")
    sock = socket.create_server(("127.0.0.1", 0))
    controller = FakeController(config())
    server = AdminServer(controller, controller.config)
    await server.start([sock])
    try:
        async with DataPlane() as plane:
            await plane.serve(sock.getsockname()[1])
            for request in (b"GET /v1/status", b"POST /v1/services/shop/switch"):
                head = b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
                answer = await plane.ask(request + head)
                assert answer.status == 403
                assert b"which must not lead to its admin API" in answer.body
    finally:
        await server.stop()
        sock.close()
    assert controller.calls == []
    assert [record.fields["outcome"] for record in caplog.records] == ["forbidden"]


def test_the_command_line_speaks_tls(start_proxy: Callable[..., Proxy], blue: Backend, green: Backend, tmp_path: Path):
    """`--admin https://…` with `--cacert` or BGPROXY_CACERT; without, the reason and the way on, exit status 3."""
    authority = Authority()
    files = authority.issue(tmp_path, "localhost", "127.0.0.1")
    ca = str(authority.write(tmp_path))
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    token.chmod(0o600)
    admin = {
        "listen": ["127.0.0.1:0", f"unix:{tmp_path / 'admin.sock'}"],
        "tls": files.as_config(),
        "tokens": [{"name": "ci", "role": "operator", "token_file": str(token)}],
    }
    proxy = start_proxy(blue=[blue.url], green=[green.url], admin=admin, ready=False)
    (serving,) = eventually(lambda: proxy.lines("serving"), within=15)
    (address,) = (text for text in serving["admin"] if not text.startswith("unix:"))
    url = f"https://{address}"
    known = {"BGPROXY_TOKEN": "0123456789abcdef"}
    ready = eventually(
        lambda: (done := bgproxy("status", "--admin", url, "--cacert", ca, **known)).returncode == 0 and done
    )
    assert "default" in ready.stdout
    done = bgproxy("status", BGPROXY_ADMIN=url, BGPROXY_CACERT=ca, **known)
    assert done.returncode == 0, done.stderr
    done = bgproxy("status", "--admin", url, **known)
    assert done.returncode == 3
    assert "its certificate is not trusted" in done.stderr
    assert "--cacert FILE" in done.stderr
    done = bgproxy("status", "--admin", url, "--cacert", ca)
    assert done.returncode == 4
    assert "set BGPROXY_TOKEN" in done.stderr
