"""Which service a request is for."""

from __future__ import annotations

import pytest
from support.routing import make_service

from bgproxy.proxy.routes import Routes, match


def routes(*services):
    """Routes of services named `host path`, `*` for any host."""
    made = []
    for slot, text in enumerate(services):
        host, _, path = text.partition(" ")
        made.append(make_service(name=text, slot=slot, hosts=() if host == "*" else tuple(host.split(",")), path=path))
    return Routes(made)


def found(table, host, target):
    service = match(table.candidates(host), target)
    return service.name if service is not None else None


def test_an_exact_host_wins_over_a_wildcard_and_that_over_any():
    """The most specific host first, as a whole."""
    table = routes("* /", "*.example /", "shop.example /", "*.shop.example /")
    assert found(table, b"shop.example", b"/") == "shop.example /"
    assert found(table, b"api.example", b"/") == "*.example /"
    assert found(table, b"a.shop.example", b"/") == "*.shop.example /"
    assert found(table, b"a.b.shop.example", b"/") == "*.shop.example /"
    assert found(table, b"example", b"/") == "* /"
    assert found(table, b"other.test", b"/") == "* /"
    assert found(table, b"", b"/") == "* /"


def test_a_wildcard_is_not_for_its_own_name():
    """`*.example` is for what is below it, on a label's boundary."""
    table = routes("*.example /")
    assert found(table, b"example", b"/") is None
    assert found(table, b"badexample", b"/") is None
    assert found(table, b".example", b"/") == "*.example /"  # an empty label: the host is odd, the way is plain


@pytest.mark.parametrize(
    ("target", "service"),
    [
        (b"/", "* /"),
        (b"/api", "* /api"),
        (b"/api/", "* /api"),
        (b"/api/v1", "* /api/v1"),
        (b"/api/v1?x", "* /api/v1"),
        (b"/api/v11", "* /api"),
        (b"/apiary", "* /"),
        (b"/api?x", "* /api"),
        (b"/API", "* /"),
        (b"/static/x", "* /static/"),
        (b"/static", "* /"),
        (b"//api", "* /"),
        (b"/x/../api", "* /"),
        (b"/%61pi", "* /"),
        (b"*", "* /"),
    ],
)
def test_the_longest_path_on_a_segment_boundary(target, service):
    """Byte for byte: no escape is decoded and no dot is resolved, as it is forwarded."""
    assert found(routes("* /", "* /api", "* /api/v1", "* /static/"), b"any", target) == service


def test_a_host_without_a_matching_path_falls_through_to_the_next_wider():
    """`shop.example /cart` does not take `/x` away from the service for any host."""
    table = routes("shop.example /cart", "*.example /y", "* /x")
    assert found(table, b"shop.example", b"/cart/1") == "shop.example /cart"
    assert found(table, b"shop.example", b"/y") == "*.example /y"
    assert found(table, b"shop.example", b"/x") == "* /x"
    assert found(table, b"shop.example", b"/z") is None


def test_a_more_specific_host_wins_over_a_longer_path():
    """Host before path."""
    table = routes("shop.example /", "* /cart")
    assert found(table, b"shop.example", b"/cart") == "shop.example /"


def test_hosts_are_matched_in_lower_case_without_a_trailing_dot():
    """As `hostname_of` gives them."""
    assert found(routes("Shop.Example. /"), b"shop.example", b"/") == "Shop.Example. /"


def test_one_service_may_have_several_hosts():
    """Each of them leads to it, and nothing else does."""
    table = routes("a.test,b.test,*.c.test /")
    for host in (b"a.test", b"b.test", b"x.c.test"):
        assert found(table, host, b"/") == "a.test,b.test,*.c.test /"
    assert found(table, b"c.test", b"/") is None


def test_no_service_is_for_anybody_without_services():
    """404 is the connection's to say."""
    assert found(Routes([]), b"a", b"/") is None
