"""The supervisor's children together: their births, deaths and links, and what they say.

Between the controller and each worker goes a link. Who is born gets new ends: a worker at its birth, with the other
end for the controller; the controller at its birth, with new ends for all workers that run. An end whose controller is
yet to be born waits in `_waiting`.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bgproxy.config.schema import Config, Listen
from bgproxy.process.children import Child, fork, how_it_ended
from bgproxy.process.leash import Leash
from bgproxy.process.sockets import Listener
from bgproxy.switchboard.board import Switchboard
from bgproxy.switchboard.wiring import ControllerBirth, WorkerBirth

log = logging.getLogger("bgproxy.supervisor")


@dataclass(slots=True)
class Inheritance:
    """What the children are given, and what they run; both mains return an exit status."""

    config: Config  # the one in force: it changes with a reload
    config_source: str | None
    config_text: str | None
    board: Switchboard
    data: list[Listener]
    admin: list[Listener]
    worker_main: Callable[[WorkerBirth], int]
    controller_main: Callable[[ControllerBirth], int]


class Family:
    """The controller and the workers. The caller owns `selector`, and waits with it; `let_go` closes its own things."""

    def __init__(
        self,
        inheritance: Inheritance,
        selector: selectors.BaseSelector,
        let_go: Callable[[], None],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.inheritance = inheritance
        self.workers = [Child("worker", index) for index in range(inheritance.board.workers)]
        self.controller = Child("controller", 0)
        # The workers first: they are the smaller, and the controller then finds a link to each at its birth.
        self.children = [*self.workers, self.controller]
        self.ending = False  # deaths are as they should be, and nobody is born any more
        self._waiting: dict[int, socket.socket] = {}
        self._selector = selector
        self._let_go = let_go
        self._now = now

    # --- what the supervisor asks for -------------------------------------------------------------------------------

    def bear_due(self) -> None:
        """Start the children that are due."""
        for child in self.children:
            if child.due is not None and child.due <= self._now():
                self._bear(child)

    def next_birth(self) -> float | None:
        """Seconds until a child is due; None if none is."""
        due = min((child.due for child in self.children if child.due is not None), default=None)
        return None if due is None else max(due - self._now(), 0.0)

    def hear(self) -> Iterator[tuple[Child, dict[str, Any]]]:
        """What the children have said since. Also sends what they would not take before."""
        for child in self.children:
            yield from self._hear(child)

    def reap(self) -> Iterator[tuple[Child, dict[str, Any]]]:
        """Bury the dead; their last words. As process 1 of a container, this one inherits orphans of others too."""
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self.children:
                if child.pid == pid:
                    yield from self._hear(child)
                    self._bury(child, how_it_ended(wait_status))

    def signal(self, number: int) -> None:
        """Send a signal to all of them."""
        for child in self.children:
            child.signal(number)

    def pids(self) -> list[int]:
        """Of those that run."""
        return [child.pid for child in self.children if child.pid is not None]

    # --- births -----------------------------------------------------------------------------------------------------

    def _bear(self, child: Child) -> None:
        """Start a child; if the system cannot, try again as after a crash."""
        again = child.started_at > 0.0
        child.restarts += again  # before the fork: a controller looks at its birth whether it is the first
        child.started_at = self._now()
        child.due = None
        try:
            ours, theirs = _pair()
            child.leash = Leash(ours)
            with theirs:
                child.pid = (
                    self._bear_worker(child, theirs) if child.role == "worker" else self._bear_controller(theirs)
                )
        except OSError as error:
            child.restarts -= again
            delay = child.died(self._now())
            fields = {"cause": error.strerror, "again_in": f"{delay:g}s"}
            log.error("cannot start %s", child.name, extra={"fields": fields})  # noqa: TRY400 - the cause says it all
            return
        self._selector.register(ours, selectors.EVENT_READ)
        if again:
            log.info("%s restarted", child.name, extra={"fields": {"child_pid": child.pid, "restarts": child.restarts}})
        self._tell({"children": self._census()})

    def _bear_worker(self, child: Child, leash: socket.socket) -> int:
        near, far = _pair()
        with far:
            birth = WorkerBirth(
                index=child.index,
                board=self.inheritance.board,
                listeners=[listener.sockets[child.index] for listener in self.inheritance.data],
                leash=leash,
                link=far,
                workers=len(self.workers),
                listens=[listener.listen or Listen(address=listener.address) for listener in self.inheritance.data],
            )
            try:
                pid = fork(child.name, lambda: self._worker_life(birth, near))
            except OSError:
                near.close()
                raise
        if self.controller.leash is not None:
            self.controller.leash.say(f"link {child.index}", {"link": child.index, "pid": pid}, near)
            self._watch(self.controller.leash)
        else:
            self._waiting[child.index] = near
        return pid

    def _bear_controller(self, leash: socket.socket) -> int:
        for worker in self.workers:
            if worker.leash is not None and worker.index not in self._waiting:
                self._waiting[worker.index], far = _pair()
                worker.leash.say("link", {"link": True}, far)
                self._watch(worker.leash)
        birth = ControllerBirth(
            board=self.inheritance.board,
            config=self.inheritance.config,
            config_source=self.inheritance.config_source,
            config_text=self.inheritance.config_text,
            listeners=[listener.sockets[0] for listener in self.inheritance.admin],
            leash=leash,
            links=dict(self._waiting),
            children=self._census(),
        )
        pid = fork(self.controller.name, lambda: self._controller_life(birth))
        for link in self._waiting.values():
            link.close()
        self._waiting.clear()
        return pid

    # --- lives: from here to the next line, code of a child ---------------------------------------------------------

    def _worker_life(self, birth: WorkerBirth, near: socket.socket) -> int:
        self._leave_home()
        near.close()
        for link in self._waiting.values():
            link.close()
        for listener in (*self.inheritance.data, *self.inheritance.admin):
            for sock in listener.sockets:
                if sock not in birth.listeners:
                    sock.close()
        return self.inheritance.worker_main(birth)

    def _controller_life(self, birth: ControllerBirth) -> int:
        self._leave_home()
        for listener in self.inheritance.data:
            listener.close()
        return self.inheritance.controller_main(birth)

    def _leave_home(self) -> None:
        """Close what is the supervisor's alone. An end of a leash that stayed open here would hide its death."""
        self._let_go()
        for child in self.children:
            if child.leash is not None:
                child.leash.close()

    # --- deaths -----------------------------------------------------------------------------------------------------

    def _bury(self, child: Child, how: str) -> None:
        if child.leash is not None:
            child.leash.ended = True
            self._watch(child.leash)
        pid = child.pid
        delay = child.died(self._now())
        fields: dict[str, object] = {"child_pid": pid, "how": how}
        if not self.ending:
            fields["next_in"] = f"{delay:g}s"
        level = logging.INFO if how == "exit status 0" or self.ending else logging.ERROR
        log.log(level, "%s ended", child.name, extra={"fields": fields})
        if child.role == "worker":
            link = self._waiting.pop(child.index, None)
            if link is not None:
                link.close()
            # A link that was not handed over yet is dropped: nobody is at its other end.
            self._tell({"lost": child.index}, key=f"lost {child.index}", drops=f"link {child.index}")
        self._tell({"children": self._census()})

    # --- talking ----------------------------------------------------------------------------------------------------

    def _hear(self, child: Child) -> Iterator[tuple[Child, dict[str, Any]]]:
        leash = child.leash
        if leash is not None:
            leash.flush()
            messages = leash.receive()
            self._watch(leash)
            for message in messages:
                if message.get("serving"):
                    child.serving = True
                yield child, message

    def _tell(self, message: dict[str, object], *, key: str = "children", drops: str = "") -> None:
        """Say something to the controller, if it runs; at its birth it is told how things stand anyway."""
        leash = self.controller.leash
        if leash is not None:
            leash.say(key, message, drops=drops)
            self._watch(leash)

    def _watch(self, leash: Leash) -> None:
        """Have the selector wait for what the leash waits for. Idempotent; a leash that is not registered yet is left alone."""
        if leash.sock not in self._selector.get_map():
            return
        if leash.ended:
            self._selector.unregister(leash.sock)
        else:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if leash.wants_write else 0)
            self._selector.modify(leash.sock, events)

    def _census(self) -> dict[str, object]:
        """`children` as in `bgproxy.switchboard.wiring`."""
        return {
            "controller": {"pid": self.controller.pid, "restarts": self.controller.restarts},
            "workers": [
                {"index": worker.index, "pid": worker.pid, "restarts": worker.restarts} for worker in self.workers
            ],
        }


def _pair() -> tuple[socket.socket, socket.socket]:
    """Two ends that never block."""
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    return one, other
