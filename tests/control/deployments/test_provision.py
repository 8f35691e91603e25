"""Provisioning."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.deployments import make_hands, make_run

from bgproxy.config.schema import Deployment, Hook
from bgproxy.control.deployments.provision import provision
from bgproxy.control.deployments.stage import Halted
from bgproxy.control.draining import Drained
from bgproxy.errors import Busy
from bgproxy.model.deployment import DeploymentState


class FakeEditor:
    """Notes what is set."""

    def __init__(self) -> None:
        self.did = []
        self.busy = 0  # so often

    async def set_pool(self, service, pool, *, version, upstreams, actor):
        if self.busy:
            self.busy -= 1
            raise Busy("shop: a reload is under way; nothing was changed.")
        self.did.append((service, pool, version, upstreams, actor.name))


def provisioning(deployment: Deployment, *, drains=None, **record):
    run = make_run(
        "http://127.0.0.1:9002",
        deployment=deployment,
        state=DeploymentState.PROVISIONING,
        hands=make_hands(editor=FakeEditor(), drains=drains),
    )
    run.record = replace(run.record, **record)
    return run


async def test_the_pool_is_set_before_the_command_runs():
    """In the name of the deployment."""
    run = provisioning(Deployment(provision=Hook(run="echo up")), upstreams=("http://127.0.0.1:9003",), version="3.0")
    await provision(run)
    assert run.hands.editor.did == [("shop", "green", "3.0", ("http://127.0.0.1:9003",), "deployment 7")]
    assert [(result.name, result.ok, result.details) for result in run.record.results] == [("provision", True, ("up",))]


async def test_a_pool_that_stays_is_not_set():
    """Nor is anything run where nothing is configured."""
    run = provisioning(Deployment())
    await provision(run)
    assert run.hands.editor.did == []
    assert run.record.results == ()


async def test_a_command_that_fails_halts():
    """With its last words."""
    run = provisioning(Deployment(provision=Hook(run="echo no such image; exit 1")))
    with pytest.raises(Halted, match="provisioning green failed: status 1") as halted:
        await provision(run)
    assert halted.value.details == ("no such image",)
    assert not run.record.results[0].ok


async def test_another_change_is_waited_for():
    """A reload at this moment fails no deployment."""
    run = provisioning(Deployment(), upstreams=("http://127.0.0.1:9003",))
    run.hands.editor.busy = 2
    await provision(run)
    assert len(run.hands.editor.did) == 1


async def test_what_began_there_ends_before_the_servers_are_replaced(tmp_path):
    """After a rollback users may be in the middle of something on that very pool."""
    drained = asyncio.get_running_loop().create_future()
    asked = []

    def ending(service, pool):
        asked.append((service, pool))
        return drained

    drains = SimpleNamespace(ending=ending, of=lambda *_: SimpleNamespace(in_flight=lambda: [0, 2, 1]))
    run = provisioning(Deployment(provision=Hook(run=f"touch {tmp_path}/ran")), drains=drains)
    work = asyncio.create_task(provision(run))
    while not run.tell.lines:
        await asyncio.sleep(0)
    assert asked == [("shop", 1)]
    assert run.tell.lines == ["green drains: 3 in flight"]
    assert not (tmp_path / "ran").exists()
    assert run.record.memory == {}
    drained.set_result(Drained([0, 2, 1], [0, 0, 0], 1.0, True))
    await work
    assert (tmp_path / "ran").exists()
    assert run.record.memory == {"provision": "running"}
