"""The verb `status`, once and with --watch."""

from __future__ import annotations

import json

import pytest

from bgproxy.cli.exits import UnreachableError
from bgproxy.cli.main import main
from bgproxy.cli.status import watch


def test_status_is_readable(admin, capsys):
    """The page has the service, both pools and the upstreams, without colour where there is no terminal."""
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert "shop: blue is live (generation 7; any host)" in out
    assert "green  2.0      standby" in out
    assert "\x1b" not in out


def test_status_of_one_service(admin, capsys):
    """A named service is shown alone."""
    assert main(["status", "shop"]) == 0
    assert capsys.readouterr().out.startswith("shop: blue is live")


def test_unknown_service(admin, capsys):
    """The API's words for it, and exit 2."""
    assert main(["status", "nope"]) == 2
    assert "there is no /v1/services/nope" in capsys.readouterr().err


def test_json_is_unchanged(admin, capsys):
    """--json prints what the API said, byte for byte."""
    assert main(["status", "--json"]) == 0
    assert capsys.readouterr().out == json.dumps(admin.status()) + "\n"


def test_watch_goes_on_without_the_api(capsys):
    """Once there was something to see, an API that is away is said in its place, and looked for again."""
    looks = iter([["first"], UnreachableError("away"), ["back"]])

    def look():
        found = next(looks)
        if isinstance(found, Exception):
            raise found
        return found

    naps = iter([None, None])
    with pytest.raises(StopIteration):
        watch(look, sleep=lambda _seconds: next(naps))
    assert capsys.readouterr().out == "first\n\naway\n\nback\n\n"


def test_watch_needs_a_first_look():
    """Where nothing answers at the start, that is the error."""

    def look():
        raise UnreachableError("away")

    with pytest.raises(UnreachableError):
        watch(look)
