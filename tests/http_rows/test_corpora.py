"""The cases that others wrote (llhttp, gunicorn), over sockets: what bgproxy answers, and what reaches a strict upstream."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.corpora import ON_PURPOSE, REQUESTS, RESPONSES, Tally, rows, wrong_with_request, wrong_with_response
from support.dataplane import DataPlane, get, read_head, until
from support.strict import IncompleteError, Message, read_response
from support.witness import Witness, own_answer

from bgproxy.proxy import client_state as client_module
from bgproxy.proxy.client import ClientConnection


class Collector(asyncio.Protocol):
    """A client that keeps what it is sent."""

    def __init__(self) -> None:
        self.got = b""
        self.ended = False
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True


async def open_client(plane: DataPlane) -> tuple[Collector, ClientConnection]:
    """A new client, and bgproxy's end of its connection."""
    before = len(plane.clients)
    _, collector = await asyncio.get_running_loop().create_connection(Collector, "127.0.0.1", plane.port)
    await until(lambda: len(plane.clients) > before and plane.clients[-1].transport is not None)
    return collector, plane.clients[-1]


async def fence(wire: Any) -> None:
    """A request and its answer over another connection: what was sent before it has been taken meanwhile."""
    wire.send(get("/fence"))
    assert (await wire.response()).body == b"/fence"


def own(witness: Witness) -> list[Message]:
    """The requests that came of a row's bytes."""
    return [request for request in witness.requests if request.start[1] != b"/fence"]


async def settled(
    plane: DataPlane, witness: Witness, collector: Collector, client: ClientConnection, wire: Any
) -> None:
    """Wait until nothing changes any more, from fence to fence; one may pass before bytes of the same time, two do not."""
    same = 0
    last: object = None
    async with asyncio.timeout(5):
        while same < 3 or plane.context.tasks:
            await fence(wire)
            sent = client.exchange.bytes_in if client.exchange is not None else 0
            now = (collector.got, collector.ended, client.state, client.buffer, sent, len(own(witness)))
            same = same + 1 if now == last else 0
            last = now


def answers_in(got: bytes, methods: list[bytes], *, ended: bool) -> tuple[list[Message], str]:
    """The answers that a client got, and what is wrong with them."""
    found: list[Message] = []
    at = 0
    while at < len(got):
        method = methods[len(found)] if len(found) < len(methods) else b"GET"
        try:
            message = read_response(got, at, method, ended=ended)
        except IncompleteError:
            # Our own answer to a HEAD that is refused has no body either.
            message = read_response(got, at, b"HEAD", ended=ended)
            if message.end != len(got) or not message.all(b"proxy-status"):
                return found, f"an answer that does not end: {got[at:]!r}"
        found.append(message)
        at = message.end
    return found, ""


def verdict_on(client: ClientConnection, answers: list[Message]) -> tuple[str, int | None]:
    """Accept, reject or wait; and the status of a refusal."""
    if answers and answers[-1].all(b"proxy-status"):
        return "reject", int(answers[-1].start[0])
    if client.state in (client_module.HEAD, client_module.BUSY):
        return "wait", None
    if client.state == client_module.CLOSED and not answers:
        return "reject", None  # without a word, which is another right way to refuse
    return "accept", None


async def judge_request(plane: DataPlane, witness: Witness, row: dict[str, Any], wire: Any) -> tuple[str, str]:
    """What becomes of a row's bytes, and what is wrong with it."""
    witness.forget()
    collector, client = await open_client(plane)
    collector.transport.write(row["raw"])
    await settled(plane, witness, collector, client, wire)
    seen = own(witness)
    faults = list(witness.faults)
    answers, fault = answers_in(collector.got, [request.start[0] for request in seen], ended=collector.ended)
    verdict, status = verdict_on(client, answers)
    collector.transport.abort()
    await until(lambda: client.transport is None)
    fresh = await plane.ask(get("/fresh"))
    if (fresh.status, fresh.body) != (200, b"/fresh"):
        return verdict, f"the next GET gets {fresh.status} {fresh.body!r}"
    if faults:
        return verdict, f"a strict server refuses what was forwarded: {faults}"
    if fault:
        return verdict, fault
    for request, answer in zip(seen, answers, strict=False):
        if not answer.all(b"proxy-status") and request.start[0] != b"HEAD" and answer.body != request.start[1]:
            return verdict, f"the answer to {request.start} is {answer.body!r}"
    statuses = [int(answer.start[0]) for answer in answers]
    return verdict, wrong_with_request(row, verdict, len(seen), status, statuses)


@pytest.mark.parametrize("name", REQUESTS)
async def test_requests_over_sockets(name: str) -> None:
    """Accepted, refused or waited for as each row says; the upstream gets strict requests, and no more than there are."""
    tally = Tally(name, ON_PURPOSE)
    async with DataPlane() as plane:
        witness = Witness(own_answer)
        await plane.serve(await plane.upstream(witness.script))
        wire = await plane.connect()
        for row in rows(name):
            tally.note(row, *(await judge_request(plane, witness, row, wire)))
        await until(lambda: len(plane.context.clients) <= 1)
        assert plane.blue.in_flight == [0, 0, 0]
    tally.judge()


async def judge_response(plane: DataPlane, row: dict[str, Any]) -> tuple[str, str]:
    """What a client gets of a row's bytes, and what is wrong with it."""
    collector, client = await open_client(plane)
    collector.transport.write(get("/case"))
    final: list[Message] = []
    detail = ""

    def over() -> bool:
        """Whether the answer has ended, or the connection."""
        at = 0
        while at < len(collector.got) and not final:
            try:
                message = read_response(collector.got, at, b"GET", ended=False)
            except IncompleteError:
                break
            at = message.end
            if message.start[0] >= b"200" and not message.all(b"connection"):
                final.append(message)
                assert at == len(collector.got), "something follows the answer"
            elif message.start[0] >= b"200" and collector.ended:
                final.append(message)
        return bool(final) or collector.ended

    await until(over)
    if not final:
        verdict = "truncated"
    elif final[0].all(b"proxy-status"):
        verdict, detail = "bad", final[0].body.decode()
    else:
        verdict = "relay"
    collector.transport.abort()
    await until(lambda: client.transport is None)
    fresh = await plane.ask(get("/fresh"))
    if (fresh.status, fresh.body) != (200, b"/fresh"):
        return verdict, f"the next GET gets {fresh.status} {fresh.body!r}"
    return verdict, wrong_with_response(row, verdict, detail)


@pytest.mark.parametrize("name", RESPONSES)
async def test_responses_over_sockets(name: str) -> None:
    """Relayed, replaced by 502 or cut short as each row says; what a client gets is strict, and the next GET its own."""
    tally = Tally(name, ON_PURPOSE)
    raw = b""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await read_head(reader)
            if head.startswith(b"GET /case "):
                writer.write(raw)
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n/fresh")

    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(script))
        for row in rows(name):
            raw = row["raw"]
            tally.note(row, *(await judge_response(plane, row)))
        await until(lambda: not plane.context.clients)
        assert plane.blue.in_flight == [0, 0, 0]
    tally.judge()
