"""Commands and webhooks, as a deployment calls them; test_commands.py has what commands may be like."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import socket
import ssl

import pytest
from aiohttp import web
from support.certificates import Authority
from support.deployments import make_hands, make_run
from support.waiting import eventually_async

from bgproxy.control.deployments import hooks
from bgproxy.control.deployments.hooks import KEPT, call


async def command(text: str, *, run=None, seconds=10.0, **how):
    return await call(
        run or make_run("http://127.0.0.1:9002"),
        run_command=text,
        timeout=seconds,
        stage="verifying",
        name="tests",
        **how,
    )


# --- commands -------------------------------------------------------------------------------------------------------


async def test_a_command_that_ends_well():
    """Its output is kept, and how long it took."""
    result = await command("echo one; echo two >&2; exit 0")
    assert (result.ok, result.expected, result.found) == (True, "status 0", "status 0")
    assert result.details == ("one", "two")
    assert (result.stage, result.name) == ("verifying", "tests")
    assert 0 < result.seconds < 5


@pytest.mark.parametrize(
    ("text", "found"), [("exit 3", "status 3"), ("sleep 60", "it did not end within 300ms, and was ended")]
)
async def test_any_other_end_is_a_failure(text, found):
    """It says which."""
    result = await command(text, seconds=0.3)
    assert (result.ok, result.found) == (False, found)


async def test_it_gets_the_deployment():
    """On its standard input, and in its environment."""
    run = make_run("http://127.0.0.1:9002", "http://127.0.0.1:9003")
    result = await command('echo "$BGPROXY_STATE $BGPROXY_LIVE $BGPROXY_UPSTREAMS"; cat', run=run)
    assert result.details[0] == "verifying blue http://127.0.0.1:9002 http://127.0.0.1:9003"
    # A line of a result is cut where it gets long.
    assert result.details[1].startswith('{"id": 7, "service": "shop", "state": "verifying", "target": "green"')


async def test_the_environment_is_the_one_that_the_controller_gives():
    """So that tokens can be left out of it."""
    environment = {"PATH": os.environ["PATH"], "KNOWN": "yes"}
    run = make_run("http://127.0.0.1:9002", hands=make_hands(environment=lambda: environment))
    result = await command("env", run=run)
    names = {line.partition("=")[0] for line in result.details if "=" in line}
    assert "KNOWN" in names
    assert not {"HOME", "USER", "BGPROXY_TOKEN"} & names


async def test_its_lines_are_its_progress():
    """But not those of a command that is only told of a deployment."""
    run = make_run("http://127.0.0.1:9002")
    await command("echo building", run=run)
    await command("echo told", run=run, payload={"event": "failed"})
    assert run.tell.lines == ["tests: building"]


async def test_a_command_that_cannot_be_started():
    """A result like any other, whatever the reason."""
    run = make_run("http://127.0.0.1:9002", hands=make_hands(environment=lambda: {"MUCH": "x" * 200_000}))
    result = await command("true", run=run)
    assert (result.ok, result.found) == (False, "it could not be started: Argument list too long")


# --- webhooks -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def hook():
    """A server that notes what it is sent, and answers as it is told."""
    got = []
    answer = {"status": 200, "text": "ok", "headers": {}}
    release = asyncio.Event()

    async def serve(request: web.Request) -> web.Response:
        got.append((request.method, request.path_qs, request.headers.get("Content-Type"), await request.json()))
        if answer["status"] == 0:
            await release.wait()
        return web.Response(status=answer["status"] or 200, text=answer["text"], headers=answer["headers"])

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook?key=secret", got, answer
    release.set()
    await runner.cleanup()


async def webhook(url: str, **how):
    return await call(
        make_run("http://127.0.0.1:9002"),
        webhook=url,
        timeout=how.pop("timeout", 5.0),
        stage="provisioning",
        name="provision",
        **how,
    )


async def test_a_webhook_gets_the_deployment(hook):
    """As a POST of JSON; 2xx goes on."""
    url, got, answer = hook
    answer["status"] = 204
    result = await webhook(url)
    assert (result.ok, result.expected, result.found) == (True, "an answer of 2xx", "204 from 127.0.0.1")
    ((method, path, kind, said),) = got
    assert (method, path, kind) == ("POST", "/hook?key=secret", "application/json")
    assert (said["service"], said["id"], said["upstreams"]) == ("shop", 7, ["http://127.0.0.1:9002"])
    json.dumps(said)


@pytest.mark.parametrize("status", [301, 307, 400, 500, 503])
async def test_any_other_answer_halts(hook, status):
    """A redirect is not followed: who would get the deployment then?"""
    url, got, answer = hook
    answer.update(status=status, text="no room\nfor green", headers={"Location": "/elsewhere"} if status < 400 else {})
    result = await webhook(url)
    assert (result.ok, result.found) == (False, f"{status} from 127.0.0.1")
    assert result.details == ("no room", "for green")
    assert len(got) == 1


async def test_a_webhook_that_does_not_answer(hook):
    """Has its time, and is shown by its host alone: the URL may hold a secret."""
    url, _, answer = hook
    answer["status"] = 0
    result = await webhook(url, timeout=0.2)
    assert (result.ok, result.found) == (False, "no answer from 127.0.0.1 within 200ms")
    assert "secret" not in repr(result)


async def test_a_webhook_that_is_not_there():
    """Says so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = await webhook(f"http://127.0.0.1:{port}/?key=secret")
    assert not result.ok
    assert result.found.startswith("127.0.0.1 cannot be reached: ")
    assert "secret" not in repr(result)


@pytest.fixture
async def raw():
    """A server that says what it is told to, as bytes, and closes the connection or leaves it open."""
    servers = []

    async def start(answer: bytes, *, close: bool = True, context: ssl.SSLContext | None = None) -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                await writer.drain()
                if not close:
                    await reader.read()
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        servers.append(await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context))
        scheme = "https" if context is not None else "http"
        return f"{scheme}://127.0.0.1:{servers[-1].sockets[0].getsockname()[1]}/?key=secret"

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (b"", "127.0.0.1 closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "127.0.0.1 answers what is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nrubbish\r\n", "127.0.0.1 answers what is not HTTP"),
    ],
)
async def test_what_is_no_webhook(raw, answer, found):
    """It says what is there instead, and never the whole URL."""
    result = await webhook(await raw(answer))
    assert (result.ok, result.found) == (False, found)
    assert "secret" not in repr(result)


@pytest.mark.parametrize(
    ("answer", "details"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", ()),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nwell", ("well",)),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000, ("x" * 199 + "…",)),
    ],
    ids=["nothing comes", "it stops in the middle", "much comes"],
)
async def test_its_status_counts_whatever_becomes_of_its_body(raw, monkeypatch, answer, details):
    """What it says besides is shown if it comes soon."""
    monkeypatch.setattr(hooks, "FIRST_WORDS", 0.1)
    result = await webhook(await raw(answer, close=False))
    assert (result.ok, result.found, result.details) == (True, "200 from 127.0.0.1", details)


async def test_nobody_unpacks_what_it_says(raw):
    """A few bytes may be gigabytes."""
    packed = gzip.compress(b"\n" * 10_000_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    result = await webhook(await raw(head + packed))
    assert result.ok
    assert sum(map(len, result.details)) <= KEPT


async def test_a_certificate_that_is_not_believed(raw, tmp_path):
    """A webhook may do things, and is told things: it has to be who it is meant to be."""
    files = Authority().issue(tmp_path, "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    result = await webhook(await raw(b"HTTP/1.1 204 No Content\r\n\r\n", context=context))
    assert not result.ok
    assert result.found.startswith("127.0.0.1 shows a certificate that is not believed: ")
    assert "secret" not in repr(result)


async def test_a_cancelled_call_leaves_nothing(hook):
    """No task, no connection: an abort is no reason to wait for a webhook."""
    url, got, answer = hook
    answer["status"] = 0
    before = asyncio.all_tasks()
    task = asyncio.create_task(webhook(url))
    await eventually_async(lambda: got)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually_async(
        lambda: not any(it is not task and "webhook" in repr(it) for it in asyncio.all_tasks() - before)
    )
