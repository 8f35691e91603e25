"""Where a client's connection stands: the table of its states, and the reasons for which it is not read."""

from __future__ import annotations

import pytest
from support.dataplane import OK, DataPlane, get

from bgproxy.model import connection
from bgproxy.model.machine import IllegalTransition
from bgproxy.proxy import client_state


def test_states_are_those_of_the_table() -> None:
    """The constants of the hot path are the members of the enums, so that the table means them."""
    for enum in (connection.ClientState, connection.ClientEvent):
        for member in enum:
            assert getattr(client_state, member.name) == member.value


async def test_a_step_that_the_table_lacks_raises_and_changes_nothing() -> None:
    """An idle connection cannot have been answered: the state stays, and requests go on."""
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(OK))
        wire = await plane.connect()
        wire.send(get())
        assert (await wire.response()).status == 200
        (client,) = plane.clients
        with pytest.raises(IllegalTransition, match="client connection: event 2 in state 0"):
            client.step(client_state.ANSWERED)
        assert client.state == client_state.IDLE
        wire.send(get())
        assert (await wire.response()).status == 200


async def test_reading_goes_on_when_no_reason_against_it_is_left() -> None:
    """Two reasons not to read: without the one nothing is read yet, without both the request is."""
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(OK))
        wire = await plane.connect()
        wire.send(get())
        assert (await wire.response()).status == 200
        (client,) = plane.clients
        client.pause(client_state.WAITS)
        client.server_full()
        client.resume(client_state.WAITS)
        assert not client.transport.is_reading()
        client.server_ready()
        assert client.transport.is_reading()
        wire.send(get())
        assert (await wire.response()).status == 200
