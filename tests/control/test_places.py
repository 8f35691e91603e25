"""Places: what upstreams the URLs of a pool stand for."""

from __future__ import annotations

import pytest

from bgproxy.control.places import (
    Place,
    address_text,
    base_id,
    base_id_of,
    check_not_admin,
    checked,
    name_in,
    places_of,
)
from bgproxy.errors import Invalid

NAMES = {"web": ("172.18.0.3", "fd00::3"), "gone": ()}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:9001", [Place("127.0.0.1:9001", "http://127.0.0.1:9001", ("127.0.0.1", 9001))]),
        ("http://127.0.0.1", [Place("127.0.0.1:80", "http://127.0.0.1", ("127.0.0.1", 80))]),
        ("http://[::1]:9001", [Place("[::1]:9001", "http://[::1]:9001", ("::1", 9001))]),
        ("unix:///run/app.sock", [Place("unix:/run/app.sock", "unix:///run/app.sock", "/run/app.sock")]),
        (
            "http://web:8000",
            [
                Place("web:8000~172.18.0.3:8000", "http://web:8000", ("172.18.0.3", 8000)),
                Place("web:8000~[fd00::3]:8000", "http://web:8000", ("fd00::3", 8000)),
            ],
        ),
        ("http://gone:8000", []),
    ],
)
def test_places_of_a_url(url: str, expected: list[Place]) -> None:
    """An address is one upstream, a name is one for each address that it has just now."""
    assert places_of(url, NAMES.__getitem__) == expected


def test_only_names_are_resolved() -> None:
    """Addresses and sockets have nothing to resolve."""
    assert name_in("http://web:8000") == ("web", 8000)
    assert name_in("http://10.0.0.1") is None
    assert name_in("unix:///run/app.sock") is None


def test_an_id_leads_back_to_its_url() -> None:
    """The first part of the id of a name's upstream is the same for all its addresses."""
    (place, _) = places_of("http://web:8000", NAMES.__getitem__)
    assert base_id(place.id) == base_id_of("http://web:8000")


def test_a_bad_url_is_invalid_and_named() -> None:
    """The refusal says which URL is wrong and how to write it."""
    with pytest.raises(Invalid, match="write http://web:8000"):
        checked(["web:8000"])


def test_the_same_upstream_twice_is_invalid() -> None:
    """Two spellings of one upstream are noticed."""
    with pytest.raises(Invalid, match="the same upstream"):
        checked(["http://127.0.0.1", "http://127.0.0.1:80"])


def test_addresses_are_written_as_usual() -> None:
    """IPv6 stands in brackets, a socket's path behind unix:."""
    assert address_text(("::1", 80)) == "[::1]:80"
    assert address_text("/run/app.sock") == "unix:/run/app.sock"


def test_the_admin_api_is_no_upstream() -> None:
    """Whoever can send a request would be on loopback there."""
    with pytest.raises(Invalid, match="http://localhost:8900 is where the admin API listens"):
        check_not_admin(["http://a", "http://localhost:8900"], ["unix:/run/a.sock", "127.0.0.1:8900"])
    check_not_admin(["http://a:8900", "unix:///run/b.sock"], ["unix:/run/a.sock", "127.0.0.1:8900"])
