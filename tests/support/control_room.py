"""A controller as it runs: real upstreams that it checks, fake workers at real links, a real state directory, no supervisor."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any, Self

from aiohttp import web
from support.fake_worker import FakeWorker
from support.waiting import eventually_async, handed_over

from bgproxy.config.schema import Config, Drain, Health, Pool, Pools, Service
from bgproxy.control.actor import Actor
from bgproxy.control.controller import Controller
from bgproxy.control.state import State
from bgproxy.control.statefile import decode
from bgproxy.switchboard.board import Switchboard
from bgproxy.switchboard.wiring import ControllerBirth

ALICE = Actor("alice", "10.0.0.1")
FAST = Health(path="/health", interval=0.05, timeout=1.0, rise=1, fall=1)


class Upstream:
    """A small aiohttp server whose health the test decides."""

    def __init__(self) -> None:
        self.status = 200
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self) -> Upstream:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def id(self) -> str:
        return self.url.removeprefix("http://")

    async def _answer(self, _request: web.Request) -> web.Response:
        return web.Response(status=self.status)


class ControlRoom:
    """One program without data plane. `services` are made by `service`; started and ended by `async with`."""

    def __init__(
        self, directory: Path, *, names: tuple[str, ...] = ("shop",), workers: int = 2, **settings: Any
    ) -> None:
        self.state_dir = directory / "state"
        self.board = Switchboard(workers)
        self.workers = [FakeWorker(self.board, index) for index in range(workers)]
        self.upstreams: dict[tuple[str, str], Upstream] = {}
        self._names = names
        self._settings = {"health": FAST, "drain": Drain(requests=30, streams=60, websockets=90)} | settings
        self.config = Config()
        self.controller: Controller = None  # type: ignore[assignment] # until `open`
        self._leashes: list[socket.socket] = []
        self._restarts = -1  # of the controller

    async def __aenter__(self) -> Self:
        for name in self._names:
            for pool in ("blue", "green"):
                self.upstreams[name, pool] = await Upstream().start()
        self.config = self.made_config()
        for worker in self.workers:
            await worker.start()
        await self.open()
        await self.until_healthy()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.controller.stop()
        await handed_over()  # checks that were under way
        for worker in self.workers:
            worker.die()
        for upstream in self.upstreams.values():
            await upstream.stop()
        for leash in self._leashes:
            leash.close()
        await asyncio.sleep(0)
        self.board.close()

    def made_config(self, **changes: Any) -> Config:
        """As a file would define it: one upstream a pool."""
        services = {
            name: Service(
                pools=Pools(
                    blue=Pool(version="1.0", upstreams=(self.upstreams[name, "blue"].url,)),
                    green=Pool(version="2.0", upstreams=(self.upstreams[name, "green"].url,)),
                ),
                **(self._settings | changes),
            )
            for name in self._names
        }
        return Config(services=services, workers=len(self.workers), state_dir=str(self.state_dir))

    async def open(self, *, restarts: int | None = None) -> None:
        """Start a controller with the workers' present links; `restarts` is what it is told, else the truth."""
        ours, theirs = socket.socketpair()
        self._leashes += [ours, theirs]
        births = {worker.index: worker.theirs for worker in self.workers if not worker.gone}
        pids = [{"index": worker.index, "pid": worker.pid, "restarts": 0} for worker in self.workers]
        self._restarts += 1
        told = self._restarts if restarts is None else restarts
        children: dict[str, object] = {"controller": {"pid": 1, "restarts": told}, "workers": pids}
        birth = ControllerBirth(self.board, self.config, None, "", [], ours, births, children)
        self.controller = Controller(birth)
        await self.controller.start()

    async def restart(self, *, restarts: int | None = None) -> None:
        """The controller ends, and another takes its place; board and workers stay."""
        await self.close()
        await self.open(restarts=restarts)
        await self.until_healthy()

    async def close(self) -> None:
        """The controller ends; the workers go on, and have new links ready."""
        await self.controller.stop()
        for worker in self.workers:
            await eventually_async(lambda worker=worker: worker.gone)
            await worker.relink()

    async def until_healthy(self) -> None:
        await eventually_async(lambda: self.controller.ready()[0], what="ready")
        for name in self._names:
            await self.until(name, "blue", healthy=True)
            await self.until(name, "green", healthy=True)
        await self.told()

    async def told(self) -> None:
        """Every worker knows what the controller knows: what was published before has been taken."""
        await asyncio.sleep(0)  # what is due in this turn of the loop goes out
        await eventually_async(self.controller._links.flush, what="flush")
        # What the last check changed has reached the workers too, so that a test's picture of before is complete.
        self.controller._publisher.publish()
        await self.controller._links.acknowledged()

    async def until(self, name: str, pool: str, *, healthy: bool) -> None:
        await eventually_async(lambda: self.pool(name, pool)["healthy"] is healthy, what=f"{name}/{pool} {healthy=}")

    # --- what can be seen -------------------------------------------------------------------------------------------

    def service(self, name: str = "shop") -> dict[str, Any]:
        return self.controller.service_status(name)

    def pool(self, name: str, pool: str) -> dict[str, Any]:
        return self.service(name)["pools"][pool]

    def slot(self, name: str = "shop") -> int:
        return self.workers[0].services[name].slot

    def on_board(self, name: str = "shop") -> str:
        return ("blue", "green")[self.board.live(self.slot(name))]

    def on_disk(self) -> State:
        return decode((self.state_dir / "state.json").read_bytes())

    def everywhere(self, name: str = "shop") -> tuple[str, str, str]:
        """Who is live in memory, on the board, and on the disk."""
        disk = ("blue", "green")[self.on_disk().services[name].live]
        return self.service(name)["live"], self.on_board(name), disk
