"""The controller's process: its loop, the control plane and its API, and their end.

It stops at SIGTERM, or when the supervisor has gone; it reloads at SIGHUP.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import pickle
import signal
import socket
import time
from collections.abc import Awaitable
from typing import Any, Final

import uvloop

from bgproxy import logs
from bgproxy.admin import problems
from bgproxy.admin.app import AdminServer
from bgproxy.admin.audit import Record
from bgproxy.control.controller import Actor, Controller
from bgproxy.errors import BgproxyError, Busy
from bgproxy.process.tether import Tether
from bgproxy.switchboard.wiring import ControllerBirth

OK: Final = 0
REFUSED: Final = 2

#: Seconds that each of the API and the control plane may take to stop.
STOP_WITHIN: Final = 10.0

#: Seconds between two tries of a reload that comes while something else changes, and until it is given up.
BUSY_AGAIN: Final = 0.5
FREE_WITHIN: Final = 30.0

#: Seconds until events are followed again, after there were too many of them.
FOLLOW_AGAIN: Final = 0.1

log = logging.getLogger("bgproxy.controller")


def run(birth: ControllerBirth) -> int:
    """Run the control plane until SIGTERM, or until the supervisor has gone; returns the exit status."""
    logs.setup()
    for number in (signal.SIGINT, signal.SIGUSR1):
        # The supervisor's business. Not SIG_IGN, which the commands of deployments would inherit.
        signal.signal(number, lambda *_: None)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(ControllerProcess(birth).main())


class ControllerProcess:
    """One controller in its process."""

    def __init__(self, birth: ControllerBirth) -> None:
        self._birth = birth
        self._controller = Controller(birth)
        self._stop = asyncio.Event()
        self._hangup = asyncio.Event()
        self._tether = Tether(birth.leash, self._heard, self._stop.set)
        self._told = birth.config  # what the supervisor would give to the next controller

    async def main(self) -> int:
        """Start, serve, stop."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._hangup.set)
        self._tether.start()
        try:
            return await self._serve()
        finally:
            self._tether.stop()

    async def _serve(self) -> int:
        api: AdminServer | None = None
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._controller.start()
            api = AdminServer(self._controller, self._birth.config)
            await api.start(self._birth.listeners)
            tasks.append(asyncio.create_task(self._reload_at_hangups(), name="reload at SIGHUP"))
            tasks.append(asyncio.create_task(self._tell_of_reloads(), name="tell of reloads"))
            self._tether.say({"serving": True})
            await self._stop.wait()
        except BgproxyError as error:  # unreadable state, tokens that are not there, too many services
            self._tether.say({"refused": str(error)})
            return REFUSED
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if api is not None:
                await _within(STOP_WITHIN, "the admin API", api.stop())
            await _within(STOP_WITHIN, "the controller", self._controller.stop())
        return OK

    async def _reload_at_hangups(self) -> None:
        """One reload at a time; signals that come meanwhile are one more."""
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            record = Record("reload", time.monotonic(), who="SIGHUP", role="admin", address="local")
            try:
                await self._reload_when_free()
            except asyncio.CancelledError:  # a stop; what has begun may still be put in force
                record.write("interrupted", 0)
                raise
            except Exception as error:  # noqa: BLE001 - what nobody foresaw is in the log by `of`, and the next signal is heard
                problem = problems.of(error)
                for line in problem.details or [problem.detail]:
                    log.error("reload refused: %s", line)  # noqa: TRY400 - the line says it all
                record.write(problem.slug, problem.kind.status, problem.detail)
            else:
                record.write("done", 200)

    async def _reload_when_free(self) -> None:
        """Reload once the reload, or the other change, that is under way has ended: a signal has nobody who would repeat it.

        Raises:
            BgproxyError: the reload was refused; `Busy` when there was no end for `FREE_WITHIN` seconds.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + FREE_WITHIN
        while True:
            try:
                await self._controller.reload(actor=Actor("SIGHUP", "local"))
            except Busy:
                if loop.time() >= until:
                    raise
                await asyncio.sleep(BUSY_AGAIN)
            else:
                return

    async def _tell_of_reloads(self) -> None:
        """Give the supervisor each new configuration for the next controller, whoever asked for the reload."""
        while True:
            self._tell_config()
            async for event in self._controller.events.subscribe(None):
                if event["type"] == "reloaded":
                    self._tell_config()
            # More has happened at a time than the log is long, a thousand upstreams falling, say: look, and follow again.
            await asyncio.sleep(FOLLOW_AGAIN)

    def _tell_config(self) -> None:
        if self._controller.config is not self._told:
            self._told = self._controller.config
            self._tether.say({"config": base64.b64encode(pickle.dumps(self._told)).decode()})

    def _heard(self, message: dict[str, Any], handover: socket.socket | None) -> None:
        match message:
            case {"link": int(worker), "pid": int(pid)} if handover is not None:
                self._controller.link(worker, pid, handover)
            case {"lost": int(worker)}:
                self._controller.lost(worker)
            case {"children": dict(children)}:
                self._controller.census(children)


async def _within(seconds: float, what: str, stopping: Awaitable[None]) -> None:
    """Await `stopping`, but no longer than so many seconds: the process ends anyway."""
    try:
        async with asyncio.timeout(seconds):
            await stopping
    except TimeoutError:
        log.warning("%s did not stop in time", what)
    except Exception:
        log.exception("%s did not stop in order", what)
