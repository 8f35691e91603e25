"""The verb `follow`."""

from __future__ import annotations

import json

import pytest
from support.fake_admin import deployment, problem, service

from bgproxy.cli import following
from bgproxy.cli.main import main

GET = ("GET", "/v1/deployments/3")


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(following, "POLL", 0.001)


@pytest.mark.parametrize("word", [[], ["shop"], ["3"]])
def test_it_is_shown_from_its_beginning(admin, capsys, word):
    """The only one under way, that of a service, or one by its number; nothing is changed."""
    admin.services["shop"]["deployment"] = {"id": 3}
    end = deployment("verifying", "switching", "succeeded", outcome="green is live")
    looks = [deployment("verifying"), deployment("verifying"), end]
    admin.script[GET] = lambda: (200, looks.pop(0))
    assert main(["follow", *word]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "deployment 3 of shop to green 2.0, all-at-once",
        "begun at 2024-01-01T00:00:00.000Z by alice",
        "verifying",
        "switching",
        "shop: deployment 3 succeeded after 3.0 s: green is live",
    ]
    assert {method for method, _, _, _ in admin.requests} == {"GET"}


@pytest.mark.parametrize(("end", "status"), [("succeeded", 0), ("failed", 1), ("rolled_back", 1), ("aborted", 1)])
def test_the_exit_status_is_the_outcome(admin, capsys, end, status):
    """Of one that has ended long ago too; with --json the last answer alone."""
    admin.script[GET] = lambda: (200, deployment("verifying", end))
    assert main(["follow", "3", "--json"]) == status
    assert json.loads(capsys.readouterr().out)["state"] == end


def test_there_is_none(admin, capsys):
    """None under way, none of that number; and several must be told apart."""
    assert main(["follow"]) == 4
    assert "no deployment is under way" in capsys.readouterr().err
    admin.script[GET] = lambda: problem(404, "not-found", "There is no deployment 3.")
    assert main(["follow", "3"]) == 2
    for number, name in enumerate(("shop", "api")):
        admin.services[name] = service(name, deployment={"id": number})
    assert main(["follow"]) == 2
    assert "2 deployments are under way, name the one that is meant: 1 (api), 0 (shop)" in capsys.readouterr().err


def test_until_the_old_version_is_retired(admin):
    """Only with --wait retired."""
    progress = {"share": 0.0, "text": "stands by", "figures": {"left": 1800.0}}
    standing = deployment("retiring", progress=progress)
    looks = [standing, standing, deployment("retiring", "succeeded")]
    admin.script[GET] = lambda: (200, looks[0])
    assert main(["follow", "3"]) == 0
    admin.script[GET] = lambda: (200, looks.pop(0))
    assert main(["follow", "3", "--wait", "retired"]) == 0
    assert looks == []
