"""The verb `approve`, and which deployment a word means."""

from __future__ import annotations

import json

import pytest
from support.fake_admin import LOST, deployment, problem, service

from bgproxy.cli import repeating
from bgproxy.cli.main import main

POST = ("POST", "/v1/deployments/3/approve")


def under_way(number=3):
    return {"id": number}


@pytest.mark.parametrize("typed", [[], ["3"], ["shop"]])
def test_a_number_a_service_or_the_only_one(admin, capsys, typed):
    """All of them lead to the deployment; the reason goes along."""
    admin.services["shop"]["deployment"] = under_way()
    admin.services["api"] = service("api")
    admin.script[POST] = lambda: (200, deployment("awaiting_approval"))
    assert main(["approve", *typed, "--reason", "seen"]) == 0
    assert capsys.readouterr().out == "shop: deployment 3 is approved, and goes on\n"
    assert admin.requests[-1][1::2] == ("/v1/deployments/3/approve", {"reason": "seen"})


def test_json(admin, capsys):
    """The answer as it came."""
    admin.script[POST] = lambda: (200, deployment("awaiting_approval"))
    assert main(["approve", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == deployment("awaiting_approval")


@pytest.mark.parametrize(("typed", "of"), [([], ""), (["shop"], " of shop")])
def test_none_is_under_way(admin, capsys, typed, of):
    """4: refused as things stand."""
    assert main(["approve", *typed]) == 4
    assert f"no deployment{of} is under way" in capsys.readouterr().err


def test_several_are_under_way(admin, capsys):
    """One must be named; all are."""
    admin.services = {name: service(name, deployment=under_way(n)) for n, name in ((3, "shop"), (4, "api"))}
    assert main(["approve"]) == 2
    assert "2 deployments are under way, name the one that is meant: 4 (api), 3 (shop)" in capsys.readouterr().err


def test_what_the_api_refuses(admin, capsys):
    """One that does not wait: 4; one that is not there: 2."""
    admin.script[POST] = lambda: problem(409, "refused", "Deployment 3 does not wait")
    assert main(["approve", "3"]) == 4
    assert "Deployment 3 does not wait" in capsys.readouterr().err
    assert main(["approve", "9"]) == 2
    assert main(["approve", "none"]) == 2


@pytest.mark.parametrize("verb", ["approve", "abort"])
def test_a_decision_whose_answer_was_lost_is_sent_again(admin, monkeypatch, verb):
    """With the same key, so that it is made once."""
    monkeypatch.setattr(repeating, "POLL", 0.001)
    answers = [LOST, (200, deployment("verifying"))]
    admin.script["POST", f"/v1/deployments/3/{verb}"] = lambda: answers.pop(0)
    admin.script["GET", "/v1/deployments/3"] = lambda: (200, deployment("verifying", "aborted"))
    assert main([verb, "3"]) == 0
    keys = [headers["Idempotency-Key"] for method, _, headers, _ in admin.requests if method == "POST"]
    assert len(keys) == 2
    assert keys[0] == keys[1]
