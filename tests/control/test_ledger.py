"""The one way to change the state: the disk first, then memory, then the events; or nothing of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from bgproxy.control import ledger as ledger_module
from bgproxy.control.events import Draft, EventLog
from bgproxy.control.ledger import Hints, Ledger
from bgproxy.control.state import State
from bgproxy.control.statefile import decode
from bgproxy.control.store import Store
from bgproxy.errors import Refused, StateError, Unavailable


class Desk:
    """A ledger over a real directory, and what its next life would read there."""

    def __init__(self, directory) -> None:
        self.directory = directory
        self.store = Store(str(directory))
        self.events = EventLog()
        found = self.store.open() or State()
        self.events.restore(found.history, found.last_event)
        self.ledger = Ledger(found, self.store, self.events, lambda: Hints({"shop blue a": 3}, {"web": ("::1",)}))

    @property
    def on_disk(self) -> State:
        return decode((self.directory / "state.json").read_bytes())

    def messages(self) -> list[str]:
        return [event["message"] for event in self.events.history()]


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path / "state")
    yield desk
    desk.store.close()


def bump(state: State) -> tuple[State, list[Draft]]:
    new = replace(state, generation=state.generation + 1)
    return new, [Draft(type="switched", message=f"generation {new.generation}")]


def nothing(_: State) -> None:
    pass


async def test_what_is_put_in_force_is_on_the_disk_and_not_yet_told(desk):
    """The order of a change: written, in force, told, answered with what putting it in force gave."""
    seen = []

    def put_in_force(state: State) -> str:
        seen.append((desk.on_disk.generation, state.generation, desk.ledger.state is state, desk.events.since(0)))
        return "done"

    assert await desk.ledger.change(bump, put_in_force) == "done"
    assert seen == [(1, 1, True, [])]
    assert desk.messages() == ["generation 1"]
    assert desk.on_disk.history == tuple(desk.events.history())


async def test_hints_are_written_along(desk):
    """As they are at the time of the change."""
    await desk.ledger.change(bump, nothing)
    assert desk.on_disk.upstream_slots == {"shop blue a": 3}
    assert desk.on_disk.addresses == {"web": ("::1",)}


async def test_a_write_that_fails_changes_nothing(desk, monkeypatch):
    """Not the state, not the history, and nothing is put in force. Afterwards all goes on."""
    await desk.ledger.change(bump, nothing)

    async def fail(_: State) -> None:
        raise StateError("full")

    with monkeypatch.context() as patch:
        patch.setattr(desk.store, "write", fail)
        with pytest.raises(StateError, match="full"):
            await desk.ledger.change(bump, lambda _: pytest.fail("put in force"))
    assert desk.ledger.state.generation == desk.on_disk.generation == 1
    assert desk.messages() == ["generation 1"]
    await desk.ledger.change(bump, nothing)
    assert desk.ledger.state.generation == desk.on_disk.generation == 2
    assert desk.messages() == ["generation 1", "generation 2"]


async def test_a_refusal_writes_nothing_and_blocks_nothing(desk):
    """Whoever makes the new state may look at the old one and say no."""

    def refuse(_: State) -> tuple[State, list[Draft]]:
        raise Refused("no")

    with pytest.raises(Refused):
        await desk.ledger.change(refuse, nothing)
    assert not (desk.directory / "state.json").exists()
    await desk.ledger.change(bump, nothing)


async def test_changes_take_turns(desk):
    """Each is made from what the one before it left; none is lost."""
    await asyncio.gather(*(desk.ledger.change(bump, nothing) for _ in range(20)))
    assert desk.ledger.state.generation == desk.on_disk.generation == 20
    assert desk.messages() == [f"generation {number}" for number in range(1, 21)]


async def test_a_change_does_not_wait_for_its_turn_for_ever(desk, monkeypatch):
    """The disk of the one before it hangs: refused, and nothing was changed."""
    monkeypatch.setattr(ledger_module, "TURN_WITHIN", 0.02)
    gate = asyncio.Event()

    async def hang(_: State) -> None:
        await gate.wait()

    with monkeypatch.context() as patch:
        patch.setattr(desk.store, "write", hang)
        first = asyncio.create_task(desk.ledger.change(bump, nothing))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="still being written"):
            await desk.ledger.change(bump, nothing)
        gate.set()
        await first
    assert desk.ledger.state.generation == 1


async def test_a_change_that_is_cancelled_while_it_is_written_has_not_happened(desk, monkeypatch):
    """Not in memory, not in the history; the next one finds everything as it was."""
    gate = asyncio.Event()
    reached = asyncio.Event()

    async def hang(_: State) -> None:
        reached.set()
        await gate.wait()

    with monkeypatch.context() as patch:
        patch.setattr(desk.store, "write", hang)
        change = asyncio.create_task(desk.ledger.change(bump, lambda _: pytest.fail("put in force")))
        await reached.wait()
        change.cancel()
        with pytest.raises(asyncio.CancelledError):
            await change
    assert (desk.ledger.state.generation, desk.messages()) == (0, [])
    await desk.ledger.change(bump, nothing)
    assert desk.on_disk.generation == 1


async def test_the_next_life_has_the_history_and_higher_ids(desk):
    """Also where events were told that nobody wrote down."""
    await desk.ledger.change(bump, nothing)
    told = desk.events.emit(Draft(type="upstream_up", message="forgotten"))
    desk.store.close()
    second = Desk(desk.directory)
    assert second.ledger.state.generation == 1
    assert second.messages() == ["generation 1"]
    assert second.events.emit(Draft(type="started", message="again"))["id"] > told["id"]
    second.store.close()


async def test_what_happened_while_the_disk_was_full_goes_along_with_the_next_change(desk, monkeypatch):
    """Before it, in the state and in the history; once, and not with one that is not written."""

    class Missed:
        done = 0

        def make(self, state: State) -> tuple[State, list[Draft]]:
            return replace(state, last_deployment=7), [] if self.done else [Draft(type="deployment", message="missed")]

        def put(self) -> None:
            self.done += 1

    desk.ledger.late = missed = Missed()

    async def full(_self, _state) -> None:
        raise StateError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "write", full)
        with pytest.raises(StateError):
            await desk.ledger.change(bump, nothing)
    assert missed.done == 0
    await desk.ledger.change(bump, nothing)
    assert (missed.done, desk.on_disk.last_deployment) == (1, 7)
    assert desk.messages() == ["missed", "generation 1"]
