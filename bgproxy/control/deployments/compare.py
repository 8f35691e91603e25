"""The comparing stage: live requests are repeated to the idle pool, and its answers compared with those that users got.

Workers give copies of a share of the live requests (`bgproxy.proxy.mirror`), as many as they have credits for. What happens with a
copy happens here, so that an idle pool that is slow, hangs, resets or floods costs no live request anything: it costs credits, and
requests without one are not mirrored.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import deque
from typing import Final

from bgproxy.config.jsonpath import parse
from bgproxy.config.schema import Compare, KiB
from bgproxy.config.units import format_duration, format_percent
from bgproxy.control.deployments.caller import Answer, Caller
from bgproxy.control.deployments.comparing import Difference, Reply, Rules, differences
from bgproxy.control.deployments.rules import wilson
from bgproxy.control.deployments.stage import Halted, Run
from bgproxy.control.deployments.words import brief, milliseconds
from bgproxy.control.links import Link
from bgproxy.control.registry import Upstream
from bgproxy.control.threads import OneThread
from bgproxy.model.deployment import DeploymentState, Result
from bgproxy.model.snapshot import MirrorSpec
from bgproxy.switchboard.messages import MirrorCredit, Mirrored

#: The field that mirrored requests have on top, and its value.
MARK: Final = ("X-BGProxy-Mirror", "1")

#: Seconds between two looks at how it goes; and at the least: less may be nothing to a clock.
POLL: Final = 0.1
_LEAST: Final = 0.001

#: Requests a second that are compared at the most. It takes the controller about a millisecond each, on a machine that has others to serve.
MOST_A_SECOND: Final = 250

#: Bytes of two bodies without a content coding that take no longer than that. Larger ones, and what they unpack to, are compared in a
#: thread, one pair at a time, and then nothing is for so many times as long: at the worst a third of a core goes into it.
_SMALL: Final = 16 * KiB
_REST: Final = 2.0

#: Mismatches that are kept, side by side.
SHOWN: Final = 5

#: It is hopeless when the share of mismatches is above the limit by so many standard deviations, there are so many of them, and so
#: many were compared. With a limit of none, it is at the first.
SURE: Final = 3.0
FEWEST: Final = 3
ENOUGH: Final = 20

#: Answers of which the latency is kept.
_LATENCIES: Final = 1000

_STAGE: Final = DeploymentState.COMPARING.value


async def compare(run: Run) -> None:
    """End when enough answers were the same for long enough; raises `Halted` when they are not, or cannot be any more."""
    settings = run.settings.compare
    if settings is None:
        return
    comparison = _Comparison(run, settings)
    try:
        comparison.begin()
        hopeless = await comparison.watch()
        comparison.stop_mirroring()
        if not hopeless:
            await comparison.rest()
    finally:
        await comparison.end()
    comparison.judge()


class _Comparison:
    """One comparison, from the first mirrored request to the verdict."""

    def __init__(self, run: Run, settings: Compare) -> None:
        self._run = run
        self._settings = settings
        self._service = run.service
        self._caller = Caller(run.service, run.idle, body_bytes=settings.body_bytes)
        ignored = {name.lower() for name in settings.ignore.headers}
        self._rules = Rules(
            tuple(name.lower() for name in settings.headers if name.lower() not in ignored),
            tuple(map(parse, settings.ignore.json)),
        )
        self._granted: set[Link] = set()  # that have their credits
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(settings.concurrency)
        self._thread = OneThread("comparison")
        self._turns = asyncio.Lock()  # of what takes long
        self._turn = 0
        self._began = run.clock.now()
        self._dropped_before = self._dropped()
        self._mirroring = False
        self._compared = 0
        self._mismatches = 0
        self._unanswered = 0
        self._shown: dict[str, None] = {}
        self._latencies: tuple[deque[float], deque[float]] = (deque(maxlen=_LATENCIES), deque(maxlen=_LATENCIES))
        # Each worker has a share of the credits, and one at least: a client may be all of its traffic.
        self._each = -(-settings.concurrency // max(run.hands.links.workers, 1))
        self._pace = self._each * max(run.hands.links.workers, 1) / MOST_A_SECOND

    # --- the stage --------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Have the workers mirror."""
        settings = self._settings
        self._mirroring = True
        self._run.hands.links.take_mirrored(self._service.name, self._run.record.id, self._take)
        self._service.mirror = MirrorSpec(
            number=self._run.record.id,
            pool=1 - self._run.target,
            share=settings.mirror,
            methods=settings.methods,
            body_bytes=settings.body_bytes,
        )
        self._publish()
        self._grant()

    async def watch(self) -> bool:
        """Wait until the time is up, or it is of no use any more; whether it is hopeless."""
        settings = self._settings
        clock = self._run.clock
        while (left := self._began + settings.for_ - clock.now()) > 0:
            self._grant()
            self._show(1.0 - left / settings.for_)
            await clock.sleep(max(min(POLL, left), _LEAST))
            if self._hopeless():
                return True
        return False

    def _hopeless(self) -> bool:
        """Whether more answers would not help."""
        limit = self._settings.mismatches
        if not limit:
            return self._mismatches > 0
        if self._compared < ENOUGH or self._mismatches < FEWEST:
            return False
        return 100.0 * wilson(self._mismatches, self._compared, SURE) > limit

    def stop_mirroring(self) -> None:
        """Have the workers mirror no more. Idempotent."""
        if self._mirroring:
            self._mirroring = False
            self._run.hands.links.leave_mirrored(self._service.name, self._run.record.id)
            self._service.mirror = None
            self._publish()

    async def rest(self) -> None:
        """Wait for the answers that are still to come; each has its own deadline."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def end(self) -> None:
        """Stop mirroring, and whatever is under way. Idempotent."""
        self.stop_mirroring()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.close()
        self._caller.close()

    def judge(self) -> None:
        """Keep what came out; raises `Halted` where it is not good enough."""
        settings = self._settings
        self._show(1.0)
        share = 100.0 * self._mismatches / self._compared if self._compared else 0.0
        few = self._compared < settings.min_requests
        expected = f"at most {format_percent(settings.mismatches)} of at least {settings.min_requests} differ"
        found = self._words()
        ok = not few and share <= settings.mismatches
        result = Result(
            stage=_STAGE,
            name="mirrored requests",
            ok=ok,
            expected=expected,
            found=found,
            seconds=round(self._run.clock.now() - self._began, 3),
            details=tuple(self._shown),
        )
        self._run.keep(result)
        if ok:
            return
        if few and share <= settings.mismatches:
            cause = (
                f"{self._compared} live requests could be compared within {format_duration(settings.for_)}, "
                f"not {settings.min_requests}: {settings.mirror:g}% of them are mirrored ({', '.join(settings.methods)})"
            )
        else:
            cause = f"{found}; {expected}"
            if self._shown:
                cause += f": {next(iter(self._shown))}"
        raise Halted(cause, result.details)

    # --- the workers ------------------------------------------------------------------------------------------------

    def _publish(self) -> None:
        publisher = self._run.hands.publisher
        publisher.touch(self._service.name)
        publisher.publish()

    def _grant(self) -> None:
        """Give credits to every worker that has none yet: also to one that has come since."""
        for link in self._run.hands.links.up_to_date():
            if link not in self._granted:
                self._granted.add(link)
                self._give(link, self._each)

    def _give(self, link: Link, count: int) -> None:
        link.send(MirrorCredit(self._service.name, self._run.record.id, count))

    def _take(self, link: Link, message: Mirrored) -> None:
        """A worker has mirrored a request; there are no more of them than credits were given."""
        name = f"mirrored request of deployment {self._run.record.id}"
        task = asyncio.get_running_loop().create_task(self._repeat(link, message), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _dropped(self) -> int:
        run = self._run
        return run.hands.counters.pool(run.service.name, run.old.name).mirror_dropped

    # --- one request ------------------------------------------------------------------------------------------------

    async def _repeat(self, link: Link, message: Mirrored) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with self._room:
            if not self._mirroring:
                return  # it had to wait, and the time is up
            await self._ask(message)
        if self._mirroring:
            await asyncio.sleep(max(self._pace - (loop.time() - began), 0.0))
        if self._mirroring:
            self._give(link, 1)

    async def _ask(self, message: Mirrored) -> None:
        upstream = self._upstream()
        if upstream is None:
            answer = Answer(seconds=0.0, reason="it has no upstream that could be asked", kind="other")
        else:
            answer = await self._caller.ask(
                upstream,
                message.method.decode("latin-1"),
                message.target.decode("latin-1"),
                headers=[*_fields(message.head), MARK],
                body=message.body,
                head_only=not message.complete,
                copied=True,
                timeout=self._settings.timeout,
            )
        if not answer.status:
            self._compared += 1
            self._unanswered += 1
            asked = upstream.id if upstream is not None else self._run.idle.name
            self._differs(message, [Difference("answer", str(message.status), f"none of {asked}: {answer.reason}")])
            return
        self._latencies[0].append(message.seconds)
        self._latencies[1].append(answer.seconds)
        live = Reply(
            status=message.status,
            headers=_fields(message.answer_head),
            body=message.answer,
            complete=message.complete,
        )
        idle = Reply(status=answer.status, headers=answer.headers, body=answer.body, complete=not answer.cut)
        found = await self._differences(live, idle)
        self._compared += 1
        if found:
            self._differs(message, found)

    async def _differences(self, live: Reply, idle: Reply) -> list[Difference]:
        """What differs; other services are served meanwhile."""
        coded = live.header("content-encoding") is not None or idle.header("content-encoding") is not None
        small = len(live.body) + len(idle.body) <= _SMALL and not coded
        if small or live.body == idle.body:
            return differences(live, idle, self._rules)
        async with self._turns:
            began = time.monotonic()
            try:
                found = await self._thread.call(lambda: differences(live, idle, self._rules))
            except OSError:  # the machine has no room for a thread
                found = differences(live, idle, self._rules)
            if self._mirroring:
                await asyncio.sleep(_REST * (time.monotonic() - began))
        return found

    def _upstream(self) -> Upstream | None:
        """The next in turn of those that are up; of all, if none is: that it does not answer is what there is to see."""
        upstreams = self._caller.upstreams()
        upstreams = [upstream for upstream in upstreams if upstream.is_up] or upstreams
        self._turn += 1
        return upstreams[self._turn % len(upstreams)] if upstreams else None

    def _differs(self, message: Mirrored, found: list[Difference]) -> None:
        self._mismatches += 1
        self._run.hands.mismatched(self._service.name, self._run.idle.name)
        if len(self._shown) < SHOWN:
            request = brief(f"{message.method.decode('latin-1')} {message.target.decode('latin-1')}")
            # The live pool's value first, as the words say.
            self._shown[f"{request}: {'; '.join(map(str, found))}"] = None

    # --- words ------------------------------------------------------------------------------------------------------

    def _words(self) -> str:
        share = 100.0 * self._mismatches / self._compared if self._compared else 0.0
        words = f"{self._mismatches} of {self._compared} answers differ ({self._run.old.name} / {self._run.idle.name}), {share:.3g}%"
        if self._unanswered:
            words += f"; {self._unanswered} were not answered"
        dropped = self._dropped() - self._dropped_before
        if dropped:
            words += f"; {dropped} were not mirrored, as more were under way than may be, or they were too large"
        if self._latencies[0]:
            live, idle = (milliseconds(statistics.median(seconds)) for seconds in self._latencies)
            words += f"; median {live} / {idle}"
        return words

    def _show(self, share: float) -> None:
        self._run.show(
            self._words(),
            share=min(max(share, 0.0), 1.0),
            compared=self._compared,
            mismatches=self._mismatches,
            unanswered=self._unanswered,
            dropped=self._dropped() - self._dropped_before,
        )


def _fields(head: bytes) -> tuple[tuple[str, str], ...]:
    """The fields of a head that was judged good, without its first line."""
    lines = head.decode("latin-1").split("\r\n")[1:]
    return tuple((name, value.strip(" \t")) for name, colon, value in (line.partition(":") for line in lines) if colon)
