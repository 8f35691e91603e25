"""Anything at any time: operators, reloads, restarts, workers that hang, upstreams and disks that fail, drawn by lot.

Whatever comes of it, the history is true, nobody is split, nothing is left under way, and the next deployment goes through.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from support.control_room import ALICE, ControlRoom
from support.waiting import eventually_async

from bgproxy.config import source
from bgproxy.config.schema import Approve, Bake, Check, Deployment, Drain, Hook, Retire, Strategy, Verify
from bgproxy.control.actor import Actor
from bgproxy.control.deployments import rollback
from bgproxy.control.store import Store
from bgproxy.errors import BgproxyError, StateError

BOB = Actor("bob", "10.0.0.2")


class Chaos:
    """One room, and what may happen in it."""

    def __init__(self, room: ControlRoom, lot: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = room
        self.lot = lot
        self.full = False  # the disk
        self.did: list[str] = []
        write = Store.write

        async def perhaps(store: Store, state: Any) -> None:
            if self.full:
                raise StateError("state.json cannot be written: No space left on device. Nothing was changed.")
            await write(store, state)

        async def load(*_: Any) -> Any:
            return self.room.config

        monkeypatch.setattr(Store, "write", perhaps)
        monkeypatch.setattr(source, "load_async", load)

    def settings(self) -> Deployment:
        lot = self.lot
        kinds = ("all-at-once", "canary", "linear")
        return Deployment(
            provision=lot.choice((None, Hook(run="sleep 0.05"))),
            verify=lot.choice((None, Verify(checks=(Check(name="quick", run="sleep 0.02"),)))),
            approve=Approve(mode=lot.choice(("automatic", "manual")), timeout=0.5),
            strategy=Strategy(type=lot.choice(kinds), percent=20.0, for_=0.2, step=40.0, every=0.1),
            bake=lot.choice((None, Bake(for_=0.2, min_requests=1, no_traffic=lot.choice(("wait", "fail")), wait=0.5))),
            retire=lot.choice((None, Retire(after=0.1, run="sleep 0.02"))),
        )

    async def act(self) -> None:
        """One thing; what is refused is refused."""
        name = self.lot.choice(
            (
                *("deploy", "deploy", "deploy", "abort", "approve", "approve", "rollback", "force", "switch"),
                *("set_pool", "maint", "reload", "restart", "worker", "upstream", "disk"),
            )
        )
        try:
            await getattr(self, f"do_{name}")()
        except BgproxyError as error:
            self.did.append(f"{name}: {type(error).__name__}: {error}")
        else:
            self.did.append(name)

    @property
    def number(self) -> int:
        return self.room.controller._parts.ledger.state.last_deployment

    async def do_deploy(self) -> None:
        await self.room.controller.deploy("shop", actor=ALICE, version=str(self.lot.random()))

    async def do_abort(self) -> None:
        await self.room.controller.deployments.abort(self.number, actor=BOB)

    async def do_approve(self) -> None:
        await self.room.controller.deployments.approve(self.number, actor=BOB)

    async def do_rollback(self) -> None:
        await self.room.controller.rollback("shop", actor=BOB, force=self.lot.random() < 0.3)

    async def do_force(self) -> None:
        await self.room.controller.switch({"shop": None}, actor=BOB, force=True)

    async def do_switch(self) -> None:
        await self.room.controller.switch({"shop": self.lot.choice(("blue", "green"))}, actor=BOB)

    async def do_set_pool(self) -> None:
        pool = self.lot.choice(("blue", "green"))
        await self.room.controller.set_pool("shop", pool, version=str(self.lot.random()), upstreams=None, actor=BOB)

    async def do_maint(self) -> None:
        pool = self.lot.choice(("blue", "green"))
        url = self.room.upstreams["shop", pool].url
        for state in ("maint", "ready"):
            await self.room.controller.set_upstream_state("shop", pool, url, state, actor=BOB)
            await asyncio.sleep(self.lot.random() * 0.1)

    async def do_reload(self) -> None:
        self.room.config = self.room.made_config(deployment=self.settings())
        await self.room.controller.reload(actor=BOB)

    async def do_restart(self) -> None:
        self.full = False
        await self.room.close()
        await self.room.open()

    async def do_worker(self) -> None:
        worker = self.lot.choice(self.room.workers)
        worker.stop()
        await asyncio.sleep(self.lot.random() * 0.1)
        worker.go()

    async def do_upstream(self) -> None:
        upstream = self.room.upstreams["shop", self.lot.choice(("blue", "green"))]
        upstream.status = 500
        await asyncio.sleep(self.lot.random() * 0.2)
        upstream.status = 200

    async def do_disk(self) -> None:
        self.full = True
        await asyncio.sleep(self.lot.random() * 0.05)
        self.full = False

    async def quiet(self) -> None:
        """Until nothing is under way."""
        deployments = self.room.controller.deployments
        await eventually_async(lambda: deployments.running("shop") is None, within=20, what="the end of what runs")
        await eventually_async(lambda: not deployments._unwritten.records, within=20, what="its end on the disk")
        service = self.room.controller._registry.find("shop")
        await eventually_async(lambda: not service.changing, what="no change under way")


def check_history(room: ControlRoom) -> None:
    """Read in its order, it never says of a deployment what is not so of the traffic."""
    live = "blue"
    states: dict[int, str] = {}
    for event in room.controller.events.history(limit=1000):
        if event["type"] in ("switched", "rolled_back"):
            assert event["data"]["from"] == live, event
            live = event["data"]["to"]
        if event["type"] == "deployment":
            number, state = event["data"]["id"], event["data"]["state"]
            others = [known for known, last in states.items() if known != number and last not in ENDS]
            assert not others, event  # one at a time
            assert states.get(number) not in ENDS, event  # what has ended has ended
            states[number] = state
            if state in ("baking", "draining", "retiring", "succeeded"):
                assert event["pool"] == live, event
            if state == "rolled_back":
                assert event["pool"] != live, event
    assert room.everywhere() == (live, live, live)
    assert all(state in ENDS for state in states.values())


ENDS = ("succeeded", "failed", "aborted", "rolled_back")


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))])
async def test_anything(tmp_path, monkeypatch, seed):
    """By lot; the seed tells which."""
    lot = random.Random(seed)
    monkeypatch.setattr(rollback, "WITHIN", 1.0)
    drain = Drain(requests=0.1, streams=0.1, websockets=0.1)
    async with ControlRoom(tmp_path, drain=drain) as room:
        chaos = Chaos(room, lot, monkeypatch)
        for _ in range(40):
            await chaos.act()
            await asyncio.sleep(lot.random() * lot.choice((0.0, 0.02, 0.1)))
        await chaos.quiet()
        for pool in ("blue", "green"):  # a refusal may have left one out
            url = room.upstreams["shop", pool].url
            await room.controller.set_upstream_state("shop", pool, url, "ready", actor=BOB)
        try:
            check_history(room)
            service = room.controller._registry.find("shop")
            assert (room.board.share(service.slot), service.deployment, service.deploying) == (0, None, None)
            await eventually_async(
                lambda: room.pool("shop", "blue")["healthy"] and room.pool("shop", "green")["healthy"]
            )
            await eventually_async(
                lambda: sorted(pool["state"] for pool in room.service()["pools"].values()) == ["live", "standby"],
                what="one live, one at its side",
            )
            room.config = room.made_config(deployment=Deployment())
            await room.controller.reload(actor=BOB)
            target = {"blue": "green", "green": "blue"}[room.service()["live"]]
            await chaos.do_deploy()
            await chaos.quiet()
            assert room.controller.deployments.get(chaos.number)["state"] == "succeeded"
            assert room.everywhere() == (target, target, target)
        except BaseException:
            print("\n".join(chaos.did))
            raise
