"""Changes that are tried again, where only the moment is wrong."""

from __future__ import annotations

import pytest
from support.deployments import make_run

from bgproxy.control.deployments.patience import AGAIN, WITHIN, patiently
from bgproxy.errors import Busy, NotHealthy, StateError, Unavailable


def change(*errors: Exception):
    """Fails as told, then is made."""
    left = list(errors)

    async def make() -> str:
        if left:
            raise left.pop(0)
        return "made"

    return make


async def test_what_passes_is_waited_for():
    """A reload, a worker that has just been started; it is shown what is waited for."""
    run = make_run("http://127.0.0.1:9002")
    assert await patiently(run, change(Busy("shop: a reload is under way"), Unavailable("worker 1"))) == "made"
    assert run.clock.slept == pytest.approx(2 * AGAIN)
    assert run.tell.lines == ["tries again: shop: a reload is under way", "tries again: worker 1"]


async def test_not_for_ever():
    """What stays is raised as it came."""
    run = make_run("http://127.0.0.1:9002")
    with pytest.raises(Busy, match="a reload is under way"):
        await patiently(run, change(*[Busy("a reload is under way")] * 1000))
    assert run.clock.slept == pytest.approx(WITHIN, abs=2 * AGAIN)


@pytest.mark.parametrize("error", [NotHealthy("green is not healthy"), StateError("no space left")])
async def test_all_else_is_raised_at_once(error):
    """Unless it is said that it passes."""
    run = make_run("http://127.0.0.1:9002")
    with pytest.raises(type(error)):
        await patiently(run, change(error))
    assert run.clock.slept == 0
    assert await patiently(run, change(error), passing=(type(error),)) == "made"
