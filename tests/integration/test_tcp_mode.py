"""Listeners in mode tcp, and the PROXY protocol, in a whole bgproxy: switches, drains, checks, deaths; and gRPC through it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator

import pytest
from support.backends import Backend
from support.proxy import Proxy
from support.waiting import eventually

PATIENCE = 10.0


class Names(socketserver.ThreadingTCPServer):
    """Says its pool to whoever connects, and then sends back what comes."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self, pool: str, port: int = 0) -> None:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    self.request.sendall(f"{pool:5}".encode())
                    while data := self.request.recv(65536):
                        self.request.sendall(data)

        super().__init__(("127.0.0.1", port), Handler)
        self.port = self.server_address[1]
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join(PATIENCE)


@pytest.fixture
def names() -> Iterator[tuple[Names, Names]]:
    servers = Names("blue"), Names("green")
    yield servers
    for server in servers:
        server.stop()


def tcp_proxy(tmp_path, blue: str, green: str, **more) -> Proxy:
    service = {
        "pools": {"blue": {"upstreams": [blue]}, "green": {"upstreams": [green]}},
        "health": {"interval": "200ms", "rise": 1, "fall": 2},
        **more.pop("service", {}),
    }
    listen = {"address": "127.0.0.1:0", "mode": "tcp", "service": "db"}
    return Proxy(tmp_path, listen=[listen], services={"db": service}, **more)


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(proxy.address, timeout=PATIENCE)


def read(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        assert piece, "the connection has ended"
        data += piece
    return data


def test_a_switch_with_two_hundred_connections(tmp_path, names) -> None:
    """Those that are there stay on blue, byte for byte; all that come after the switch was answered go to green."""
    blue, green = names
    noise = random.Random(3)
    with tcp_proxy(tmp_path, blue.url, green.url) as proxy:
        proxy.wait_healthy(service="db")
        old = [connect(proxy) for _ in range(200)]
        for sock in old:
            assert read(sock, 5) == b"blue "
        proxy.switch("green", service="db")
        new = [connect(proxy) for _ in range(50)]
        for sock in new:
            assert read(sock, 5) == b"green"
        for sock in old + new:
            piece = noise.randbytes(noise.randrange(1, 20_000))
            sock.sendall(piece)
            assert read(sock, len(piece)) == piece
        eventually(lambda: proxy.service("db")["pools"]["blue"]["in_flight"]["streams"] == 200)
        assert proxy.service("db")["pools"]["green"]["in_flight"]["streams"] == 50
        for sock in old:
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
            sock.close()
        eventually(lambda: proxy.service("db")["pools"]["blue"]["drain"] is None)
        status, page = proxy.api("GET", "/metrics")
        assert status == 200
        assert 'bgproxy_tcp_connections_total{pool="blue",result="served",service="db"} 200.0' in page
        assert 'bgproxy_in_flight{class="streams",pool="green",service="db"} 50.0' in page
        for sock in new:
            sock.close()


def test_a_drains_deadline_cuts_what_is_left(tmp_path, names) -> None:
    """At `drain.streams` what is left on the old pool is reset, and the drain says how many."""
    blue, green = names
    with tcp_proxy(tmp_path, blue.url, green.url, service={"drain": {"streams": "500ms"}}) as proxy:
        proxy.wait_healthy(service="db")
        with connect(proxy) as sock:
            assert read(sock, 5) == b"blue "
            answer = proxy.switch("green", service="db", wait="drained")
            assert answer["drained"]["cut"]["streams"] == 1
            with pytest.raises(ConnectionResetError):
                sock.recv(1)


def test_checks_connect(tmp_path, names) -> None:
    """Upstreams are checked by connecting to them; a switch to a pool that nobody can connect to is refused."""
    blue, green = names
    with tcp_proxy(tmp_path, blue.url, green.url) as proxy:
        proxy.wait_healthy(service="db")
        green.stop()
        eventually(lambda: not proxy.healthy("green", "db"))
        status, answer = proxy.api("POST", "/v1/services/db/switch", {"to": "green"})
        assert status == 409, answer
        reason = proxy.service("db")["pools"]["green"]["upstreams"][0]["reason"]
        assert reason == os.strerror(111).lower()


def test_a_stop_lets_connections_end(tmp_path, names) -> None:
    """At SIGTERM a connection goes on until it ends by itself; the exit status is 0."""
    blue, green = names
    with tcp_proxy(tmp_path, blue.url, green.url, timeouts={"shutdown": "20s"}) as proxy:
        with connect(proxy) as sock:
            assert read(sock, 5) == b"blue "
            proxy.process.send_signal(signal.SIGTERM)
            eventually(proxy.refuses)
            sock.sendall(b"still here")
            assert read(sock, 10) == b"still here"
        assert proxy.process.wait(PATIENCE) == 0


def test_a_stop_ends_connections_at_its_deadline(tmp_path, names) -> None:
    """What is left at `timeouts.shutdown` is reset."""
    blue, green = names
    with tcp_proxy(tmp_path, blue.url, green.url, timeouts={"shutdown": "300ms"}) as proxy, connect(proxy) as sock:
        assert read(sock, 5) == b"blue "
        proxy.process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        assert proxy.process.wait(PATIENCE) == 0


def test_the_death_of_a_worker(tmp_path, names) -> None:
    """A worker that is killed takes its connections along; its successor takes new ones, and counts none of the dead."""
    blue, green = names
    with tcp_proxy(tmp_path, blue.url, green.url, workers=1) as proxy:
        proxy.wait_healthy(service="db")
        with connect(proxy) as sock:
            assert read(sock, 5) == b"blue "
            os.kill(proxy.worker_pids()[0], signal.SIGKILL)
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(1) == b""
        with connect(proxy) as sock:
            assert read(sock, 5) == b"blue "
            eventually(lambda: proxy.service("db")["pools"]["blue"]["in_flight"]["streams"] == 1)


def test_http_beside_tcp(tmp_path, names) -> None:
    """One bgproxy has listeners of both kinds; no request reaches the tcp service."""
    blue, green = names
    with Backend("blue") as shop:
        services = {
            "db": {"pools": {"blue": {"upstreams": [blue.url]}, "green": {"upstreams": [green.url]}}},
            "shop": {"match": {"hosts": ["shop.test"]}, "pools": {"blue": {"upstreams": [shop.url]}}},
        }
        listen = ["127.0.0.1:0", {"address": "127.0.0.1:0", "mode": "tcp", "service": "db"}]
        with Proxy(tmp_path, listen=listen, services=services) as proxy:
            assert proxy.get("/", Host="shop.test").status == 200
            assert proxy.get("/", Host="other.test").status == 404
            host, _, port = proxy.serving["listen"][1].rpartition(":")
            with socket.create_connection((host, int(port)), timeout=PATIENCE) as sock:
                assert read(sock, 5) == b"blue "


def test_the_proxy_protocol(tmp_path) -> None:
    """A listener that expects the PROXY protocol gives the upstream the announced address, and counts who has none."""
    with Backend("blue") as blue:
        listen = {"address": "127.0.0.1:0", "proxy_protocol": "on"}
        with Proxy(tmp_path, blue=[blue.url], listen=[listen], trusted_proxies=["127.0.0.1/32"]) as proxy:
            with connect(proxy) as sock:
                sock.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\nGET /head HTTP/1.1\r\nHost: a\r\n\r\n")
                head = b""
                while b"X-Forwarded-For: 192.0.2.7\r\n" not in head:
                    head += read(sock, 1)
            with connect(proxy) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                with contextlib.suppress(ConnectionResetError):
                    assert sock.recv(1) == b""
            eventually(lambda: "bgproxy_proxy_headers_refused_total 1.0" in proxy.api("GET", "/metrics")[1])


# --- gRPC -----------------------------------------------------------------------------------------------------------


class Rpc:
    """A gRPC server of a pool, without protobuf: one call that names the pool, two that stream its name."""

    def __init__(self, pool: str) -> None:
        from concurrent.futures import ThreadPoolExecutor

        import grpc

        name = pool.encode()
        self.more = threading.Semaphore(0)  # a message of the stream each
        self.done = threading.Event()

        def stream(_: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            number = 0
            while not self.done.is_set() and context.is_active():
                if self.more.acquire(timeout=0.02):
                    yield b"%b %d" % (name, number)
                    number += 1

        def both(requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
            for request in requests:
                yield name + b" " + request

        class Handlers(grpc.GenericRpcHandler):
            def service(self, call):
                return {
                    "/demo.Names/Name": grpc.unary_unary_rpc_method_handler(lambda _, __: name),
                    "/demo.Names/Stream": grpc.unary_stream_rpc_method_handler(stream),
                    "/demo.Names/Both": grpc.stream_stream_rpc_method_handler(both),
                }.get(call.method)

        self.server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        self.server.add_generic_rpc_handlers((Handlers(),))
        self.url = f"tcp://127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def stop(self) -> None:
        self.done.set()
        self.server.stop(0).wait(PATIENCE)


class Stub:
    """A gRPC client with a connection of its own."""

    def __init__(self, proxy: Proxy) -> None:
        import grpc

        host, port = proxy.address
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100)]
        self.channel = grpc.insecure_channel(f"{host}:{port}", options=options)
        self.name = self.channel.unary_unary("/demo.Names/Name")
        self.stream = self.channel.unary_stream("/demo.Names/Stream")
        self.both = self.channel.stream_stream("/demo.Names/Both")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()


def test_grpc_across_a_switch(tmp_path) -> None:
    """Calls and streams that are under way end on the old pool, every message in order; new connections get the new one."""
    pytest.importorskip("grpc")
    blue, green = Rpc("blue"), Rpc("green")
    sent: list[bytes] = []
    gate = threading.Semaphore(0)

    def requests() -> Iterator[bytes]:
        for number in range(6):
            gate.acquire(timeout=PATIENCE)
            sent.append(b"%d" % number)
            yield sent[-1]

    try:
        with tcp_proxy(tmp_path, blue.url, green.url) as proxy, Stub(proxy) as old:
            proxy.wait_healthy(service="db")
            assert old.name(b"", timeout=PATIENCE) == b"blue"
            stream = old.stream(b"", timeout=60)
            both = old.both(requests(), timeout=60)
            for number in range(3):
                blue.more.release()
                assert next(stream) == b"blue %d" % number
                gate.release()
                assert next(both) == b"blue %d" % number
            proxy.switch("green", service="db")
            with Stub(proxy) as new:
                assert new.name(b"", timeout=PATIENCE) == b"green"
                fresh = new.stream(b"", timeout=60)
                green.more.release()
                assert next(fresh) == b"green 0"
                for number in range(3, 6):
                    blue.more.release()
                    assert next(stream) == b"blue %d" % number
                    gate.release()
                    assert next(both) == b"blue %d" % number
                blue.done.set()
                assert list(stream) == []
                assert list(both) == []
                assert stream.code().name == both.code().name == "OK"
                old.channel.close()
                eventually(lambda: proxy.service("db")["pools"]["blue"]["drain"] is None)
                fresh.cancel()
    finally:
        blue.stop()
        green.stop()


def test_grpc_clients_move_at_the_drains_deadline(tmp_path) -> None:
    """A client that keeps its connection is cut at `drain.streams`, and finds the new pool when it connects again."""
    grpc = pytest.importorskip("grpc")
    blue, green = Rpc("blue"), Rpc("green")
    try:
        service = {"drain": {"streams": "500ms"}}
        with tcp_proxy(tmp_path, blue.url, green.url, service=service) as proxy, Stub(proxy) as client:
            proxy.wait_healthy(service="db")
            stream = client.stream(b"", timeout=60)
            blue.more.release()
            assert next(stream) == b"blue 0"
            answer = proxy.switch("green", service="db", wait="drained")
            assert answer["drained"]["cut"]["streams"] == 1
            with pytest.raises(grpc.RpcError) as caught:
                next(stream)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert client.name(b"", timeout=PATIENCE, wait_for_ready=True) == b"green"
    finally:
        blue.stop()
        green.stop()


def test_version_two_in_mode_tcp(tmp_path, names) -> None:
    """In mode tcp a header of version 2 is taken off before the first byte goes to the upstream."""
    blue, green = names
    signature = b"\r\n\r\n\0\r\nQUIT\n"
    header = signature + b"\x21\x11\x00\x0c" + bytes([192, 0, 2, 7, 198, 51, 100, 1]) + struct.pack(">HH", 5, 6)
    services = {"db": {"pools": {"blue": {"upstreams": [blue.url]}, "green": {"upstreams": [green.url]}}}}
    listen = {"address": "127.0.0.1:0", "mode": "tcp", "service": "db", "proxy_protocol": "on"}
    with Proxy(tmp_path, listen=[listen], services=services, trusted_proxies=["127.0.0.0/8"]) as proxy:
        sock = connect(proxy)
        sock.sendall(header + b"payload")
        assert read(sock, 12) == b"blue payload"
        sock.close()


def test_a_pools_upstreams_fit_its_service(tmp_path, names) -> None:
    """`pool set` takes tcp:// for a tcp service, and nothing else; who was live is left alone."""
    blue, green = names
    with tcp_proxy(tmp_path, blue.url, green.url) as proxy:
        status, answer = proxy.api("PUT", "/v1/services/db/pools/green", {"upstreams": ["http://127.0.0.1:9"]})
        assert status == 422, answer
        assert "write tcp://127.0.0.1:9" in answer["detail"]
        assert proxy.api("PUT", "/v1/services/db/pools/green", {"upstreams": ["tcp://127.0.0.1:9"]})[0] == 200
