"""Commands and webhooks, as a deployment calls them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
import uvloop
from aiohttp import web
from support.deployments import make_hands, make_run
from support.waiting import eventually_async

from bgproxy.control.deployments import hooks
from bgproxy.control.deployments.hooks import KEPT_OUTPUT, call


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """What is ended is not given long."""
    monkeypatch.setattr(hooks, "GRACE", 0.3)
    monkeypatch.setattr(hooks, "LAST_WORDS", 0.1)


async def command(text: str, *, run=None, timeout=10.0, **how):  # noqa: ASYNC109
    return await call(
        run or make_run("http://127.0.0.1:9002"),
        run_command=text,
        timeout=timeout,
        stage="verifying",
        name="tests",
        **how,
    )


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # Ended, and not yet asked about by whoever adopted it.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


# --- commands -------------------------------------------------------------------------------------------------------------


async def test_a_command_that_ends_well():
    """Its output is kept, and how long it took."""
    result = await command("echo one; echo two >&2; exit 0")
    assert (result.ok, result.expected, result.found) == (True, "status 0", "status 0")
    assert result.details == ("one", "two")
    assert (result.stage, result.name) == ("verifying", "tests")
    assert 0 < result.seconds < 5


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("echo no cart; exit 3", "status 3"),
        ("there-is-no-such-program", "status 127"),
        ("kill -9 $$", "ended by SIGKILL"),
    ],
)
async def test_any_other_end_is_a_failure(text, found):
    """The status is told, or the signal."""
    result = await command(text)
    assert (result.ok, result.found) == (False, found)


async def test_it_gets_the_deployment_as_json_and_as_variables():
    """On its standard input, and in its environment."""
    run = make_run("http://127.0.0.1:9002", "http://127.0.0.1:9003")
    result = await command(
        'cat; echo; echo "$BGPROXY_SERVICE $BGPROXY_DEPLOYMENT $BGPROXY_TARGET $BGPROXY_UPSTREAMS"', run=run
    )
    said, variables = result.details
    assert variables == "shop 7 green http://127.0.0.1:9002 http://127.0.0.1:9003"
    # A line of a result is cut where it gets long.
    assert said.startswith('{"id": 7, "service": "shop", "state": "verifying", "target": "green"')
    result = await command(
        "python3 -c 'import json,sys; print(json.load(sys.stdin)[\"preview_header\"])'".replace(
            "python3", sys.executable
        ),
        run=run,
    )
    assert result.details == ("X-BGProxy-Pool: green",)


async def test_the_environment_is_the_one_that_the_controller_gives():
    """So that tokens can be left out of it."""
    run = make_run(
        "http://127.0.0.1:9002", hands=make_hands(environment=lambda: {"PATH": os.environ["PATH"], "KNOWN": "yes"})
    )
    result = await command("env", run=run)
    names = {line.partition("=")[0] for line in result.details if "=" in line}
    assert "KNOWN" in names
    assert not {"HOME", "USER", "BGPROXY_TOKEN"} & names


async def test_a_command_that_does_not_read_is_fine():
    """Nor one that closes its input at once, however much is said."""
    run = make_run(*(f"http://127.0.0.1:{port}" for port in range(10000, 14000)))
    result = await command("exec <&-; echo deaf", run=run)
    assert (result.ok, result.details) == (True, ("deaf",))


async def test_much_output_is_cut_and_not_kept():
    """Megabytes without a line's end, too; and bytes that are no text are shown as such."""
    result = await command("head -c 5000000 /dev/zero | tr '\\0' x; printf '\\n\\033[31m\\377end\\n'")
    assert result.ok
    assert len(result.details) == 2
    assert result.details[1].endswith("end")
    assert sum(map(len, result.details)) <= KEPT_OUTPUT
    assert all(line.isprintable() for line in result.details)


async def test_its_lines_are_shown_as_they_come():
    """The last one of each time, as progress."""
    run = make_run("http://127.0.0.1:9002")
    await command("echo building; sleep 0.05; echo testing", run=run)
    assert run.tell.lines == ["tests: building", "tests: testing"]


async def test_what_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    """Also what does not listen to SIGTERM, and is somebody else's child by now."""
    pids = tmp_path / "pids"
    result = await command(
        f"(trap '' TERM; echo $$ >> {pids}; sleep 60) & echo $! >> {pids}; trap '' TERM; sleep 60", timeout=0.3
    )
    assert (result.ok, result.found) == (False, "it did not end within 300ms, and was ended")
    for pid in map(int, pids.read_text().split()):
        await eventually_async(lambda pid=pid: gone(pid), what=f"{pid} is gone")


async def test_a_cancelled_call_leaves_no_process(tmp_path):
    """An abort, a time-out of the stage, the end of the controller."""
    pids = tmp_path / "pids"
    task = asyncio.create_task(command(f"echo $$ > {pids}; sleep 60"))
    await eventually_async(lambda: pids.exists() and pids.read_text().strip())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually_async(lambda: gone(int(pids.read_text())))


async def test_what_it_leaves_running_is_not_waited_for(tmp_path):
    """A provisioning may start servers that outlive it, and hold its output open."""
    pids = tmp_path / "pids"
    result = await command(f"sleep 60 & echo $! > {pids}; echo started")
    assert (result.ok, result.details) == (True, ("started",))
    assert result.seconds < 5
    pid = int(pids.read_text())
    assert not gone(pid)
    os.kill(pid, signal.SIGKILL)


async def test_it_has_no_descriptor_and_no_signal_of_ours():
    """Listening sockets least of all; and signals are as a shell expects them."""
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        result = await command("ls /proc/self/fd | wc -l; grep SigIgn /proc/self/status")
    count, ignored = result.details
    assert int(count) <= 4  # three, and the one that ls reads the directory by
    assert int(ignored.split()[1], 16) & (1 << signal.SIGPIPE - 1) == 0


def test_the_same_on_uvloop(tmp_path):
    """Which the controller runs on."""

    async def main():
        good = await command("cat > /dev/null; echo well")
        late = await command("sleep 60", timeout=0.2)
        hidden = await command("ls /proc/self/fd | wc -l; grep SigIgn /proc/self/status")
        return good, late, hidden

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        good, late, hidden = runner.run(main())
    assert (good.ok, good.details) == (True, ("well",))
    assert (late.ok, late.found) == (False, "it did not end within 200ms, and was ended")
    assert int(hidden.details[0]) <= 4
    assert int(hidden.details[1].split()[1], 16) & (1 << signal.SIGPIPE - 1) == 0


# --- webhooks -------------------------------------------------------------------------------------------------------------


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
