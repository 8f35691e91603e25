"""What goes wrong is said as problem+json, and never as a traceback."""

from __future__ import annotations

import logging

import pytest

from bgproxy import errors
from bgproxy.admin import problems


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (errors.NotFound("no"), 404, "not-found"),
        (errors.Invalid("no"), 422, "invalid"),
        (errors.NotHealthy("no", ["a: refused"]), 409, "not-healthy"),
        (errors.Busy("no"), 409, "busy"),
        (errors.Refused("no"), 409, "refused"),
        (errors.Stale("no"), 412, "stale"),
        (errors.Unavailable("no"), 503, "unavailable"),
        (errors.StateError("no"), 507, "state-not-written"),
        (errors.ConfigError([errors.Mistake("f.yaml", 3, "listen", "wrong")]), 422, "config"),
    ],
)
def test_each_exception_of_ours_has_a_status_and_a_stable_type(error, status, slug):
    """The mapping of the design, one row each."""
    problem = problems.of(error).to_json()
    assert (problem["status"], problem["type"]) == (status, f"urn:bgproxy:problem:{slug}")
    assert set(problem) == {"type", "title", "status", "detail", "details"}


def test_the_lines_of_a_refusal_and_of_a_configuration_are_kept():
    """`details` has one line an upstream, or one a mistake."""
    assert problems.of(errors.NotHealthy("no", ["a: refused"])).details == ["a: refused"]
    mistakes = [errors.Mistake("f.yaml", 3, "listen", "wrong"), errors.Mistake("f.yaml", 9, "", "worse")]
    assert problems.of(errors.ConfigError(mistakes)).details == ["f.yaml:3: listen: wrong", "f.yaml:9: worse"]


async def test_what_nobody_foresaw_is_a_500_with_an_id_that_is_in_the_log(api, controller, caplog):
    """The user gets an id and no word of the cause; the log has both."""
    controller.raises = RuntimeError("the secret cause")
    async with api.get("/v1/status") as answer:
        assert answer.status == 500
        assert answer.content_type == "application/problem+json"
        text = await answer.text()
        detail = (await answer.json(content_type=None))["detail"]
    assert "secret" not in text
    assert "Traceback" not in text
    number = detail.rstrip(".").rsplit(" ", 1)[1]
    (record,) = [record for record in caplog.records if number in record.getMessage()]
    assert record.levelno == logging.ERROR
    assert record.exc_info[1] is controller.raises


async def test_a_change_that_fails_in_an_unforeseen_way_is_a_500_too(api, controller):
    """As above, through the other door."""
    controller.raises = RuntimeError("the secret cause")
    async with api.post("/v1/services/shop/switch") as answer:
        assert answer.status == 500
        assert "secret" not in await answer.text()


async def test_an_unknown_path_is_a_problem(api):
    """404 as problem+json."""
    async with api.get("/v2/nothing") as answer:
        assert answer.status == 404
        assert (await answer.json(content_type=None))["type"] == "urn:bgproxy:problem:not-found"


async def test_a_wrong_method_is_a_problem_that_names_the_right_ones(api):
    """405 with Allow."""
    async with api.delete("/v1/reload") as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "POST"
        assert (await answer.json(content_type=None))["type"] == "urn:bgproxy:problem:method-not-allowed"
