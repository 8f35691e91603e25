"""The controller's end of the leash, against the supervisor's."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from support.waiting import eventually_async

from bgproxy.process.leash import Leash
from bgproxy.process.tether import Tether


class Ears:
    def __init__(self) -> None:
        self.messages: list[tuple[dict[str, Any], socket.socket | None]] = []
        self.ended = 0

    def heard(self, message: dict[str, Any], handover: socket.socket | None) -> None:
        self.messages.append((message, handover))

    def end(self) -> None:
        self.ended += 1


@pytest.fixture
def ears() -> Iterator[Ears]:
    ears = Ears()
    yield ears
    for _, handover in ears.messages:
        if handover is not None:
            handover.close()


@pytest.fixture
async def ends(ears):
    ours, theirs = socket.socketpair()
    leash, tether = Leash(ours), Tether(theirs, ears.heard, ears.end)
    tether.start()
    yield leash, tether
    tether.stop()
    leash.close()
    theirs.close()


async def test_messages_come_with_their_sockets(ends, ears):
    """Each link message has the socket that was sent with it, in order, whatever is said in between."""
    leash, _ = ends
    near = []
    for number in range(5):
        mine, given = socket.socketpair()
        near.append(mine)
        leash.say(f"link {number}", {"link": number, "pid": 1}, given)
        leash.say("children", {"children": number})
        mine.sendall(b"%d" % number)
    await eventually_async(lambda: len(ears.messages) == 10)
    for number in range(5):
        message, sock = ears.messages[2 * number]
        assert message == {"link": number, "pid": 1}
        assert sock is not None
        assert sock.recv(10) == b"%d" % number
        assert ears.messages[2 * number + 1] == ({"children": number}, None)
    for mine in near:
        mine.close()


async def test_the_end_is_told_once(ends, ears):
    """A supervisor that has gone is noticed, once."""
    leash, tether = ends
    leash.close()
    await eventually_async(lambda: ears.ended)
    tether.say({"serving": True})  # harmless
    tether.stop()
    assert ears.ended == 1


async def test_a_long_message_gets_through_to_a_slow_supervisor(ends):
    """A configuration of megabytes is sent as the supervisor reads, and is whole at its end."""
    leash, tether = ends
    tether.say({"config": "x" * 3_000_000})
    tether.say({"serving": True})
    heard: list[dict[str, Any]] = []

    def all_there() -> bool:
        heard.extend(leash.receive())
        return len(heard) == 2

    await eventually_async(all_there)
    assert len(heard[0]["config"]) == 3_000_000
    assert heard[1] == {"serving": True}
