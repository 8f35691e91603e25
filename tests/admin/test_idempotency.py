"""Idempotency-Key: made once, answered twice."""

from __future__ import annotations

import asyncio

import pytest
from support.fake_controller import config

from bgproxy.admin.app import make_app
from bgproxy.admin.idempotency import KEPT_FOR, Answer, Answers
from bgproxy.admin.problems import Problem

KEY = {"Idempotency-Key": "k1"}
SCOPE = ("POST", "/v1/switch", "anonymous")


class Maker:
    """Makes answers that can be told apart, with the given status."""

    def __init__(self, status: int = 200, outcome: str = "done") -> None:
        self.status = status
        self.outcome = outcome
        self.calls = 0
        self.gate: asyncio.Event | None = None
        self.started = asyncio.Event()

    async def __call__(self) -> Answer:
        self.calls += 1
        number = self.calls
        self.started.set()
        if self.gate is not None:
            await self.gate.wait()
        return Answer(self.status, b"%d" % number, {}, self.outcome)


async def test_the_same_key_gets_the_first_answer_again(api, controller):
    """The switch is made once; the second answer is the first, and says so."""
    texts = []
    for _ in range(2):
        async with api.post("/v1/services/shop/switch", headers=KEY) as answer:
            assert answer.status == 200
            assert answer.headers["ETag"] == '"2"'
            texts.append(await answer.text())
    assert texts[0] == texts[1]
    assert answer.headers["Idempotent-Replayed"] == "true"
    assert len(controller.calls) == 1
    assert controller.services["shop"].live == "green"


async def test_another_body_with_the_same_key_is_422(api, controller):
    """A key belongs to one request."""
    async with api.post("/v1/services/shop/switch", json={"to": "green"}, headers=KEY) as answer:
        assert answer.status == 200
    async with api.post("/v1/services/shop/switch", json={"to": "blue"}, headers=KEY) as answer:
        assert answer.status == 422
        assert (await answer.json(content_type=None))["type"] == "urn:bgproxy:problem:idempotency-mismatch"
    assert controller.services["shop"].live == "green"


async def test_a_key_is_scoped_to_the_path(api, controller):
    """The same key on another service is another request."""
    for service in ("shop", "api"):
        async with api.post(f"/v1/services/{service}/switch", headers=KEY) as answer:
            assert "Idempotent-Replayed" not in answer.headers
    assert len(controller.calls) == 2


async def test_a_duplicate_waits_for_the_first(api, controller):
    """While the first is under way, the second is not made; both get the one answer."""
    controller.gate = asyncio.Event()
    first = asyncio.create_task(api.post("/v1/services/shop/switch", headers=KEY))
    second = asyncio.create_task(api.post("/v1/services/shop/switch", headers=KEY))
    await controller.held.wait()
    controller.gate.set()
    one, two = await asyncio.gather(first, second)
    assert await one.text() == await two.text()
    assert len(controller.calls) == 1


async def test_a_refusal_as_things_stood_is_kept(api, controller):
    """Not healthy: the same key hears the same, even if the pool has become healthy."""
    controller.unhealthy.add(("shop", "green"))
    for _ in range(2):
        async with api.post("/v1/services/shop/switch", headers=KEY) as answer:
            assert answer.status == 409
        controller.unhealthy.clear()
    assert controller.services["shop"].live == "blue"


async def test_busy_is_not_kept(api, controller):
    """Busy says "try again", and trying again with the same key does."""
    controller.busy()
    async with api.post("/v1/services/shop/switch", headers=KEY) as answer:
        assert answer.status == 409
    controller.raises = None
    async with api.post("/v1/services/shop/switch", headers=KEY) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("status", [400, 422, 500, 503, 507])
async def test_what_did_not_come_to_a_decision_is_not_kept(status):
    """The next request with the key is made."""
    answers, make = Answers(), Maker(status, "whatever")
    await answers.once(SCOPE, "k", b"", make)
    assert (await answers.once(SCOPE, "k", b"", make)).body == b"2"


async def test_a_first_request_that_fails_lets_the_next_in_line_try():
    """A duplicate that waited for a request that came to nothing is made itself."""
    answers, make = Answers(), Maker(503, "unavailable")
    make.gate = asyncio.Event()
    both = [asyncio.create_task(answers.once(SCOPE, "k", b"", make)) for _ in range(2)]
    await make.started.wait()
    make.gate.set()
    assert sorted(answer.body for answer in await asyncio.gather(*both)) == [b"1", b"2"]


async def test_a_first_request_that_is_cancelled_lets_the_next_in_line_try():
    """Cancelling the first leaves nothing behind that the second would wait for."""
    answers, make = Answers(), Maker()
    make.gate = asyncio.Event()
    first = asyncio.create_task(answers.once(SCOPE, "k", b"", make))
    await make.started.wait()
    second = asyncio.create_task(answers.once(SCOPE, "k", b"", make))
    await asyncio.sleep(0)
    first.cancel()
    make.gate.set()
    assert (await second).body == b"2"


async def test_a_duplicate_does_not_wait_for_ever():
    """After the deadline it is told that the first still runs."""
    answers, make = Answers(wait=0.01), Maker()
    make.gate = asyncio.Event()
    first = asyncio.create_task(answers.once(SCOPE, "k", b"", make))
    await make.started.wait()
    with pytest.raises(Problem) as caught:
        await answers.once(SCOPE, "k", b"", make)
    assert caught.value.slug == "busy"
    make.gate.set()
    await first


async def test_answers_are_bounded_and_the_oldest_is_forgotten_first():
    """The third key pushes the first out."""
    answers, make = Answers(kept=2), Maker()
    for key in ("a", "b", "c"):
        await answers.once(SCOPE, key, b"", make)
    assert (await answers.once(SCOPE, "c", b"", make)).replayed
    assert not (await answers.once(SCOPE, "a", b"", make)).replayed


async def test_answers_are_forgotten_after_a_day():
    """A key may be used anew then."""
    now = [0.0]
    answers, make = Answers(now=lambda: now[0]), Maker()
    await answers.once(SCOPE, "k", b"", make)
    now[0] = KEPT_FOR
    assert (await answers.once(SCOPE, "k", b"", make)).replayed
    now[0] += 1
    assert not (await answers.once(SCOPE, "k", b"", make)).replayed


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "é"])
async def test_what_is_no_key_is_refused(key):
    """Keys are short and visible."""
    with pytest.raises(Problem) as caught:
        await Answers().once(SCOPE, key, b"", Maker())
    assert caught.value.slug == "malformed"


async def test_a_key_is_scoped_to_who_asks(aiohttp_client, controller, monkeypatch):
    """What one token did, another does not hear of."""
    from bgproxy.config.schema import Token

    monkeypatch.setenv("ANN", "ann-ann-ann-ann-ann")
    monkeypatch.setenv("BOB", "bob-bob-bob-bob-bob")
    tokens = tuple(Token(name=name, role="operator", token_env=name.upper()) for name in ("ann", "bob"))
    controller.config = config(tokens=tokens)
    api = await aiohttp_client(make_app(controller, controller.config))
    for text in ("ann-ann-ann-ann-ann", "bob-bob-bob-bob-bob"):
        headers = KEY | {"Authorization": f"Bearer {text}"}
        async with api.post("/v1/services/shop/switch", json={"to": "green"}, headers=headers) as answer:
            assert answer.status == 200
            assert "Idempotent-Replayed" not in answer.headers


@pytest.mark.parametrize("condition", ['"1"', "", "*"])
async def test_another_condition_with_the_same_key_is_422(api, controller, condition):
    """If-Match is a part of what is asked: an answer to a change without it is none to one with it."""
    async with api.post("/v1/services/shop/switch", headers={"Idempotency-Key": "k"}) as answer:
        assert answer.status == 200
    headers = {"Idempotency-Key": "k", "If-Match": condition}
    async with api.post("/v1/services/shop/switch", headers=headers) as answer:
        assert answer.status == 422
        assert (await answer.json(content_type=None))["type"] == "urn:bgproxy:problem:idempotency-mismatch"
    assert len(controller.calls) == 1
