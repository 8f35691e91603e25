"""Starting and stopping bgproxy as an operator does: signals, exit statuses, what is in flight."""

from __future__ import annotations

import signal
import socket
import threading

from support.http import Client
from support.proxy import gone
from support.waiting import eventually


def test_starts_serves_and_ends_with_0(start_proxy, blue, green):
    """Ready within seconds, the live pool answers, SIGTERM ends it with 0 and leaves no process behind."""
    proxy = start_proxy(blue=[blue.url], green=[green.url])
    assert proxy.get().text == "blue"
    assert proxy.api("GET", "/healthz")[0] == 200
    pids = proxy.pids()
    assert len(pids) == 3
    assert proxy.stop() == 0
    assert all(gone(pid) for pid in pids)
    assert "Traceback" not in proxy.log()


def test_request_in_flight_completes_at_sigterm(proxy, blue):
    """A request that has begun is answered; new connections are refused meanwhile; the exit status is 0."""
    with proxy.client() as client:
        client.send_request("GET", "/wait")
        eventually(lambda: blue.counts["/wait"])
        proxy.process.send_signal(signal.SIGTERM)
        eventually(proxy.refuses)
        assert proxy.process.poll() is None
        blue.release()
        response = client.read_response()
        assert (response.status, response.text) == (200, "blue")
        assert client.closed()
    assert proxy.process.wait(10) == 0


def test_idle_connections_do_not_hold_up_the_stop(proxy):
    """Connections kept alive without a request are closed at once."""
    with proxy.client() as client:
        assert client.get().status == 200
        assert proxy.stop(within=10) == 0
        assert client.closed()


def test_nobody_is_reset_by_a_stop_under_load(proxy):
    """A client that opens a connection a request either gets its answer or is refused, in every moment of a stop."""
    strange: list[BaseException | int] = []
    answered = 0

    def load() -> None:
        nonlocal answered
        while True:
            try:
                with Client(proxy_address) as client:
                    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    status = client.read_response().status
            except ConnectionRefusedError:
                return
            except OSError as error:
                strange.append(error)
                return
            answered += 1
            if status != 200:
                strange.append(status)

    proxy_address = proxy.address
    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: answered > 200)
    assert proxy.stop() == 0
    for thread in threads:
        thread.join(10)
    assert strange == []


def test_second_signal_ends_at_once(proxy, blue):
    """SIGTERM waits for what is in flight; another one does not, and the exit status is 1."""
    pids = proxy.pids()
    with proxy.client() as client:
        client.send_request("GET", "/wait")
        eventually(lambda: blue.counts["/wait"])
        proxy.process.send_signal(signal.SIGTERM)
        eventually(proxy.refuses)
        assert proxy.process.poll() is None
        assert proxy.stop(within=5) == 1
    assert all(gone(pid) for pid in pids)


def test_requests_are_cut_at_the_shutdown_time_out(start_proxy, blue):
    """What has not ended by `timeouts.shutdown` is cut, and the exit status is 0."""
    proxy = start_proxy(blue=[blue.url], timeouts={"shutdown": "300ms"})
    with proxy.client() as client:
        client.send_request("GET", "/wait")
        eventually(lambda: blue.counts["/wait"])
        assert proxy.stop(within=5) == 0


def test_storm_of_hangups(proxy):
    """Hundreds of SIGHUP, with traffic meanwhile: no restart, no error, and switches go on working."""
    pids = sorted(proxy.pids())
    with proxy.client() as client:
        for _ in range(300):
            proxy.process.send_signal(signal.SIGHUP)
            assert client.get().status == 200
    assert proxy.switch("green", wait="switched")["live"] == "green"
    assert proxy.get().text == "green"
    assert sorted(proxy.pids()) == pids
    assert "Traceback" not in proxy.log()


def test_sighup_takes_a_new_configuration(proxy, blue, green):
    """The file's new version label is in force after SIGHUP, without a connection closed."""
    with proxy.client() as client:
        assert client.get().text == "blue"
        proxy.config["pools"]["green"]["version"] = "2.0"
        proxy.write()
        proxy.process.send_signal(signal.SIGHUP)
        eventually(lambda: proxy.service()["pools"]["green"]["version"] == "2.0")
        assert client.get().text == "blue"


def test_sighup_with_a_mistake_changes_nothing(proxy):
    """A configuration with a mistake is refused as a whole, the log says where, and all goes on."""
    generation = proxy.service()["generation"]
    proxy.config["pools"]["green"] = {"version": "2.0", "upstreems": []}
    proxy.write()
    proxy.process.send_signal(signal.SIGHUP)
    eventually(lambda: "upstreems" in proxy.log())
    assert proxy.service()["generation"] == generation
    assert proxy.get().text == "blue"


def test_unreadable_state_is_refused_at_the_start(start_proxy, blue, green):
    """Without a state that can be read it does not start: exit status 2, the file named on stderr, no traffic taken."""
    proxy = start_proxy(blue=[blue.url], green=[green.url])
    proxy.wait_healthy()
    proxy.switch("green")
    assert proxy.stop() == 0
    state = proxy.directory / "state"
    for path in state.iterdir():
        if path.name.startswith("state"):
            path.write_text("rubbish")
    proxy.process = proxy._spawn()
    assert proxy.process.wait(15) == 2
    assert str(state) in proxy.log()
    assert "Traceback" not in proxy.log()


def test_live_pool_survives_a_restart(proxy):
    """The live pool is the one of the last switch, not the one of the file."""
    proxy.switch("green")
    proxy.restart()
    assert proxy.live() == "green"
    assert proxy.get().text == "green"


def test_port_in_use_is_refused(start_proxy, blue):
    """Exit status 2, and one line that says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        proxy = start_proxy(blue=[blue.url], listen=address, ready=False)
        assert proxy.process.wait(15) == 2
    assert f"bgproxy: cannot listen on {address}: another process listens there" in proxy.log()


def test_unix_sockets_for_traffic_and_admin(start_proxy, blue, tmp_path):
    """Both listeners may be Unix sockets; the admin's is for its owner alone; the files are gone at the end."""
    data, admin = tmp_path / "data.sock", tmp_path / "admin.sock"
    proxy = start_proxy(
        blue=[blue.url], listen=f"unix:{data}", admin={"listen": ["127.0.0.1:0", f"unix:{admin}"]}, ready=False
    )
    eventually(lambda: proxy.lines("serving"), within=15, what="serving")
    with Client(str(admin)) as client:
        eventually(lambda: client.get("/readyz").status == 200)
    with Client(str(data)) as client:
        assert client.get().text == "blue"
    assert admin.stat().st_mode & 0o777 == 0o600
    assert proxy.stop() == 0
    assert not data.exists()
    assert not admin.exists()
