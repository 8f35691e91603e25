"""What is answered here: status, words, and whether the connection stays."""

from __future__ import annotations

import pytest
from support.dataplane import OK, DataPlane, get, until

from bgproxy.config import schema


async def test_an_unmatched_host_is_404_and_the_connection_stays() -> None:
    """No service for a host: 404, as problem+json for who accepts JSON; the connection serves on."""
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(OK), hosts=("shop.test",))
        wire = await plane.connect()
        wire.send(b"GET / HTTP/1.1\r\nHost: other.test\r\nAccept: application/json\r\n\r\n")
        answer = await wire.response()
        assert answer.status == 404
        assert answer.get("content-type") == "application/problem+json"
        wire.send(get())
        assert (await wire.response()).status == 200
        wire.close()


async def test_no_upstream_up_is_503_with_retry_after() -> None:
    """A pool without a usable upstream answers 503 at once, and says when to come again."""
    async with DataPlane() as plane:
        await plane.serve()
        answer = await plane.ask(get())
        assert answer.status == 503
        assert answer.get("retry-after") == "1"


async def test_too_many_connections_get_503() -> None:
    """Beyond `limits.connections` a client gets a quick 503; the others are served on."""
    async with DataPlane(limits=schema.Limits(connections=1)) as plane:
        await plane.serve(await plane.upstream(OK))
        first = await plane.connect()
        first.send(get())
        assert (await first.response()).status == 200
        second = await plane.connect()
        assert (await second.response()).status == 503
        first.send(get())
        assert (await first.response()).status == 200
        first.close()
        await until(lambda: not plane.context.clients)
        assert (await plane.ask(get())).status == 200


@pytest.mark.parametrize("hosts", [("other.test",), ()])
async def test_head_has_no_body_in_errors_of_our_own(hosts: tuple[str, ...]) -> None:
    """HEAD answered by ourselves, 404 or 503, has the headers of the error and no body: the connection stays in step."""
    async with DataPlane() as plane:
        await plane.serve((), hosts=hosts)
        wire = await plane.connect()
        wire.send(get(method="HEAD") + get())
        first = await wire.response(head_only=True)
        second = await wire.response()
        assert first.status == second.status == (404 if hosts else 503)
        assert first.get("content-length") == second.get("content-length")


async def test_a_refused_head_has_no_body() -> None:
    """A malformed HEAD is refused without a body, too."""
    async with DataPlane() as plane:
        await plane.serve(await plane.upstream(OK))
        wire = await plane.connect()
        wire.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert (await wire.head()).status == 400
        assert await wire.ended() == b""
