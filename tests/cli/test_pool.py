"""The verb `pool set`."""

from __future__ import annotations

import json

import pytest
from support.fake_admin import pool, service

from bgproxy.cli.main import main


@pytest.fixture
def changed(admin):
    """The service as it is after the change; the API answers with it."""
    green = pool(
        "idle", "127.0.0.1:9005", version="2.1", unresolved=[{"url": "http://web:80", "reason": "no such name"}]
    )
    after = service(green=green, generation=8)
    admin.script["PUT", "/v1/services/shop/pools/green"] = lambda: (200, after)
    return after


def test_sets_and_says(admin, changed, capsys):
    """Every --upstream and the version go in one call; the answer is what the pool is now."""
    words = ["pool", "set", "shop", "green", "--upstream", "http://127.0.0.1:9005", "--upstream", "http://web:80"]
    assert main([*words, "--version", "2.1", "--if-generation", "7"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "shop: green has version 2.1, 1 upstream: 127.0.0.1:9005 (generation 8)",
        "  http://web:80: no such name",
    ]
    (sent,) = admin.requests
    assert sent[3] == {"version": "2.1", "upstreams": ["http://127.0.0.1:9005", "http://web:80"]}
    assert sent[2]["If-Match"] == '"7"'


def test_only_what_was_said_is_sent(admin, changed, capsys):
    """The service may be left out; --json prints the API's answer."""
    assert main(["pool", "set", "green", "--version", "", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == changed
    assert admin.requests[-1][3] == {"version": ""}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["set", "green"], "nothing to set"),
        (["set", "--version", "2"], "which pool, blue or green?"),
        (["set", "shop", "--version", "2"], "which pool"),
        (["unset", "green"], "invalid choice: 'unset'"),
        ([], "arguments are required: what"),
    ],
)
def test_wrong_usage(admin, words, says, capsys):
    """Exit 2 before anything is asked."""
    assert main(["pool", *words]) == 2
    assert says in capsys.readouterr().err
    assert admin.requests == []
