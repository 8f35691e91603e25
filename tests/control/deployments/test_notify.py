"""Who wants to know of a deployment."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from support.deployments import make_run
from support.waiting import eventually_async

from bgproxy.config.schema import Deployment, Notify
from bgproxy.control.deployments import notify as module
from bgproxy.control.deployments.notify import MOST, Notifier
from bgproxy.model.deployment import DeploymentState as State
from bgproxy.model.deployment import Result, Step

EVERYTHING = ("started", "awaiting_approval", "switched", "succeeded", "rolled_back", "failed", "aborted")


@pytest.fixture
async def notifier():
    notifier = Notifier()
    yield notifier
    await notifier.close()


@pytest.fixture
def told(monkeypatch):
    """What is called, instead of calling it."""
    calls = []

    async def call(_run, *, payload, **how):
        calls.append((payload["event"], payload["text"], how["run_command"], how["webhook"], how["timeout"]))
        return Result(stage="x", name=how["name"], ok=True)

    monkeypatch.setattr(module, "call", call)
    return calls


def at(run, state: State, why: str = ""):
    run.record = replace(
        run.record, state=state, steps=(*run.record.steps, Step(state=state.value, at=0.0, by="x", why=why))
    )
    return run


async def test_each_event_is_told_once_to_who_wants_it(notifier, told):
    """The switch at the first stage behind it."""
    run = make_run("http://127.0.0.1:9002", deployment=Deployment(notify=(Notify(run="true", on=EVERYTHING),)))
    way = [
        State.QUEUED,
        State.VERIFYING,
        State.AWAITING_APPROVAL,
        State.SWITCHING,
        State.BAKING,
        State.DRAINING,
        State.SUCCEEDED,
    ]
    before = State.QUEUED
    for state in way:
        notifier.heard(at(run, state), before)
        before = state
    await eventually_async(lambda: len(told) == 4)
    assert [event for event, *_ in told] == ["started", "awaiting_approval", "switched", "succeeded"]


async def test_by_default_the_ends_that_matter_are_told(notifier, told):
    """And the switch; with a sentence that a chat can show."""
    settings = Notify(webhook="https://chat.example/hook", timeout=3.0)
    run = make_run("http://127.0.0.1:9002", deployment=Deployment(notify=(settings,)))
    notifier.heard(at(run, State.VERIFYING), State.QUEUED)
    notifier.heard(at(run, State.ROLLED_BACK, "5% of 200 requests failed"), State.ROLLING_BACK)
    await eventually_async(lambda: told)
    assert told == [
        (
            "rolled_back",
            "shop: deployment 7 of green 2.0: rolled back (5% of 200 requests failed)",
            "",
            "https://chat.example/hook",
            3.0,
        )
    ]


async def test_a_command_is_told_what_happened(notifier, tmp_path):
    """The event is in its environment and in its input, as things were when it happened."""
    said = tmp_path / "said"
    settings = Notify(run=f'cat > {said}.json; echo "$BGPROXY_EVENT" > {said}; mv {said} {said}.done', on=("failed",))
    run = make_run("http://127.0.0.1:9002", deployment=Deployment(notify=(settings,)))
    notifier.heard(at(run, State.FAILED, "no cart"), State.VERIFYING)
    at(run, State.SUCCEEDED)
    await eventually_async((tmp_path / "said.done").exists)
    payload = json.loads((tmp_path / "said.json").read_text())
    assert (tmp_path / "said.done").read_text() == "failed\n"
    assert (payload["event"], payload["state"]) == ("failed", "failed")


async def test_who_cannot_be_told_is_in_the_log(notifier, caplog):
    """And nothing else comes of it."""
    run = make_run("http://127.0.0.1:9002", deployment=Deployment(notify=(Notify(run="exit 5", on=("failed",)),)))
    with caplog.at_level("WARNING"):
        notifier.heard(at(run, State.FAILED), State.VERIFYING)
        await eventually_async(lambda: "was not told of 'failed': status 5" in caplog.text)
    assert run.tell.lines == []


async def test_those_that_wait_are_bounded(notifier, monkeypatch, caplog):
    """A hook that hangs does not pile up deployments."""
    never = asyncio.Event()

    async def call(_run, **_how):
        await never.wait()

    monkeypatch.setattr(module, "call", call)
    run = make_run("http://127.0.0.1:9002", deployment=Deployment(notify=(Notify(run="true", on=("failed",)),)))
    with caplog.at_level("WARNING"):
        for _ in range(MOST + 2):
            notifier.heard(at(run, State.FAILED), State.VERIFYING)
    assert len(notifier._tasks) == MOST
    assert caplog.text.count("nobody is told of 'failed'") == 2
