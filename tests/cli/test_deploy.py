"""The verb `deploy` against an admin API on a real socket."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.fake_admin import LOST, deployment, problem, service
from support.waiting import eventually

import bgproxy
from bgproxy.cli import following, repeating
from bgproxy.cli.main import main

POST = ("POST", "/v1/services/shop/deployments")
GET = ("GET", "/v1/deployments/3")
PLAN = [
    "shop: blue 1.0 -> green 2.0, all-at-once",
    "  green: http://127.0.0.1:9002",
    "  stages: verify, switch, bake, drain",
]


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(following, "POLL", 0.001)
    monkeypatch.setattr(repeating, "POLL", 0.001)


def ends(admin, *states, **more):
    admin.script[POST] = lambda: (200, deployment())
    admin.script[GET] = lambda: (200, deployment(*states, **more))


def posted(admin):
    return next(body for method, _, _, body in admin.requests if method == "POST")


def test_it_says_what_it_does_follows_and_ends_with_the_outcome(admin, capsys):
    """Plain lines where no terminal is; nobody is asked."""
    ends(admin, "verifying", "switching", "baking", "draining", "succeeded", outcome="green is live")
    assert main(["deploy", "--reason", "release"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        *PLAN,
        "deployment 3 has begun",
        "verifying",
        "switching",
        "baking",
        "draining",
        "shop: deployment 3 succeeded after 5.0 s: green is live",
    ]
    assert posted(admin) == {"reason": "release"}


def test_all_that_is_typed_is_sent_and_shown(admin, capsys):
    """Version, upstreams, strategy; a pool that is set is provisioned."""
    ends(admin, "succeeded")
    typed = [
        "--version",
        "2.1",
        "--upstream",
        "http://a:1",
        "--upstream",
        "http://b:1",
        "--strategy",
        "canary",
        "--yes",
    ]
    assert main(["deploy", "shop", *typed]) == 0
    assert posted(admin) == {"version": "2.1", "upstreams": ["http://a:1", "http://b:1"], "strategy": "canary"}
    assert capsys.readouterr().out.splitlines()[:3] == [
        "shop: blue 1.0 -> green 2.1, canary",
        "  green: http://a:1, http://b:1",
        "  stages: provision, verify, switch, bake, drain",
    ]


@pytest.mark.parametrize(
    ("states", "status"),
    [
        (["switching", "succeeded"], 0),
        (["verifying", "failed"], 1),
        (["switching", "baking", "rolling_back", "rolled_back"], 1),
        (["verifying", "aborted"], 1),
    ],
)
def test_the_exit_status_is_the_outcome(admin, capsys, states, status):
    """And the last line says it, with the cause."""
    ends(admin, *states, outcome="the cause")
    assert main(["deploy"]) == status
    assert capsys.readouterr().out.splitlines()[-1].endswith(": the cause")


def test_live_and_standing_by_is_a_success(admin, capsys):
    """The rest runs by itself."""
    progress = {"share": 0.0, "text": "stands by", "figures": {"left": 1800.0}}
    ends(admin, "switching", "retiring", progress=progress)
    assert main(["deploy"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "shop: deployment 3: green is live; blue stands by, retire in 30m 0s runs by itself"


def test_the_retirement_can_be_waited_for(admin, capsys):
    """With --wait retired."""
    progress = {"share": 0.0, "text": "stands by", "figures": {"left": 1800.0}}
    looks = [deployment("retiring", progress=progress), deployment("retiring", "succeeded", outcome="green is live")]
    admin.script[POST] = lambda: (200, deployment())
    admin.script[GET] = lambda: (200, looks.pop(0))
    assert main(["deploy", "--wait", "retired"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "shop: deployment 3 succeeded after 2.0 s: green is live"


def test_upstreams_without_an_address_are_upstreams(admin, capsys):
    """A name that does not resolve is a part of the plan."""
    ends(admin, "succeeded")
    lost = {"url": "http://web.invalid", "reason": "name does not resolve"}
    admin.services["shop"]["pools"]["green"].update(upstreams=[], unresolved=[lost])
    main(["deploy"])
    assert capsys.readouterr().out.splitlines()[1] == "  green: http://web.invalid"


def test_no_wait(admin, capsys):
    """It has begun, and nothing more is asked."""
    ends(admin)
    assert main(["deploy", "shop", "--no-wait"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "shop: deployment 3 has begun"
    assert ("GET", "/v1/deployments/3") not in [request[:2] for request in admin.requests]


def test_json_is_the_last_answer_and_nothing_else(admin, capsys):
    """Of the end; with --no-wait, of the beginning."""
    ends(admin, "verifying", "failed")
    assert main(["deploy", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["state"] == "failed"
    assert main(["deploy", "--json", "--no-wait"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "queued"


@pytest.mark.parametrize("slug", ["busy", "refused"])
def test_what_is_refused(admin, capsys, slug):
    """4, with the reason."""
    admin.script[POST] = lambda: problem(409, slug, "deployment 2 is baking")
    assert main(["deploy"]) == 4
    assert capsys.readouterr().err.startswith("bgproxy: deployment 2 is baking\n")


def test_nothing_is_announced_while_another_one_runs(admin, capsys):
    """What would be said of it would be wrong by the time that it could begin."""
    admin.services["shop"]["deployment"] = {"id": 2}
    admin.script[POST] = lambda: problem(409, "busy", "deployment 2 is baking")
    assert main(["deploy"]) == 4
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["shop", "green"], "one service is deployed at a time, not 2: shop green"),
        (["--strategy", "big-bang"], "invalid choice: 'big-bang'"),
        (["--no-wait", "--wait", "retired"], "not allowed with argument"),
        (["--upstrem", "x"], "--upstrem"),
    ],
)
def test_wrong_usage(admin, capsys, words, says):
    """2, before anything is asked of the API."""
    assert main(["deploy", *words]) == 2
    assert says in capsys.readouterr().err
    assert admin.requests == []


def test_a_lost_answer_begins_no_second_one(admin, capsys):
    """It is asked for again with the same key, and the one that has begun is followed."""
    answers = [LOST, (200, deployment())]
    ends(admin, "succeeded", outcome="green is live")
    admin.script[POST] = lambda: answers.pop(0)
    assert main(["deploy", "--version", "2.1"]) == 0
    keys = [headers["Idempotency-Key"] for method, _, headers, _ in admin.requests if method == "POST"]
    assert len(keys) == 2
    assert keys[0] == keys[1]
    assert "the answer of the admin API was lost; asking again" in capsys.readouterr().err


def test_texts_from_elsewhere_cannot_move_the_cursor(admin, capsys):
    """A version, a cause."""
    admin.services["shop"]["pools"]["green"]["version"] = "2\x1b[2J"
    ends(admin, "failed", outcome="\x1b]0;title\x07")
    main(["deploy"])
    assert "\x1b" not in capsys.readouterr().out


def on_a_terminal(admin, *typed, keys=b""):
    """Run the verb in a pseudo-terminal; what it showed, and its exit status."""
    ours, theirs = pty.openpty()
    env = os.environ | {
        "PYTHONPATH": str(Path(bgproxy.__file__).parents[1]),
        "TERM": "xterm",
        "BGPROXY_ADMIN": admin.url,
    }
    command = [sys.executable, "-m", "bgproxy", "deploy", *typed]
    child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True)
    os.close(theirs)
    os.write(ours, keys)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # EIO: nobody has the other end any more
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    return shown.decode(), child.wait(20)


@pytest.mark.parametrize("answer", [b"\n", b"n\n", b"\x04"])
def test_a_terminal_is_asked_and_anything_but_yes_is_no(admin, answer):
    """Nothing was changed then."""
    shown, status = on_a_terminal(admin, keys=answer)
    assert "go on? [y/N]" in shown
    assert "nothing was changed" in shown
    assert status == 1
    assert all(request[0] == "GET" for request in admin.requests)


def test_ctrl_c_at_the_question(admin, monkeypatch, capsys):
    """Nothing was changed, and that is said."""

    def interrupted(_prompt):
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupted)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert main(["deploy"]) == 130
    assert capsys.readouterr().out.splitlines()[-1] == "nothing was changed"
    assert all(request[0] == "GET" for request in admin.requests)


def test_yes_is_to_what_was_shown(admin):
    """If the service changes meanwhile, it is refused: its generation goes along."""
    ends(admin, "verifying", "succeeded", outcome="green is live")
    shown, status = on_a_terminal(admin, keys=b"y\n")
    assert "✓" in shown
    assert "succeeded" in shown
    assert status == 0
    assert next(headers["If-Match"] for method, _, headers, _ in admin.requests if method == "POST") == '"7"'


def test_a_generation_can_be_the_condition(admin):
    """Whoever has looked at one deploys to that, or to nothing."""
    ends(admin, "succeeded")
    assert main(["deploy", "--if-generation", "6"]) == 0
    assert next(headers["If-Match"] for method, _, headers, _ in admin.requests if method == "POST") == '"6"'


def test_the_help_has_what_ctrl_c_does_and_every_exit_status(capsys):
    """Whoever writes a job for CI looks there first."""
    assert main(["deploy", "--help"]) == 0
    notes = capsys.readouterr().out.rpartition("\n\n")[2]
    assert notes.startswith("The controller runs it: Ctrl-C ends the following only")
    assert all(f" {status} " in notes.replace("\n", " ") for status in (0, 1, 2, 3, 4, 130))


def test_with_yes_nobody_is_asked(admin):
    """On a terminal either."""
    ends(admin, "succeeded")
    shown, status = on_a_terminal(admin, "--yes")
    assert "go on?" not in shown
    assert status == 0


def test_ctrl_c_leaves_the_deployment_alone(admin):
    """130, and how to end it is said."""
    ends(admin, "baking")
    env = os.environ | {"PYTHONPATH": str(Path(bgproxy.__file__).parents[1])}
    child = subprocess.Popen(
        [sys.executable, "-m", "bgproxy", "deploy", "--admin", admin.url],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
    )
    eventually(lambda: any(path == "/v1/deployments/3" for _, path, _, _ in admin.requests))
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=20)
    assert err.decode() == (
        f"deployment 3 goes on; `bgproxy follow 3 --admin {admin.url}` shows it again, "
        f"`bgproxy abort 3 --admin {admin.url}` ends it\n"
    )
    assert child.returncode == 130


def test_ctrl_c_before_the_answer(admin, capsys):
    """It may have begun: `status` knows."""

    def interrupted():
        os.kill(os.getpid(), signal.SIGINT)
        return 200, deployment()

    admin.script[POST] = interrupted
    assert main(["deploy"]) == 130
    assert capsys.readouterr().err == "whether the deployment has begun, `bgproxy status` tells\n"


def test_several_services_must_be_told_apart(admin, capsys):
    """As with every verb."""
    admin.services["api"] = service("api")
    assert main(["deploy"]) == 2
    assert "api, shop" in capsys.readouterr().err
