"""The verb `reload`."""

from __future__ import annotations

from support.fake_admin import problem

from bgproxy.cli.main import main


def test_says_what_came_of_it(admin, capsys):
    """The API's message, or plainly that it was done; --json prints the answer."""
    admin.script["POST", "/v1/reload"] = lambda: (200, {"message": "2 services changed"})
    assert main(["reload"]) == 0
    assert main(["reload", "--json"]) == 0
    admin.script["POST", "/v1/reload"] = lambda: (200, {"generation": 8})
    assert main(["reload"]) == 0
    assert capsys.readouterr().out == '2 services changed\n{"message": "2 services changed"}\nreloaded\n'


def test_mistakes_are_listed(admin, capsys):
    """A file with mistakes: each on its line, exit 2."""
    admin.script["POST", "/v1/reload"] = lambda: problem(422, "config", "2 mistakes", "f:1: listen: a", "f:2: b: c")
    assert main(["reload"]) == 2
    assert capsys.readouterr().err == "bgproxy: 2 mistakes\n  f:1: listen: a\n  f:2: b: c\n"
