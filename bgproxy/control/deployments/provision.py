"""Provisioning: the idle pool is set, and the command or webhook that brings its servers up is called."""

from __future__ import annotations

from bgproxy.control.deployments.hooks import call
from bgproxy.control.deployments.stage import Halted, Run


async def provision(run: Run) -> None:
    """Set the idle pool if the deployment says how, then have it provisioned; raises `Halted` when that fails."""
    record, settings = run.record, run.settings.provision
    if record.upstreams is not None:
        await run.hands.editor.set_pool(
            record.service, record.target, version=record.version, upstreams=record.upstreams, actor=run.actor
        )
    if settings is None:
        return
    result = await call(
        run,
        run_command=settings.run,
        webhook=settings.webhook,
        timeout=settings.timeout,
        stage=record.state.value,
        name="provision",
    )
    run.keep(result)
    if not result.ok:
        raise Halted(f"provisioning {record.target} failed: {result.found}", result.details)
