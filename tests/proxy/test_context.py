"""What connections share: services that come, change and go, and the counters in the cells."""

from __future__ import annotations

import asyncio
import dataclasses

from support.dataplane import OK, DataPlane, get, pool_spec, reset, until

from bgproxy.proxy.context import Context
from bgproxy.switchboard import layout
from bgproxy.switchboard.board import Switchboard


async def test_an_upstream_that_stays_keeps_its_connections() -> None:
    """A snapshot with the same upstream keeps its idle connections; one without it closes them."""
    async with DataPlane() as plane:
        blue = await plane.upstream(OK)
        other = await plane.upstream(OK)
        spec = await plane.serve(blue)
        await plane.ask(get())
        (upstream,) = plane.blue.upstreams
        assert len(upstream.idle) == 1
        plane.change(spec, pools=(pool_spec("blue", [blue, other], 0), spec.pools[1]))
        assert plane.blue.upstreams[0] is upstream
        assert len(upstream.idle) == 1
        plane.change(spec, pools=(pool_spec("blue", [other], 1), spec.pools[1]))
        assert upstream.idle == []
        await until(lambda: not plane.context.servers)
        assert (await plane.ask(get())).status == 200
        assert len(other.heads) == 1


async def test_a_request_in_flight_outlives_its_upstream_and_its_service() -> None:
    """What is in flight to an upstream, or of a service, that is taken away ends in peace."""
    gate = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await gate.wait()
        writer.write(OK)
        await reader.read()

    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(slow))
        wire = await plane.connect()
        wire.send(get())
        await until(lambda: plane.upstreams[0].connections)
        plane.context.set_services((), (), whole=True)
        assert (await plane.ask(get())).status == 404
        gate.set()
        assert (await wire.response()).status == 200
        await until(lambda: not plane.context.servers)  # and its connection is not kept


async def test_a_delta_leaves_other_services_alone() -> None:
    """A snapshot that is not whole changes the services that it names, and takes away those that it says."""
    async with DataPlane() as plane:
        blue = await plane.upstream(OK)
        shop = await plane.serve(blue, hosts=("shop.test",))
        api = dataclasses.replace(shop, name="api", slot=1, hosts=("api.test",))
        plane.board.settle(1, 0)
        plane.context.set_services((api,), (), whole=False)
        assert set(plane.context.services) == {"shop", "api"}
        assert (await plane.ask(get())).status == 200
        plane.context.set_services((), ("shop",), whole=False)
        assert set(plane.context.services) == {"api"}
        assert (await plane.ask(get())).status == 404


async def test_counters_reach_the_cells() -> None:
    """After a flush the cells say what the pools counted; a successor in the same place counts on from there."""
    async with DataPlane() as plane:
        blue = await plane.upstream(OK)
        spec = await plane.serve(blue)
        for _ in range(3):
            await plane.ask(get())
        plane.context.flush()
        base = layout.pool_base(0, 0)
        cells = plane.context.cells
        assert cells[base + layout.CODES + layout.code_cell(200)] == 3
        assert sum(cells[base + layout.BUCKETS : base + layout.BUCKETS + layout.BUCKET_COUNT]) == 3
        assert cells[base + layout.BYTES_OUT] == 3 * len(OK)
        assert cells[layout.W_ACCEPTED] == 3
        assert cells[layout.upstream_base(0) + layout.UP_REQUESTS] == 3
        cells[base + layout.IN_FLIGHT] = 5  # as a worker leaves it that dies with requests in flight
        plane.context.set_services((), (), whole=True)
        plane.context.set_services((spec,), (), whole=True)
        assert cells[base + layout.IN_FLIGHT] == 0
        await plane.ask(get())
        plane.context.flush()
        assert cells[base + layout.CODES + layout.code_cell(200)] == 4


async def test_what_is_in_flight_is_seen_at_once() -> None:
    """In-flight cells need no flush: a drain reads them without asking."""
    async with DataPlane() as plane:

        async def silent(reader, writer) -> None:
            await reader.read()

        await plane.serve(await plane.upstream(silent))
        cells = plane.context.cells
        wire = await plane.connect()
        wire.send(get())
        await until(lambda: cells[layout.pool_base(0, 0) + layout.IN_FLIGHT] == 1)
        reset(wire.writer)
        await until(lambda: cells[layout.pool_base(0, 0) + layout.IN_FLIGHT] == 0)


async def test_a_service_that_is_gone_leaves_the_cells_to_its_successor() -> None:
    """What a removed service still has in flight is not counted in a slot that is another's by then."""
    gate = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await gate.wait()
        writer.write(OK)
        await reader.read()

    async with DataPlane() as plane:
        shop = await plane.serve(await plane.upstream(slow), hosts=("shop.test",))
        cells = plane.context.cells
        one = await plane.connect()
        one.send(get())
        await until(lambda: cells[layout.pool_base(0, 0)] == 1)
        api = dataclasses.replace(shop, name="api", hosts=("api.test",))
        plane.context.set_services((api,), (), whole=True)
        assert cells[layout.pool_base(0, 0)] == 0
        two = await plane.connect()
        two.send(b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n")
        await until(lambda: cells[layout.pool_base(0, 0)] == 1)
        one.close()
        gate.set()
        assert (await two.response()).status == 200
        await until(lambda: cells[layout.pool_base(0, 0)] == 0)
        plane.context.flush()
        assert cells[layout.pool_base(0, 0)] == 0


async def test_who_has_waited_longest_makes_room_and_who_is_answered_does_not() -> None:
    """In proportion to the time that each has; nobody who has come just now, and nobody with a request."""
    async with DataPlane() as plane:
        context = plane.context
        await plane.serve(await plane.upstream(OK))
        kept = await plane.connect()
        kept.send(get())
        await kept.response()
        await plane.connect()
        await until(lambda: len(context.clients) == 2)
        assert not context.make_room()  # both have come just now
        known, stranger = sorted(context.clients, key=lambda client: -client.number)
        context.now += 3.0  # of 75 seconds, and of 10
        context.packed_until = 0.0
        assert context.make_room()
        assert context.clients == {known}
        assert stranger.closed_because == "made room for others"
        assert context.hits[layout.EVICTED] == 1


async def test_idle_connections_to_upstreams_make_room_for_those_that_are_needed() -> None:
    """Over the share of upstreams the connections go that have idled longest; where none idles, there is no room."""
    async with DataPlane() as plane:
        context = plane.context
        await plane.serve(await plane.upstream(OK))
        wires = [await plane.connect() for _ in range(2)]
        for wire in wires:
            wire.send(get())
        for wire in wires:
            await wire.response()
        await until(lambda: len(plane.blue.upstreams[0].idle) == len(context.servers) > 0)
        context.max_servers = len(context.servers)
        assert context.make_server_room()
        await until(lambda: len(context.servers) < context.max_servers)
        context.max_servers = 0
        await until(lambda: not context.make_server_room())


def test_descriptors_bound_the_share_of_connections() -> None:
    """Half of them are for clients, the rest for upstreams; a configuration that asks for less gets it."""
    loop = asyncio.new_event_loop()
    board = Switchboard(1)
    context = Context(loop, board, 0, 1)
    context.set_descriptors(100)
    assert (context.max_connections, context.max_servers) == (50, 50)
    context.set_descriptors(1_000_000)
    assert context.max_connections == context.limits.connections
    loop.close()


def test_addresses_are_counted_only_where_they_are_limited() -> None:
    """Taken and left in pairs, nothing is remembered of an address that has gone."""
    loop = asyncio.new_event_loop()
    context = Context(loop, Switchboard(1), 0, 1)
    context.per_address = 2
    assert context.take_address("a")
    assert context.take_address("a")
    assert not context.take_address("a")
    context.leave_address("a")
    assert context.take_address("a")
    context.leave_address("a")
    context.leave_address("a")
    assert context.addresses == {}
    loop.close()
