"""The supervisor: owns the listening sockets and the switchboard, starts the other processes and keeps them running.

It knows no HTTP and has no event loop but `select`, so that hardly anything can make it fail.

**How it stops** (SIGTERM, SIGINT). First the listening sockets take no further connections (`Listener.turn_away`), then this
process closes its copies of them, then the children get SIGTERM. A worker then holds the last copy of its sockets: it
accepts what waits in them and closes them, and from then on the kernel refuses connections, which every client and
balancer understands. Were the copies here kept until the workers have gone, connections would go on being queued for up
to half a minute where nobody accepts them, and all be reset at the end. A worker that has crashed and waits for its next
life when the stop comes leaves its queue unserved.

**A second SIGTERM or SIGINT** ends everything at once: SIGKILL to the children, exit status 1. Signals that arrive
together count as one, since Ctrl-C often comes with a SIGTERM from whoever started this program.

**If the supervisor is killed**, the children see their leashes end and shut down as at SIGTERM.
"""

from __future__ import annotations

import base64
import gc
import logging
import os
import pickle
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final

from bgproxy import logs
from bgproxy.config.schema import Config
from bgproxy.errors import StartError
from bgproxy.process.children import Child
from bgproxy.process.family import Family, Inheritance
from bgproxy.process.machine import allow_open_files, usable_cpus
from bgproxy.process.signals import Signals
from bgproxy.process.sockets import Listener, bind_admin, bind_data
from bgproxy.proxy import descriptors
from bgproxy.switchboard.board import Switchboard
from bgproxy.switchboard.wiring import ControllerBirth, WorkerBirth

OK: Final = 0
ENDED_AT_ONCE: Final = 1
CANNOT_START: Final = 2

#: Seconds that the children have beyond `timeouts.shutdown` before they are killed.
GRACE: Final = 5.0


log = logging.getLogger("bgproxy.supervisor")


class Phase(Enum):
    """Where the program as a whole stands."""

    STARTING = "starting"  # until every child has once said that it serves
    SERVING = "serving"
    STOPPING = "stopping"  # nothing is started any more; the children have been asked to end
    ENDING = "ending"  # they have been killed


class Supervisor:
    """One run of the program. `worker_main` and `controller_main` are what the children do; each returns an exit status."""

    def __init__(
        self,
        config: Config,
        *,
        config_source: str | None,
        config_text: str | None,
        worker_main: Callable[[WorkerBirth], int],
        controller_main: Callable[[ControllerBirth], int],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workers = usable_cpus() if config.workers == "auto" else config.workers
        self._data: list[Listener] = []
        self._admin: list[Listener] = []
        self._inheritance = Inheritance(
            config=config,
            config_source=config_source,
            config_text=config_text,
            board=Switchboard(self._workers),
            data=self._data,
            admin=self._admin,
            worker_main=worker_main,
            controller_main=controller_main,
        )
        self._now = now
        self._selector = selectors.DefaultSelector()
        self._signals = Signals()
        self._family = Family(self._inheritance, self._selector, self._let_go, now=now)
        self._phase = Phase.STARTING
        self._status = OK
        self._refusal: str | None = None
        self._kill_at = float("inf")
        self._reload_due = False  # SIGHUP came while no controller could take it

    def run(self) -> int:
        """Serve until a signal ends it; returns the exit status. To be called once.

        Raises:
            StartError: an address cannot be bound, or the controller refuses to start.
        """
        config = self._inheritance.config
        try:
            self._data += bind_data(config.listen, self._workers)
            self._admin += bind_admin(config.admin.listen)
            self._allow_open_files()
            gc.collect()
            gc.freeze()  # no collection in a child touches, and so copies, what was there before the fork
            with self._signals:
                self._selector.register(self._signals, selectors.EVENT_READ)
                while self._phase in (Phase.STARTING, Phase.SERVING) or self._family.pids():
                    self._turn()
        finally:
            self._unlisten(self._data)
            self._unlisten(self._admin)
            self._let_go()
        if self._refusal is not None:
            raise StartError(self._refusal)
        log.info("stopped")
        return self._status

    # --- the loop ---------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Start what is due, wait for something to happen, deal with it."""
        patience: float | None = None
        match self._phase:
            case Phase.STARTING | Phase.SERVING:
                self._family.bear_due()
                patience = self._family.next_birth()
            case Phase.STOPPING:
                patience = self._kill_at - self._now()
                if patience <= 0:
                    log.warning("killed, not ended in time", extra={"fields": {"pids": self._family.pids()}})
                    self._kill()
        self._selector.select(patience)
        self._heed_words(self._family.hear())
        self._heed_signals(self._signals.take())
        self._heed_words(self._family.reap())

    def _heed_words(self, messages: Iterable[tuple[Child, dict[str, Any]]]) -> None:
        for child, message in messages:
            match message:
                case {"serving": True}:
                    self._announce()
                    if self._reload_due and child.role == "controller":
                        self._reload()
                case {"refused": str(text)}:
                    self._refused(text)
                case {"config": str(text)}:
                    self._keep(text)

    def _heed_signals(self, numbers: list[int]) -> None:
        if signal.SIGUSR1 in numbers:
            for worker in self._family.workers:
                worker.signal(signal.SIGUSR1)  # the access log is theirs
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            if self._phase in (Phase.STARTING, Phase.SERVING):
                within = self._inheritance.config.timeouts.shutdown
                log.info("stopping", extra={"fields": {"within": f"{within:g}s"}})
                self._stop(within + GRACE)
            else:
                log.warning("ended at once by a second signal", extra={"fields": {"pids": self._family.pids()}})
                self._status = ENDED_AT_ONCE
                self._kill()
        elif signal.SIGHUP in numbers:
            self._reload()

    # --- what may happen --------------------------------------------------------------------------------------------

    def _announce(self) -> None:
        """Say once that all of it serves."""
        if self._phase is not Phase.STARTING or not all(child.serving for child in self._family.children):
            return
        self._phase = Phase.SERVING
        fields = {
            "listen": [listener.address for listener in self._data],
            "admin": [listener.address for listener in self._admin],
            "workers": self._workers,
            "pid": os.getpid(),
            "controller_pid": self._family.controller.pid,
            "worker_pids": [worker.pid for worker in self._family.workers],
        }
        log.info("serving", extra={"fields": fields})

    def _reload(self) -> None:
        """Pass SIGHUP on. Where no controller can take it, it is for the next one: many signals are one reload."""
        self._reload_due = not self._family.controller.serving
        if not self._reload_due:
            self._family.controller.signal(signal.SIGHUP)

    def _refused(self, text: str) -> None:
        """The controller cannot start. At the first start that is the end; later the workers go on serving without it."""
        if self._phase is Phase.STARTING:
            self._refusal = text
            self._stop(GRACE)
        else:
            log.error("the controller cannot start: %s", text)

    def _keep(self, text: str) -> None:
        """Keep the configuration that is in force now, for the next controller."""
        try:
            self._inheritance.config = pickle.loads(base64.b64decode(text))  # noqa: S301 - from a child of this process
        except Exception:
            log.exception("the new configuration was not understood; a restarted controller begins with the former one")

    # --- the end ----------------------------------------------------------------------------------------------------

    def _stop(self, patience: float) -> None:
        """Begin the end; see the top of this file for the order."""
        self._phase = Phase.STOPPING
        self._family.ending = True
        self._kill_at = self._now() + patience
        for listener in self._data:
            listener.turn_away()
        self._unlisten(self._data)
        self._family.signal(signal.SIGTERM)

    def _kill(self) -> None:
        self._phase = Phase.ENDING
        self._family.signal(signal.SIGKILL)

    @staticmethod
    def _unlisten(listeners: list[Listener]) -> None:
        for listener in listeners:
            listener.unlink()
            listener.close()

    def _let_go(self) -> None:
        """Close what no child may keep."""
        self._selector.close()
        self._signals.close()

    def _allow_open_files(self) -> None:
        """Room for a worker's share of `limits.connections`, with one to an upstream for each."""
        share = -(-self._inheritance.config.limits.connections // self._workers)
        needed = descriptors.needed(share, len(self._data))
        allowed = allow_open_files(needed)
        if allowed < needed:
            log.warning(
                "the limit of open files is low for limits.connections: raise it (ulimit -n, LimitNOFILE=)",
                extra={"fields": {"allowed": allowed, "needed": needed}},
            )


def run(config: Config, *, config_source: str | None, config_text: str | None) -> int:
    """Run bgproxy until a signal ends it: `bgproxy run`.

    Returns:
        The exit status: 0 after SIGTERM or SIGINT, 1 after a second one, 2 if it cannot start (stderr says why).
    """
    # Loaded before the fork, so that the workers share its pages.
    from bgproxy.proxy.worker import run as worker_main  # noqa: PLC0415 - only here: the other verbs do not need it

    logs.setup()
    supervisor = Supervisor(
        config,
        config_source=config_source,
        config_text=config_text,
        worker_main=worker_main,
        controller_main=_controller_main,
    )
    try:
        return supervisor.run()
    except StartError as error:
        sys.stderr.write(f"bgproxy: {error}\n")
        return CANNOT_START


def _controller_main(birth: ControllerBirth) -> int:
    """The controller's own modules are loaded in its process alone: the supervisor and the workers stay small."""
    from bgproxy.process.controller import run as controller_main  # noqa: PLC0415

    return controller_main(birth)
