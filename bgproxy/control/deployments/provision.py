"""Provisioning: the idle pool is set, and the command or webhook that brings its servers up is called.

What began on that pool when it was live, before a rollback perhaps, ends first: the command may replace the very servers.
"""

from __future__ import annotations

from bgproxy.control.deployments.drain import until_drained
from bgproxy.control.deployments.hooks import call
from bgproxy.control.deployments.patience import patiently
from bgproxy.control.deployments.stage import Halted, Run


async def provision(run: Run) -> None:
    """Set the idle pool if the deployment says how, then have it provisioned; raises `Halted` when that fails.

    What a restart finds remembered as running is not called again: see `runner`.
    """
    record, settings = run.record, run.settings.provision
    if record.upstreams is not None:
        await patiently(
            run,
            lambda: run.hands.editor.set_pool(
                record.service, record.target, version=record.version, upstreams=record.upstreams, actor=run.actor
            ),
        )
    if settings is None:
        return
    await until_drained(run, run.idle)
    await run.remember(provision="running")
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
