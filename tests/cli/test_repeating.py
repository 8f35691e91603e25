"""A change whose answer was lost, asked for again."""

from __future__ import annotations

import pytest
from support.fake_admin import LOST, FakeAdmin, deployment, problem

from bgproxy.cli.client import Address, ApiError, Client
from bgproxy.cli.exits import LostError, UnreachableError
from bgproxy.cli.repeating import PATIENCE, post_once

PATH = "/v1/services/shop/deployments"


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def ask(admin: FakeAdmin, *answers, clock=None):
    """The API answers with these, one after the other, the last for ever."""
    left = list(answers)
    admin.script["POST", PATH] = lambda: left.pop(0) if len(left) > 1 else left[0]
    clock = clock or Clock()
    client = Client.of(None)
    return post_once(client, PATH, {"version": "2"}, {"If-Match": '"7"'}, now=clock.now, sleep=clock.sleep)


def test_what_is_answered_is_asked_once(admin, capsys):
    """Under a key of its own."""
    assert ask(admin, (200, deployment())).data["id"] == 3
    ask(admin, (200, deployment()))
    keys = {headers["Idempotency-Key"] for _, _, headers, _ in admin.requests}
    assert len(keys) == len(admin.requests) == 2
    assert capsys.readouterr().err == ""


def test_a_lost_answer_is_asked_for_again_with_the_same_words(admin, capsys):
    """Key, condition and body: the API knows it again. A controller that is just starting is waited for."""
    starting = problem(503, "unavailable", "still starting")
    assert ask(admin, LOST, LOST, starting, (200, b"?"), (200, deployment())).data["id"] == 3
    assert len(admin.requests) == 5
    first, *others = [(headers["Idempotency-Key"], headers["If-Match"], body) for _, _, headers, body in admin.requests]
    assert others == [first] * 4
    assert capsys.readouterr().err.splitlines() == [
        "the answer of the admin API was lost; asking again, under the same key"
    ]


@pytest.mark.parametrize("slug", ["busy", "refused"])
def test_a_refusal_is_an_answer(admin, slug):
    """At once, or after a lost one."""
    with pytest.raises(ApiError):
        ask(admin, problem(409, slug, "no"))
    with pytest.raises(ApiError):
        ask(admin, LOST, problem(409, slug, "no"))
    assert len(admin.requests) == 3


def test_a_503_that_is_the_first_answer_is_one(admin):
    """Nothing was lost; whoever asks may ask again."""
    with pytest.raises(ApiError):
        ask(admin, problem(503, "unavailable", "still starting"))
    assert len(admin.requests) == 1


def test_an_answer_that_stays_lost(admin):
    """After a minute it is given up; whether it was made, `status` tells."""
    clock = Clock()
    with pytest.raises(LostError, match="Whether the change was made, `bgproxy status` tells"):
        ask(admin, LOST, clock=clock)
    assert clock.time == pytest.approx(100 + PATIENCE, abs=1.0)


def test_where_nobody_listens_nothing_is_repeated():
    """Nothing was sent."""
    clock = Clock()
    with pytest.raises(UnreachableError, match="cannot be reached"):
        post_once(Client(Address("127.0.0.1", 1)), PATH, {}, {}, now=clock.now, sleep=clock.sleep)
    assert clock.time == 100
