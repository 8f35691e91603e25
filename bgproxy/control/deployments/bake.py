"""The baking stage: watches the new pool under live traffic, and ends the deployment when a rule is broken.

Five times a second the workers' counters are read and judged (`bgproxy.control.deployments.rules`). From a rule that is broken
to the rollback it is: the workers store what they counted (0.1 s at most), the next look (0.2 s), the transition and the switch on the
disk (milliseconds each).
"""

from __future__ import annotations

from typing import Any, Final

from bgproxy.config.schema import Bake
from bgproxy.config.units import format_duration
from bgproxy.control.deployments.figures import EMPTY, Figures, Window
from bgproxy.control.deployments.rules import Before, Broken, Rules, duration
from bgproxy.control.deployments.stage import Halted, Run
from bgproxy.model.deployment import Result

#: Seconds between two looks.
LOOK: Final = 0.2


class BakeBroken(Halted):
    """A rule of the bake is broken; the text says which number broke it."""


def baseline(run: Run) -> dict[str, Any]:
    """How the old pool did until now; to be called before the first client is moved, and kept: `run.remember(before=...)`."""
    run.figures = _figures(run)
    watcher = run.hands.watcher
    window = EMPTY if watcher is None else watcher.before(run.service)
    return {"pool": run.old.name, **window.to_json()}


async def watch(run: Run, seconds: float, *, since: float) -> None:
    """Judge for so many seconds, while a share of the clients is on the new pool: a step of a canary.

    Over all steps: what was counted since `since`, which is when `baseline` was called. Fewer requests than the bake needs
    are no reason to stop here.

    Raises:
        BakeBroken: a rule is broken.
    """
    judge = _Judge(run, run.figures or _figures(run))
    began = run.clock.now()
    until = began + seconds
    while (left := until - run.clock.now()) > 0:
        judge.look()
        share = run.hands.switcher.share(run.service)
        judge.show(f"{share}% of the clients", left, 1 - left / seconds, weight=share, since=round(began - since, 1))
        await run.clock.sleep(min(LOOK, left))
    judge.look()


async def bake(run: Run) -> None:
    """End when the time is over and no rule is broken.

    After a restart it begins anew, with the figures from before the switch in the record's memory.

    Raises:
        BakeBroken: a rule is broken.
        Halted: too few requests came, and nobody has said that it is well all the same.
    """
    settings = run.settings.bake
    if settings is None:
        return
    judge = _Judge(run, _figures(run))
    run.figures = judge.figures
    began = run.clock.now()
    until = began + settings.for_
    while (left := until - run.clock.now()) > 0:
        judge.look()
        judge.show("bakes", left, 1 - left / settings.for_)
        await run.clock.sleep(min(LOOK, left))
    judge.look()
    if not judge.enough:
        await _no_traffic(run, judge)
    judge.end(run.clock.now() - began)


async def _no_traffic(run: Run, judge: _Judge) -> None:
    """Too little came: that is no success. Ends when somebody has said that it is, or when enough has come after all."""
    settings = judge.settings
    cause = (
        f"only {judge.whole.requests:,} requests came to {run.idle.name} within {format_duration(settings.for_)}, "
        f"and the bake needs {settings.min_requests:,}"
    )
    if settings.no_traffic == "fail":
        raise Halted(cause)
    run.approved.clear()
    until = run.clock.now() + settings.wait
    run.waits = True
    try:
        while not run.approved.is_set() and not judge.enough:
            left = until - run.clock.now()
            if left <= 0:
                raise Halted(f"{cause}; nobody approved it within {format_duration(settings.wait)}")
            judge.show(f"waits for `bgproxy approve`: {cause}", left, None)
            await run.clock.sleep(min(LOOK, left))
            judge.look()
    finally:
        run.waits = False


class _Judge:
    """Looks, judges, shows."""

    def __init__(self, run: Run, figures: Figures) -> None:
        self.figures = figures
        self._run = run
        self._new = figures.pools[run.target]
        self._rules: Rules | None = None
        if run.settings.bake is not None:
            kept = run.record.memory.get("before", {})
            before = Before(run.old.name, Window.from_json(kept))
            self._rules = Rules(run.settings.bake, before, tcp=run.service.tcp)

    @property
    def settings(self) -> Bake:
        """Of the bake; the defaults where only the steps of a canary are watched."""
        return self._run.settings.bake or Bake()

    @property
    def whole(self) -> Window:
        """The new pool so far."""
        return self._new.whole()

    @property
    def enough(self) -> bool:
        """Whether so many requests came as the bake needs."""
        return self.whole.requests >= self.settings.min_requests

    def look(self) -> None:
        """Take a sample, and judge; raises `BakeBroken`."""
        run, rules = self._run, self._rules
        self.figures.look()
        # Those that an operator has just put there get requests, and are not judged yet.
        if not any(upstream.usable(live=True) for upstream in run.idle.upstreams) and run.old.has_one_up:
            text, why = f"no upstream of {run.idle.name} is up, and {run.old.name} has one", tuple(run.idle.troubles())
            state = run.record.state.value
            run.keep(Result(stage=state, name="upstreams", ok=False, expected="one up", found=text, details=why))
            raise BakeBroken(text, why)
        if rules is not None:
            latest = [self._new.latest(requests) for requests in rules.spans()]
            broken = rules.judge(self.whole, latest, self._new.hanging)
            if broken is not None:
                self._break(broken)

    def end(self, seconds: float) -> None:
        """Judge the whole as it is, and keep what came of each rule; raises `BakeBroken`."""
        rules = self._rules
        if rules is None:
            return
        broken = rules.judge_end(self.whole) if self.enough else None
        if broken is not None:
            self._break(broken)
        for result in rules.results(self.whole, seconds):
            self._run.keep(result)

    def _break(self, broken: Broken) -> None:
        run = self._run
        run.keep(Result(stage=run.record.state.value, name=f"bake.{broken.rule}", ok=False, found=broken.text))
        # Without details: the result has it all, and `cause` would only say it once more.
        raise BakeBroken(f"{run.idle.name}: {broken.text}")

    def show(self, what: str, left: float, share_done: float | None, **more: Any) -> None:
        """Say how far it is, with figures of both pools."""
        live = self.figures.live()
        new = live[self._run.idle.name]
        requests = self.whole.requests
        p99 = f", p99 {duration(new['p99'])}" if new["p99"] is not None else ""
        text = f"{what}: {self._run.idle.name} {new['rate']:.0f}/s, {new['errors'] * 100:.2g}% errors{p99}"
        self._run.show(
            text,
            None if share_done is None else round(share_done, 3),
            pools=live,
            left=round(left, 1),
            requests=requests,
            **more,
        )


def _figures(run: Run) -> Figures:
    return Figures(run.hands.counters, run.service, run.clock.now)
