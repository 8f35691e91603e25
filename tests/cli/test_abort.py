"""The verb `abort`."""

from __future__ import annotations

import json

import pytest
from support.fake_admin import deployment, problem

from bgproxy.cli import following
from bgproxy.cli.main import main

POST = ("POST", "/v1/deployments/3/abort")
GET = ("GET", "/v1/deployments/3")


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(following, "POLL", 0.001)


@pytest.mark.parametrize(
    ("more", "status"),
    [
        (["rolling_back", "rolled_back"], 0),
        (["rolling_back", "failed"], 1),
        (["draining", "succeeded"], 0),
    ],
)
def test_it_is_followed_to_its_end(admin, capsys, more, status):
    """What was undone is shown; that it could not be is a failure."""
    admin.script[POST] = lambda: (200, deployment("switching", "baking"))
    admin.script[GET] = lambda: (200, deployment("switching", "baking", *more, outcome="aborted by alice"))
    assert main(["abort", "3", "--reason", "wrong build"]) == status
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "shop: deployment 3 is being aborted"
    assert lines[1] == more[0].replace("_", " ")
    assert lines[2].endswith("after 4.0 s: aborted by alice")
    assert admin.requests[0][3] == {"reason": "wrong build"}


def test_no_wait_and_json(admin, capsys):
    """The answer as it came; without waiting the first, else the last."""
    admin.script[POST] = lambda: (200, deployment("verifying"))
    admin.script[GET] = lambda: (200, deployment("verifying", "aborted"))
    assert main(["abort", "3", "--no-wait", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "verifying"
    assert main(["abort", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "aborted"
    assert main(["abort", "3", "--no-wait"]) == 0
    assert capsys.readouterr().out == "shop: deployment 3 is being aborted\n"


def test_what_has_ended_cannot_be_aborted(admin, capsys):
    """4, as the API says it."""
    admin.script[POST] = lambda: problem(409, "refused", "Deployment 3 has ended: it is succeeded.")
    assert main(["abort", "3"]) == 4
    assert "has ended" in capsys.readouterr().err
