"""Binding, on real sockets."""

from __future__ import annotations

import errno
import os
import select
import socket
import stat

import pytest

from bgproxy.errors import StartError
from bgproxy.process.sockets import Listener, bind_admin, bind_data


@pytest.fixture
def bound():
    """What a test has bound; closed after it."""
    listeners: list[Listener] = []
    yield listeners
    for listener in listeners:
        listener.unlink()
        listener.close()


def port_of(listener: Listener) -> int:
    return listener.sockets[0].getsockname()[1]


def test_port_0_is_one_port_for_all_workers(bound):
    """Any free port, and the same for every worker's socket."""
    bound += bind_data(["127.0.0.1:0"], 4)
    (listener,) = bound
    assert len({sock.fileno() for sock in listener.sockets}) == 4
    assert {sock.getsockname() for sock in listener.sockets} == {("127.0.0.1", port_of(listener))}
    assert listener.address == f"127.0.0.1:{port_of(listener)}"


def test_connections_reach_every_workers_socket(bound):
    """The kernel spreads connections over the workers, the first socket included."""
    bound += bind_data(["127.0.0.1:0"], 2)
    clients = [socket.create_connection(("127.0.0.1", port_of(bound[0]))) for _ in range(64)]
    for sock in bound[0].sockets:
        sock.accept()[0].close()  # BlockingIOError if none came here
    for client in clients:
        client.close()


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("options", [(), (socket.SO_REUSEADDR,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)])
def test_a_taken_port_is_refused(bound, workers, options):
    """Whoever listens there first, even with SO_REUSEPORT and of the same user: the error names address and remedy."""
    with socket.socket() as other:
        for option in options:
            other.setsockopt(socket.SOL_SOCKET, option, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(StartError) as caught:
            bound += bind_data([address], workers)
    assert str(caught.value) == (
        f"cannot listen on {address}: another process listens there; "
        f"stop it (ss -ltnp 'sport = :{address.split(':')[1]}' names it), or write another port at `listen`"
    )


def test_two_of_our_own_do_not_share_a_port(bound):
    """A second bgproxy would silently take half of the connections."""
    bound += bind_data(["127.0.0.1:0"], 2)
    with pytest.raises(StartError, match="another process listens there"):
        bind_data([bound[0].address], 2)


def test_a_stranger_cannot_join_later(bound):
    """A program that binds without SO_REUSEPORT is refused by the kernel while we listen."""
    bound += bind_data(["127.0.0.1:0"], 2)
    with socket.socket() as other, pytest.raises(OSError, match="in use") as caught:
        other.bind(("127.0.0.1", port_of(bound[0])))
    assert caught.value.errno == errno.EADDRINUSE


def test_a_port_is_free_again_at_once(bound):
    """Connections of a former server that are still ending do not keep the port."""
    former = bind_data(["127.0.0.1:0"], 2)
    client = socket.create_connection(("127.0.0.1", port_of(former[0])))
    for sock in former[0].sockets:
        try:
            sock.accept()[0].close()  # we close first: TIME_WAIT is on our side
        except BlockingIOError:
            continue
    client.close()
    former[0].close()
    bound += bind_data([former[0].address], 2)
    assert bound[0].address == former[0].address


def test_every_address_is_two_listeners_with_one_port(bound):
    """`:port` listens on IPv4 and, where the machine has it, on IPv6; a client's IPv4 address is never written as IPv6."""
    bound += bind_data([":0"], 2)
    assert bound[0].address == f"0.0.0.0:{port_of(bound[0])}"
    for listener in bound[1:]:
        assert listener.address == f"[::]:{port_of(bound[0])}"
    with socket.create_connection(("127.0.0.1", port_of(bound[0]))):
        pass


def test_what_was_bound_is_let_go_when_another_fails(tmp_path):
    """All addresses or none: a failed start leaves no socket and no file behind."""
    path = tmp_path / "a.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(StartError):
        bind_data([f"unix:{path}", f"127.0.0.1:{taken.getsockname()[1]}"], 2)
    assert not path.exists()


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("192.0.2.1:8080", "this machine has no such address; `ip address` lists them"),
        ("no-such-host.invalid:8080", "the name does not resolve"),
        ("unix:/nonexistent/a.sock", "its directory does not exist; create it"),
    ],
)
def test_errors_say_what_to_do(address, text):
    """Each failure names the address and a way on."""
    with pytest.raises(StartError) as caught:
        bind_data([address], 1)
    assert text in str(caught.value)
    assert str(caught.value).startswith(f"cannot listen on {address}: ")
    assert "`listen`" in str(caught.value)


def test_a_low_port_without_the_capability(monkeypatch):
    """EACCES names the capability that is missing."""

    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    # As root the kernel would grant it, so its answer is made up here.
    monkeypatch.setattr("bgproxy.process.sockets._bind_shared", denied)
    with pytest.raises(StartError, match="CAP_NET_BIND_SERVICE"):
        bind_data(["127.0.0.1:80"], 1)


@pytest.mark.parametrize(("bind", "mode"), [(bind_admin, 0o600), (lambda a: bind_data(a, 3), 0o660)])
def test_unix_modes(bound, tmp_path, bind, mode):
    """The admin's socket is for its owner alone, a data listener's for the group too; the umask is as it was."""
    path = tmp_path / "a.sock"
    former = os.umask(0o022)
    try:
        bound += bind([f"unix:{path}"])
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(former)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_unix_listener_is_one_socket_for_all(bound, tmp_path):
    """All workers accept from the same socket."""
    bound += bind_data([f"unix:{tmp_path}/a.sock"], 3)
    assert len(set(bound[0].sockets)) == 1
    assert len(bound[0].sockets) == 3


def test_the_file_of_a_dead_server_is_replaced(bound, tmp_path):
    """A socket file that nobody answers at is removed."""
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    bound += bind_data([f"unix:{path}"], 1)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


@pytest.mark.parametrize("backlog", [0, 10])
def test_the_file_of_a_live_server_is_not(tmp_path, backlog):
    """Whoever answers at the path is left alone, even when its queue is full."""
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as alive, socket.socket(socket.AF_UNIX) as waiting:
        alive.bind(str(path))
        alive.listen(backlog)
        waiting.connect(str(path))
        with pytest.raises(StartError, match="another process answers there"):
            bind_data([f"unix:{path}"], 1)
    assert path.exists()


def test_a_file_that_is_no_socket_is_kept(tmp_path):
    """A path that holds something else is refused, never removed."""
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(StartError, match="is not a socket; move it away"):
        bind_data([f"unix:{path}"], 1)
    assert path.read_text() == "data"


def test_unlink_leaves_a_successors_file_alone(tmp_path):
    """A server that took the path over keeps it."""
    path = tmp_path / "a.sock"
    (first,) = bind_data([f"unix:{path}"], 1)
    path.rename(tmp_path / "aside")
    (second,) = bind_data([f"unix:{path}"], 1)
    first.unlink()
    assert path.exists()
    second.unlink()
    assert not path.exists()
    second.unlink()  # again is harmless
    first.close()
    second.close()


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0"])
def test_turned_away_clients_are_refused_and_nobody_is_reset(bound, address):
    """Connections that wait are still served; later ones come to nothing, and are refused once the socket is closed."""
    bound += bind_data([address], 1)
    (listener,) = bound
    (sock,) = listener.sockets
    where = sock.getsockname()[:2]
    with socket.create_connection(where, timeout=5) as early, socket.socket(sock.family) as late:
        early.sendall(b"early")
        listener.turn_away()
        late.setblocking(False)
        assert late.connect_ex(where) == errno.EINPROGRESS
        served, _ = sock.accept()
        with served:
            assert served.recv(10) == b"early"
            with pytest.raises(BlockingIOError):
                sock.accept()
            listener.close()
            assert select.select([], [late], [], 10)[1] == [late]
            assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
            served.sendall(b"answer")
        assert early.recv(10) == b"answer"


def test_turning_away_removes_the_unix_file(bound, tmp_path):
    """Nobody else finds the socket; who waits in it is still served."""
    path = tmp_path / "a.sock"
    bound += bind_data([f"unix:{path}"], 1)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        bound[0].turn_away()
        assert not path.exists()
        bound[0].sockets[0].accept()[0].close()
