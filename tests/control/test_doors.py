"""Where the admin API is reached, by whatever spelling."""

from __future__ import annotations

import socket

import pytest

from bgproxy.control.doors import Doors


def listening(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    sock.bind((host, 0))
    sock.listen()
    return sock


@pytest.mark.parametrize("host", ["127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "::ffff:0.0.0.0"])
def test_every_spelling_of_loopback(host):
    """Each of them connects to it, and so is seen."""
    with listening("127.0.0.1") as sock:
        port = sock.getsockname()[1]
        socket.create_connection((host, port), timeout=5).close()
        assert Doors([sock]).lead_to((host, port))
        assert not Doors([sock]).lead_to((host, port + 1 if port < 65535 else 1))


@pytest.mark.parametrize("host", ["::1", "::", "0:0:0:0:0:0:0:1"])
def test_every_spelling_of_loopback_of_ipv6(host):
    """With a zone, too, which is no part of where it is."""
    with listening("::1") as sock:
        port = sock.getsockname()[1]
        socket.create_connection((host, port), timeout=5).close()
        assert Doors([sock]).lead_to((host, port))
        assert Doors([sock]).lead_to((f"{host}%lo", port))


def test_a_neighbour_is_somewhere_else():
    """Another loopback address, the other family, another machine."""
    with listening("127.0.0.1") as sock:
        port = sock.getsockname()[1]
        doors = Doors([sock])
        assert not any(doors.lead_to((host, port)) for host in ("127.0.0.2", "::1", "192.0.2.1"))


def test_every_address_of_this_machine_and_no_other():
    """Where it listens on all of them."""
    with listening("0.0.0.0") as sock:
        port = sock.getsockname()[1]
        doors = Doors([sock])
        assert doors.lead_to(("127.0.0.1", port))
        assert doors.lead_to(("127.9.9.9", port))
        assert doors.lead_to(("0.0.0.0", port))
        assert not doors.lead_to(("192.0.2.1", port))  # TEST-NET-1: nobody's
        assert not doors.lead_to(("2001:db8::1", port))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way_out:
        try:
            way_out.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        assert doors.lead_to((way_out.getsockname()[0], port))


def test_a_unix_socket_by_whatever_link(tmp_path):
    """The file is what counts, not its name; a path that leads nowhere leads not here."""
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        (tmp_path / "link.sock").symlink_to(path)
        doors = Doors([sock])
        assert doors.lead_to(str(path))
        assert doors.lead_to(str(tmp_path / "link.sock"))
        assert doors.lead_to(f"/{path}")
        assert not doors.lead_to(str(tmp_path / "other.sock"))
        assert not doors.lead_to(("127.0.0.1", 1))
