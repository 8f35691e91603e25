"""Provisioning."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.deployments import make_hands, make_run

from bgproxy.config.schema import Deployment, Hook
from bgproxy.control.deployments.provision import provision
from bgproxy.control.deployments.stage import Halted
from bgproxy.model.deployment import DeploymentState


class FakeEditor:
    """Notes what is set."""

    def __init__(self) -> None:
        self.did = []

    async def set_pool(self, service, pool, *, version, upstreams, actor):
        self.did.append((service, pool, version, upstreams, actor.name))


def provisioning(deployment: Deployment, **record):
    run = make_run(
        "http://127.0.0.1:9002",
        deployment=deployment,
        state=DeploymentState.PROVISIONING,
        hands=make_hands(editor=FakeEditor()),
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
