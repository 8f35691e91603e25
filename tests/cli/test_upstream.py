"""The verb `upstream`."""

from __future__ import annotations

import json

import pytest
from support.fake_admin import pool, service, upstream

from bgproxy.cli.main import main


@pytest.fixture
def both(admin):
    """Both pools have one address in common."""
    shared = [upstream("127.0.0.1:9001"), upstream("127.0.0.1:9002")]
    admin.services["shop"] = service(blue=pool("live"), green=pool(upstreams=shared))
    return admin


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        ("127.0.0.1:9002", "127.0.0.1%3A9002"),
        ("http://127.0.0.1:9002", "http%3A%2F%2F127.0.0.1%3A9002"),
        ("http://127.0.0.1:9002/", "http%3A%2F%2F127.0.0.1%3A9002"),
    ],
)
def test_found_by_id_or_url(admin, capsys, wanted, sent):
    """The pool is found by the upstream; the API gets what it knows it by."""
    after = service(green=pool(upstreams=[upstream("127.0.0.1:9002", state="draining")]))
    admin.script["PUT", f"/v1/services/shop/pools/green/upstreams/{sent}/state"] = lambda: (200, after)
    assert main(["upstream", "drain", wanted, "--reason", "disk"]) == 0
    assert capsys.readouterr().out == "shop: green 127.0.0.1:9002 is draining now\n"
    assert admin.requests[-1][3] == {"state": "drain", "reason": "disk"}


def test_pool_must_be_named_where_both_have_it(both, capsys):
    """What would be a guess is asked for."""
    assert main(["upstream", "maint", "127.0.0.1:9001"]) == 2
    assert "blue and green both have 127.0.0.1:9001: name the pool before it" in capsys.readouterr().err


def test_named_pool(both, capsys):
    """With the pool named, it is that one; --json prints the API's answer."""
    path = "/v1/services/shop/pools/green/upstreams/127.0.0.1%3A9001/state"
    both.script["PUT", path] = lambda: (200, both.services["shop"])
    assert main(["upstream", "maint", "shop", "green", "127.0.0.1:9001", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == both.services["shop"]


def test_unknown_upstream(admin, capsys):
    """All that there are are listed."""
    assert main(["upstream", "ready", "127.0.0.1:1"]) == 2
    assert "no upstream '127.0.0.1:1'; it has blue 127.0.0.1:9001 and green 127.0.0.1:9002" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["drain"], ["drown", "x"], ["drain", "a", "b", "x"]])
def test_wrong_usage(admin, words):
    """Exit 2 before anything is asked."""
    assert main(["upstream", *words]) == 2
    assert admin.requests == []
