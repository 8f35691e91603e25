"""Addresses to listen on, and the URLs of upstreams."""

from __future__ import annotations

import pytest

from bgproxy.config.addresses import TcpAddress, UnixAddress, leads_to, listen_key, parse_listen, parse_upstream


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", TcpAddress("127.0.0.1", 8080)),
        (":8080", TcpAddress("", 8080)),
        ("*:8080", TcpAddress("", 8080)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("[::1]:8080", TcpAddress("::1", 8080)),
        ("unix:/run/a.sock", UnixAddress("/run/a.sock")),
    ],
)
def test_listen(text, address):
    """Every form that is documented is read."""
    assert parse_listen(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "8080",
            ":",
            "a",
            "a:",
            "a:b",
            "a:65536",
            "a:-1",
            "a:+1",
            "a: 80",
            "::1:80",
            "[::1]",
            "[zz]:80",
            "http://a:80",
        ),
        *(
            "1.2.3:80",
            "1.2.3.256:80",
            "a b:80",
            "-a:80",
            "unix:",
            "unix:a",
            "unix:/",
            "/run/a",
            "unix:/" + "x" * 107,
            "a:٣",
        ),
    ],
)
def test_what_cannot_be_listened_on(text):
    """Anything else is refused with a text."""
    with pytest.raises(ValueError, match=r"\w"):
        parse_listen(text)


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("http://127.0.0.1:9001", TcpAddress("127.0.0.1", 9001), "127.0.0.1:9001"),
        ("HTTP://app", TcpAddress("app", 80), "app:80"),
        ("http://my_app.internal:8000", TcpAddress("my_app.internal", 8000), "my_app.internal:8000"),
        ("http://[::1]:9001", TcpAddress("::1", 9001), "[::1]:9001"),
        ("unix:///run/app.sock", UnixAddress("/run/app.sock"), "unix:/run/app.sock"),
    ],
)
def test_upstream(text, address, shown):
    """Every form that is documented is read, and shown as its address."""
    assert parse_upstream(text) == address
    assert str(parse_upstream(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "a",
            "a:80",
            "//a",
            "ftp://a",
            "https://",
            "http://",
            "http://:80",
            "http://*",
            "http://a:0",
            "http://a:b",
        ),
        *(
            "http://a/",
            "http://a/b",
            "http://a?b",
            "http://a#b",
            "http://u@a",
            "http://u:p@a:80",
            "http://a b",
            "http://a\n",
        ),
        *("unix:/a", "unix://a", "unix:///", "http://[::1", "http://::1"),
    ],
)
def test_what_is_no_upstream(text):
    """Anything else is refused with a text."""
    with pytest.raises(ValueError, match=r"\w"):
        parse_upstream(text)


def test_loopback():
    """What only this machine can reach needs no tokens."""
    assert all(
        parse_listen(text).is_loopback for text in ("127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/a")
    )
    assert not any(
        parse_listen(text).is_loopback for text in (":1", "0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.com:1")
    )


def test_clashes():
    """Two addresses clash when both cannot be listened on; port 0 never does."""
    assert listen_key(parse_listen(":80")) == listen_key(parse_listen("0.0.0.0:80"))
    assert listen_key(parse_listen("LOCALHOST:80")) == listen_key(parse_listen("localhost:80"))
    assert listen_key(parse_listen(":80")) != listen_key(parse_listen("127.0.0.1:80"))
    assert listen_key(parse_listen(":0")) is None


@pytest.mark.parametrize(
    ("upstream", "listen"),
    [
        ("http://127.0.0.1:8900", "127.0.0.1:8900"),
        ("http://localhost:8900", "127.0.0.1:8900"),
        ("http://LOCALHOST.:8900", "[::1]:8900"),
        ("http://[::ffff:127.0.0.1]:8900", "127.0.0.1:8900"),
        ("http://0.0.0.0:8900", "127.0.0.1:8900"),
        ("http://127.0.0.1:8900", "localhost:8900"),
        ("http://127.9.9.9:8900", ":8900"),
        ("http://localhost:8900", "0.0.0.0:8900"),
        ("http://admin.internal:8900", "Admin.Internal:8900"),
        ("unix:///run/../run/a.sock", "unix:/run/a.sock"),
        ("http://[::1%lo]:8900", "[::1]:8900"),
        ("unix:////run/a.sock", "unix:/run/a.sock"),
        ("unix:///run/a.sock", "unix://run/../run/a.sock"),
    ],
)
def test_what_leads_to_a_listener(upstream, listen):
    """Other spellings of its address, and loopback where it has every address."""
    assert leads_to(parse_upstream(upstream), parse_listen(listen))


@pytest.mark.parametrize(
    ("upstream", "listen"),
    [
        ("http://127.0.0.1:8901", "127.0.0.1:8900"),
        ("http://127.0.0.2:8900", "127.0.0.1:8900"),
        ("http://[::1]:8900", "127.0.0.1:8900"),
        ("http://app:8900", "127.0.0.1:8900"),
        ("http://app:8900", ":8900"),
        ("http://127.0.0.1:8900", "127.0.0.1:0"),
        ("http://127.0.0.1:8900", "unix:/run/a.sock"),
        ("unix:///run/b.sock", "unix:/run/a.sock"),
    ],
)
def test_what_does_not(upstream, listen):
    """Another port, another address, a name that only a look-up could tell, a free port."""
    assert not leads_to(parse_upstream(upstream), parse_listen(listen))
