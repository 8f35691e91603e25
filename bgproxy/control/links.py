"""The links to the workers: what is said to them, what they have acknowledged, and which of them live.

A link exists from the moment when its socket is handed over. Until the worker has said Hello and acknowledged a whole
snapshot, it counts as one that has not: a worker that outlived the former controller serves, and by what it was told then.
A worker that is lost does not count: its successor gets a whole snapshot before it serves.

What a worker does not read must not pile up here: one that is behind by `WINDOW` snapshots is sent no more of them, and
a whole one once it has caught up.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, cast

from bgproxy.errors import Unavailable
from bgproxy.switchboard import messages

log = logging.getLogger("bgproxy.controller")

#: Seconds that a worker may take to acknowledge.
ACK_WITHIN: Final = 2.0

#: Snapshots that a worker may leave unacknowledged before it is sent no more.
WINDOW: Final = 32

#: Seconds that workers have for saying what was asked for of late.
RECENT_WITHIN: Final = 2.0

WorkerState = Literal["starting", "serving", "lost"]


class Link(asyncio.Protocol):
    """The link to one worker; `links` is told of everything that comes."""

    def __init__(self, links: Links, worker: int, pid: int | None) -> None:
        self.worker = worker
        self.pid = pid
        self.greeted = False  # it has said Hello
        self.acked = 0
        self.behind = False  # snapshots were left out: it gets a whole one when it has caught up
        self.closed = False
        self._unacked: list[int] = []
        self._links = links
        self._decoder = messages.Decoder()
        self._transport: asyncio.Transport | None = None

    def __repr__(self) -> str:
        return f"<Link {self.worker} greeted={self.greeted} acked={self.acked} closed={self.closed}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is attached."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from it
        if self.closed:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the reason changes nothing
        """The worker has gone, or the link was closed here."""
        self.close()
        self._links.ended(self)

    def data_received(self, data: bytes) -> None:
        """Bytes from the worker."""
        for message in self._decoder.feed(data):
            if isinstance(message, messages.Ack):
                self.acked = max(self.acked, message.number)
                self._unacked = [number for number in self._unacked if number > self.acked]
            self._links.heard(self, message)

    @property
    def full(self) -> bool:
        """Whether it should get no more snapshots before it has read some."""
        return len(self._unacked) >= WINDOW

    @property
    def idle(self) -> bool:
        """Whether it has acknowledged all that it was sent."""
        return not self._unacked

    def send(self, *several: messages.ToWorker) -> None:
        """Send messages, in one piece, as far as there is somebody to send them to."""
        if self._transport is not None and not self.closed and several:
            self._unacked += [one.number for one in several if isinstance(one, messages.Snapshot | messages.Flush)]
            self._transport.write(b"".join(map(messages.encode, several)))

    def close(self) -> None:
        """End it. Idempotent."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()


class Links:
    """All of them.

    `welcome` gives what a worker needs first; `on_failure` is told of failed upstreams, `on_change` that a worker serves or
    was lost.
    """

    def __init__(
        self,
        workers: int,
        *,
        welcome: Callable[[], Iterable[messages.ToWorker]],
        on_failure: Callable[[messages.UpstreamFailed], None],
        on_change: Callable[[int, WorkerState], None] = lambda _worker, _state: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.workers = workers
        self._welcome = welcome
        self._on_failure = on_failure
        self._on_change = on_change
        self._now = now
        self._links: dict[int, Link] = {}
        self._lost: set[int] = set()  # died, and have no successor yet that has begun with fresh counts
        self._served: set[int] = set()  # have acknowledged a snapshot over their present link
        self._number = 0
        self._moved = asyncio.Event()
        self._taken: dict[tuple[str, int], Callable[[Link, messages.Mirrored], None]] = {}
        self._recent: dict[int, dict[Link, messages.Recent]] = {}  # answers to questions that are waited for
        self._tasks: set[asyncio.Task[None]] = set()

    # --- who is there -----------------------------------------------------------------------------------------------

    def add(self, worker: int, pid: int | None, end: socket.socket) -> None:
        """A link was handed over; it replaces the former one of that worker."""
        former = self._links.get(worker)
        link = self._links[worker] = Link(self, worker, pid)
        self._served.discard(worker)
        if former is not None:
            if former.pid != pid and former.greeted:
                self._lost.add(worker)  # another process, and nobody has told of the death of the former
            former.close()
        task = asyncio.get_running_loop().create_task(self._open(link, end), name=f"link to worker {worker}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._stir()

    async def _open(self, link: Link, end: socket.socket) -> None:
        end.setblocking(False)
        try:
            async with asyncio.timeout(ACK_WITHIN):
                await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=end)
        except (OSError, TimeoutError) as error:
            log.warning("cannot open the link to worker %d: %s", link.worker, error)
            end.close()
            link.close()
            self.ended(link)

    def lost(self, worker: int) -> None:
        """A worker has died."""
        link = self._links.pop(worker, None)
        if link is not None:
            link.close()
        self._gone(worker)

    def ended(self, link: Link) -> None:
        """A link has ended; its worker has died, or will be given another."""
        if self._links.get(link.worker) is link:
            del self._links[link.worker]
            self._gone(link.worker)

    def _gone(self, worker: int) -> None:
        known = worker in self._lost
        self._lost.add(worker)
        self._served.discard(worker)
        self._stir()
        if not known:
            self._on_change(worker, "lost")

    def state(self, worker: int) -> WorkerState:
        """What a worker does."""
        if worker in self._links:
            return "serving" if worker in self._served else "starting"
        return "lost" if worker in self._lost else "starting"

    def pid(self, worker: int) -> int | None:
        """The process at the other end of a worker's link."""
        link = self._links.get(worker)
        return link.pid if link is not None else None

    def living(self) -> list[int]:
        """The workers whose gauges mean something: all but those that died without a successor that has begun anew."""
        return [worker for worker in range(self.workers) if worker not in self._lost]

    def census(self, pids: dict[int, int | None]) -> None:
        """What the supervisor says of the workers: one without a pid is down."""
        for worker, pid in pids.items():
            if pid is None and worker not in self._links:
                self._lost.add(worker)

    # --- what is said -----------------------------------------------------------------------------------------------

    def number(self) -> int:
        """A number for the next snapshot or flush."""
        self._number += 1
        return self._number

    def publish(self, snapshot: messages.Snapshot) -> None:
        """Send a change to every worker that has had a whole snapshot."""
        for link in self._greeted():
            if link.behind or link.full:
                link.behind = True
            else:
                link.send(snapshot)

    def send(self, *notes: messages.DrainPool | messages.UndrainPool) -> None:
        """Send notes that are not answered; a worker that is behind gets what matters of them with its next snapshot."""
        for link in self._greeted():
            if not link.behind:
                link.send(*notes)

    async def acknowledged(
        self, within: float = ACK_WITHIN, *, then_warm: tuple[tuple[str, int], ...] = ()
    ) -> messages.Warm:
        """Wait until every worker that lives has all that it was sent, and says so now.

        With the question it is told which pools (service, pool) to warm, so that it is woken once; with that it begins when it
        has answered. `warmed` waits for what is returned.

        Raises:
            Unavailable: one did not within so many seconds; the text names it.
        """
        number = self.number()
        # Its number is above the question's, so that the answer to that does not stand for this one.
        warm = messages.Warm(self.number(), then_warm)
        late = await self._ask(within, messages.Flush(number), *([warm] if then_warm else []))
        if late:
            names = ", ".join(f"worker {link.worker} (pid {link.pid})" for link in late)
            raise Unavailable(f"{names} did not answer within {within:g}s; nothing was changed.")
        return warm

    async def warmed(self, warm: messages.Warm, within: float) -> bool:
        """Wait until every worker has done what it was told; False if one has not after so many seconds.

        An answer to a later question passes for one to this: connections spare time, and nothing else hangs on them.
        """
        told = [link for link in self._greeted() if not link.behind]
        return not await self._wait(
            lambda: [link for link in told if not link.closed and link.acked < warm.number], within
        )

    async def flush(self, within: float = ACK_WITHIN) -> bool:
        """Have every worker that lives store its counters; False if one did not say so in time.

        Afterwards a zero in flight means zero: a worker counts a request in the cell before it sends anything of it, and
        in answering it has handled every message that came before.
        """
        return not await self._ask(within, messages.Flush(self.number()))

    async def _ask(self, within: float, question: messages.Flush, *more: messages.Warm) -> list[Link]:
        """Send a question, and wait for its answers; the links that owe one after so many seconds.

        Answers come in order, so that this one also stands for every snapshot before. A worker that has not said Hello, or
        is behind, answers with its next whole snapshot, which has a higher number.
        """
        asked = list(self._links.values())
        for link in self._greeted():
            if not link.behind:
                link.send(question, *more)
        return await self._wait(
            lambda: [link for link in asked if not link.closed and link.acked < question.number], within
        )

    # --- live requests ----------------------------------------------------------------------------------------------

    def take_mirrored(self, service: str, number: int, take: Callable[[Link, messages.Mirrored], None]) -> None:
        """Give `take` the live requests that workers mirror for a deployment, until `leave_mirrored`."""
        self._taken[service, number] = take

    def leave_mirrored(self, service: str, number: int) -> None:
        """Nobody wants them any more; those that still come are dropped. Idempotent."""
        self._taken.pop((service, number), None)

    def up_to_date(self) -> list[Link]:
        """The links to workers that have been sent everything, so that what is sent now is understood."""
        return [link for link in self._greeted() if not link.behind]

    async def recent(self, service: str, limit: int) -> list[tuple[str, int]]:
        """The targets of GETs of late and how often each was seen, over all workers, the most first.

        A worker that does not answer within `RECENT_WITHIN` is left out.
        """
        number = self.number()
        answers = self._recent[number] = {}
        asked = self.up_to_date()
        try:
            for link in asked:
                link.send(messages.AskRecent(number, service, limit))
            await self._wait(lambda: [link for link in asked if not link.closed and link not in answers], RECENT_WITHIN)
        finally:
            del self._recent[number]
        counts: Counter[str] = Counter()
        for answer in answers.values():
            for target, count in answer.targets:
                counts[target] += count
        return counts.most_common(limit)

    def _greeted(self) -> list[Link]:
        return [link for link in self._links.values() if link.greeted and not link.closed]

    async def _wait(self, late: Callable[[], list[Link]], within: float) -> list[Link]:
        """The links that are still late after so many seconds."""
        deadline = self._now() + within
        while lacking := late():
            left = deadline - self._now()
            if left <= 0:
                return lacking
            try:
                async with asyncio.timeout(left):
                    await self._moved.wait()
            except TimeoutError:
                return late()
        return []

    def _stir(self) -> None:
        """Wake whoever waits for a worker."""
        self._moved.set()
        self._moved = asyncio.Event()

    # --- what is heard ----------------------------------------------------------------------------------------------

    def heard(self, link: Link, message: Any) -> None:
        """A message came over a link."""
        if self._links.get(link.worker) is not link:
            return
        if isinstance(message, messages.Hello):
            link.pid = message.pid
            self._bring_up(link)
            link.greeted = True
        elif isinstance(message, messages.Ack):
            if link.worker not in self._served:
                self._served.add(link.worker)
                self._lost.discard(link.worker)
                self._on_change(link.worker, "serving")
            if link.behind and link.idle:
                self._bring_up(link)
            self._stir()
        elif isinstance(message, messages.Mirrored):
            take = self._taken.get((message.service, message.number))
            if take is not None:
                take(link, message)
        elif isinstance(message, messages.Recent):
            if message.number in self._recent:
                self._recent[message.number][link] = message
                self._stir()
        elif isinstance(message, messages.UpstreamFailed):
            self._on_failure(message)

    def _bring_up(self, link: Link) -> None:
        """Send everything. What is published meanwhile goes to the others only: this one gets it with the rest."""
        everything = list(self._welcome())
        link.behind = False
        for message in everything:
            link.send(message)

    async def close(self) -> None:
        """End all links; the workers go on serving."""
        for link in list(self._links.values()):
            link.close()
        self._links.clear()
        self._stir()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
