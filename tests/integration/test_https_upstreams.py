"""bgproxy before upstreams that speak TLS: switches, changes at run time, health, renewed files, WebSockets."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from support.backends import Backend
from support.certificates import Authority
from support.proxy import Proxy
from support.tls_upstreams import TlsBackend, server_context
from support.waiting import eventually

DAY = timedelta(days=1)
HEALTH = {"path": "/health", "interval": "100ms", "rise": 1, "fall": 1}


@pytest.fixture
def authority() -> Authority:
    return Authority()


def pools(blue: Backend, green: Backend, **tls: str) -> dict:
    return {"blue": {"upstreams": [blue.url]}, "green": {"upstreams": [green.url], "tls": tls}}


def test_switches_between_plain_and_tls_lose_nothing(
    start_proxy: Callable[..., Proxy], blue: Backend, authority: Authority, tmp_path: Path
) -> None:
    """Clients go on over one connection each, while the pools change twenty times: every answer is a good one."""
    context = server_context(authority.issue(tmp_path, "127.0.0.1"))
    with TlsBackend("green", context) as green:
        proxy = start_proxy(pools=pools(blue, green, ca=authority.write(tmp_path)), health=HEALTH)
        proxy.wait_healthy()
        stop = threading.Event()
        wrong: list[object] = []
        seen: set[str] = set()

        def ask() -> None:
            with proxy.client() as client:
                while not stop.is_set():
                    answer = client.get("/")
                    seen.add(answer.text)
                    if answer.status != 200:
                        wrong.append((answer.status, answer.text))

        clients = [threading.Thread(target=ask) for _ in range(4)]
        for each in clients:
            each.start()
        for _ in range(20):
            to = "green" if proxy.live() == "blue" else "blue"
            proxy.switch(to)
            assert proxy.get("/").text == to
        stop.set()
        for each in clients:
            each.join()
        assert (wrong, seen) == ([], {"blue", "green"})


def test_upstreams_set_at_run_time_are_verified_as_the_pool_says(
    start_proxy: Callable[..., Proxy], blue: Backend, green: Backend, authority: Authority, tmp_path: Path
) -> None:
    """The same address with TLS is another upstream; without the right name it does not come up."""
    context = server_context(authority.issue(tmp_path, "127.0.0.1"))
    other = server_context(authority.issue(tmp_path, "other.test"))
    with TlsBackend("green", context) as good, TlsBackend("green", other) as bad:
        proxy = start_proxy(pools=pools(blue, green, ca=authority.write(tmp_path)), health=HEALTH)
        proxy.wait_healthy()
        path = "/v1/services/default/pools/green"
        assert proxy.api("PUT", path, {"upstreams": [good.url]})[0] == 200
        proxy.wait_healthy("green")
        proxy.switch("green")
        assert proxy.get("/").text == "green"
        assert proxy.api("PUT", path, {"upstreams": [bad.url]})[0] == 200
        eventually(lambda: "host name does not match" in upstream(proxy, "green")["reason"])
        assert proxy.get("/").status in (502, 503)


def upstream(proxy: Proxy, pool: str) -> dict:
    return proxy.service()["pools"][pool]["upstreams"][0]


def test_health_follows_the_certificate(
    start_proxy: Callable[..., Proxy], blue: Backend, authority: Authority, tmp_path: Path
) -> None:
    """One that has expired takes its upstream down, in these words; a renewed one brings it back."""
    good = server_context(authority.issue(tmp_path, "127.0.0.1"))
    expired = server_context(authority.issue(tmp_path, "127.0.0.1", not_before=-2 * DAY, not_after=-DAY))
    with TlsBackend("green", good) as green:
        proxy = start_proxy(pools=pools(blue, green, ca=authority.write(tmp_path)), health=HEALTH)
        proxy.wait_healthy()
        green.context = expired
        eventually(lambda: upstream(proxy, "green")["state"] == "down")
        assert upstream(proxy, "green")["reason"] == "certificate has expired"
        green.context = good
        eventually(lambda: upstream(proxy, "green")["state"] == "up")


def test_renewed_files_are_taken_by_a_reload(
    start_proxy: Callable[..., Proxy], blue: Backend, authority: Authority, tmp_path: Path
) -> None:
    """An authority that is replaced holds for checks and requests; one that cannot be used changes nothing."""
    next_one = Authority()
    with TlsBackend("green", server_context(authority.issue(tmp_path, "127.0.0.1"))) as green:
        file = authority.write(tmp_path)
        proxy = start_proxy(pools=pools(blue, green, ca=file), health=HEALTH)
        proxy.wait_healthy()
        proxy.switch("green")
        next_one.write(tmp_path)
        green.context = server_context(next_one.issue(tmp_path, "127.0.0.1"))
        eventually(lambda: upstream(proxy, "green")["state"] == "down")
        status, answer = proxy.api("POST", "/v1/reload")
        assert (status, answer["changed"]) == (200, ["default"])
        eventually(lambda: upstream(proxy, "green")["state"] == "up")
        eventually(lambda: proxy.get("/").text == "green")
        Path(file).write_text("rubbish")
        assert proxy.api("POST", "/v1/reload")[0] == 422
        assert proxy.get("/").text == "green"


def test_a_websocket_goes_through(
    start_proxy: Callable[..., Proxy], blue: Backend, authority: Authority, tmp_path: Path
) -> None:
    """Frames both ways and the Close, though the upstream speaks TLS and the client does not."""
    with TlsBackend("green", server_context(authority.issue(tmp_path, "127.0.0.1"))) as green:
        proxy = start_proxy(pools=pools(blue, green, ca=authority.write(tmp_path)), health=HEALTH)
        proxy.wait_healthy()
        proxy.switch("green")
        with proxy.client() as client:
            key = base64.b64encode(os.urandom(16)).decode()
            fields = {
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Key": key,
                "Sec-WebSocket-Version": "13",
            }
            assert client.request("GET", "/ws", fields).status == 101
            client.send(b"\x81\x82\0\0\0\0hi")
            assert client.read_exactly(10) == b"\x81\x08green:hi"
            client.send(b"\x88\x82\0\0\0\0\x03\xe8")
            assert client.read_exactly(4) == b"\x88\x02\x03\xe8"
            assert client.read_all() == b""


def test_insecure_is_in_the_log(
    start_proxy: Callable[..., Proxy], blue: Backend, authority: Authority, tmp_path: Path
) -> None:
    """It serves, and says at the start that nothing is verified."""
    with TlsBackend("green", server_context(authority.issue(tmp_path, "x.test"))) as green:
        proxy = start_proxy(pools=pools(blue, green, insecure="true"), health=HEALTH)
        proxy.wait_healthy()
        assert "upstreams are not verified" in proxy.log()
