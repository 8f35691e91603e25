"""Following a deployment, on a terminal and elsewhere."""

from __future__ import annotations

import io
import json
import os
import sys

import pytest
from support.fake_admin import deployment, problem, result

from bgproxy.cli.client import ApiError, Client
from bgproxy.cli.exits import UnreachableError
from bgproxy.cli.following import PATIENCE, Follower, standing_by
from bgproxy.cli.sinks import EVERY, Lines, Quiet, Screen, sink_of

PATH = "/v1/deployments/3"


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def play(admin, *snapshots):
    """The API answers with these, one after the other, the last for ever."""
    left = list(snapshots)

    def answer():
        shown = left.pop(0) if len(left) > 1 else left[0]
        return shown if isinstance(shown, tuple) else (200, shown)

    admin.script["GET", PATH] = answer


def follow(sink=None, clock=None, **more):
    clock = clock or Clock()
    follower = Follower(Client.of(None), sink or Lines(clock.now), now=clock.now, sleep=clock.sleep)
    return follower.follow(3, **more)


def far(text, share=None, **figures):
    return {"share": share, "text": text, "figures": figures}


def test_each_stage_and_each_result_is_a_line(admin, capsys):
    """In the order in which they came, each once; what failed with what was expected, and its details."""
    healthy = result("verifying", "healthy", found="2 of 2", seconds=0.3)
    cart = result("verifying", "cart", ok=False, expected="status 200", found="status 500", details=["<body>"])
    play(
        admin,
        deployment(),
        deployment("verifying", results=[healthy]),
        deployment("verifying", results=[healthy]),
        deployment("verifying", "failed", results=[healthy, cart], outcome="cart"),
    )
    answer = follow()
    assert answer.data["state"] == "failed"
    assert capsys.readouterr().out.splitlines() == [
        "verifying",
        "  ok healthy: 2 of 2 (300 ms)",
        "  FAILED cart: expected status 200, found status 500",
        "      <body>",
    ]


def test_a_cause_that_a_check_has_said_is_not_said_again(admin, capsys):
    """It has the same details; one with others is shown."""
    cart = result("verifying", "cart", ok=False, found="500", details=["body"])
    cause = result("verifying", "cause", ok=False, found="cart: 500", details=["body"])
    other = result("verifying", "cause", ok=False, found="down", details=["refused"])
    play(admin, deployment("verifying", "failed", results=[cart, cause, other]))
    follow()
    assert capsys.readouterr().out.splitlines() == [
        "verifying",
        "  FAILED cart: 500",
        "      body",
        "  FAILED cause: down",
        "      refused",
    ]


def test_why_it_goes_back_is_said_once_before_the_outcome(admin, capsys):
    """By the rule that was broken; or, where nothing was found, behind the state."""
    rule = result("baking", "bake.errors.max", ok=False, found="5% failed")
    back = deployment("baking", "rolling_back", "rolled_back", results=[rule])
    back["steps"][2]["why"] = "green: 5% failed"
    play(admin, back)
    follow()
    by_hand = deployment("baking", "rolling_back", "rolled_back")
    by_hand["steps"][2]["why"] = "aborted by bob"
    play(admin, by_hand)
    follow()
    assert capsys.readouterr().out.splitlines() == [
        "baking",
        "  FAILED bake.errors.max: 5% failed",
        "rolling back",
        "baking",
        "rolling back: aborted by bob",
    ]


def test_what_was_missed_between_two_looks_is_told_in_order(admin, capsys):
    """Results stand below their stage, though they are seen when it is over."""
    results = [result("verifying", "a"), result("switching", "b"), result("baking", "c")]
    play(admin, deployment("verifying", "switching", "baking", "draining", "succeeded", results=results))
    follow()
    assert capsys.readouterr().out.split() == [
        "verifying",
        "ok",
        "a",
        "switching",
        "ok",
        "b",
        "baking",
        "ok",
        "c",
        "draining",
    ]


def test_progress_is_a_line_now_and_then(admin, capsys):
    """Not at once, and not twice the same; in a long stage less and less often."""
    clock = Clock()
    end = clock.time + 8 * EVERY
    admin.script["GET", PATH] = lambda: (
        200,
        deployment("baking", progress=far(f"at {clock.time // EVERY:.0f}", 0.25))
        if clock.time < end
        else deployment("baking", "succeeded"),
    )
    follow(clock=clock)
    assert capsys.readouterr().out.splitlines() == ["baking", *(f"  at {ten} (25%)" for ten in (11, 12, 14))]


def test_a_stage_that_begins_anew_after_a_crash_shows_its_results_again(admin, capsys):
    """They were not on the disk; nothing that came before them is repeated."""
    one, two = result("verifying", "a", seconds=0.1), result("verifying", "b")
    again = result("verifying", "a", seconds=0.2)
    play(
        admin,
        deployment("verifying", results=[one, two]),
        deployment("verifying", results=[again]),
        deployment("verifying", "failed", results=[again, two]),
    )
    follow()
    assert capsys.readouterr().out.splitlines() == [
        "verifying",
        "  ok a (100 ms)",
        "  ok b",
        "verifying begins anew, since bgproxy was restarted",
        "  ok a (200 ms)",
        "  ok b",
    ]


def test_a_restart_of_the_controller_is_survived(admin, capsys):
    """Whether nothing answers, something else does, or the controller is still starting."""
    starting = problem(503, "unavailable", "still starting")
    play(admin, deployment("baking"), (200, b"?"), starting, starting, deployment("baking", "succeeded"))
    assert follow().data["state"] == "succeeded"
    assert capsys.readouterr().out.splitlines() == [
        "baking",
        "the admin API is away; the deployment goes on, trying again",
    ]


def test_an_api_that_stays_away(admin):
    """After a minute it is given up, and said what is known."""
    play(admin, deployment("baking"), (200, b"?"))
    clock = Clock()
    with pytest.raises(UnreachableError, match=r"3 goes on by itself, but it is out of sight[^`]*`bgproxy follow 3`"):
        follow(clock=clock)
    assert clock.time == pytest.approx(100 + PATIENCE, abs=1.0)


def test_an_api_that_refuses_is_not_asked_again(admin):
    """A token that was taken away is no restart."""
    play(admin, problem(401, "unauthorized", "no"))
    with pytest.raises(ApiError):
        follow()


def test_who_must_type_what(admin, capsys):
    """Said once for each stage that waits, through a restart; in the bake with the reason."""
    play(
        admin,
        deployment("awaiting_approval", waits=True, progress=far("waits for `bgproxy approve`")),
        deployment("awaiting_approval"),
        deployment("awaiting_approval", waits=True, progress=far("waits for `bgproxy approve`")),
        deployment("awaiting_approval", "baking"),
        deployment("awaiting_approval", "baking", waits=True, progress=far("waits for `bgproxy approve`: only 3 came")),
        deployment("awaiting_approval", "baking", "succeeded"),
    )
    follow()
    asks = "deployment 3 waits for an operator: `bgproxy approve 3` lets it go on, `bgproxy abort 3` ends it"
    assert capsys.readouterr().out.splitlines() == [
        "awaiting approval",
        asks,
        "baking",
        "deployment 3 waits for `bgproxy approve`: only 3 came",
        asks,
    ]


def test_the_stand_by_is_not_waited_for_unless_asked(admin):
    """It has passed all that can fail it; its command, once called, is waited for."""
    standing = deployment("retiring", progress=far("stands by", 0.1, left=1700.0))
    play(admin, deployment("retiring"), standing, deployment("retiring", "succeeded"))
    assert follow(retired=False).data["state"] == "retiring"
    assert standing_by(standing) == 1700.0
    play(admin, deployment("retiring", progress=far("retires blue")), deployment("retiring", "succeeded"))
    assert follow(retired=False).data["state"] == "succeeded"
    play(admin, standing, deployment("retiring", "succeeded"))
    assert follow().data["state"] == "succeeded"


def test_what_is_there_already_can_be_left_out(admin, capsys):
    """For who comes later."""
    before = deployment("verifying", "baking", results=[result("verifying", "a")])
    play(admin, deployment("verifying", "baking", "rolling_back", "rolled_back", results=[result("verifying", "a")]))
    clock = Clock()
    follower = Follower(Client.of(None), Lines(clock.now), now=clock.now, sleep=clock.sleep)
    follower.skip(before)
    follower.follow(3)
    assert capsys.readouterr().out == "rolling back\n"


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 60 columns and 10 lines."""
    out = Terminal()
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_, **__: os.terminal_size((60, 10)))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    return out


def figures(rate):
    return {"rate": rate, "errors": 0.0, "p50": 0.01, "p99": 0.02, "in_flight": {}}


def snapshots():
    progress = far("bakes: green 12/s", 0.5, pools={"blue": figures(0.0), "green": figures(12.0)}, left=3.0)
    cart = result("verifying", "cart", found="status 200")
    rule = result("baking", "bake.errors", ok=False, found="5% errors", details=["\x1b[31mred"])
    return [
        deployment("verifying", results=[cart]),
        deployment("verifying", "baking", results=[cart], progress=progress),
        deployment("verifying", "baking", "rolling_back", "rolled_back", results=[cart, rule]),
    ]


def test_a_terminal_keeps_what_is_over_and_redraws_the_rest(admin, terminal):
    """A mark, the duration and the results of each stage; a bar, the text and both pools' figures of the present one."""
    play(admin, *snapshots())
    follow(Screen(terminal))
    shown = terminal.getvalue()
    assert "\x1b[31m" not in shown
    assert "    [==========>         ] 50%, 3.0 s left\x1b[K\n    bakes: green 12/s\x1b[K\n" in shown
    assert "    green  12.0/s  0% errors  p50 10 ms  p99 20 ms  nothing" in shown
    assert left_on_screen(shown) == [
        "✓ verifying  1.0 s",
        "    ✓ cart: status 200",
        "✗ baking  1.0 s",
        "    ✗ bake.errors: 5% errors",
        "        ?[31mred",
        "✓ rolling back  1.0 s",
    ]


def test_a_narrow_terminal_is_not_wrapped(admin, terminal, monkeypatch):
    """A line that wraps would not be redrawn whole: each is cut."""
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_, **__: os.terminal_size((20, 4)))
    play(admin, *snapshots())
    follow(Screen(terminal))
    redrawn = [line.removesuffix("\x1b[K") for line in terminal.getvalue().split("\n") if line.endswith("\x1b[K")]
    assert redrawn
    assert all(len(strip(line)) <= 19 for line in redrawn)
    assert left_on_screen(terminal.getvalue())[0] == "✓ verifying  1.0 s"


def test_colours(admin, terminal, monkeypatch):
    """Marks are coloured, unless NO_COLOR is set."""
    play(admin, *snapshots())
    follow(Screen(terminal))
    assert "\x1b[32m" not in terminal.getvalue()
    monkeypatch.delenv("NO_COLOR")
    play(admin, *snapshots())
    follow(Screen(terminal))
    assert "\x1b[32m✓\x1b[0m" in terminal.getvalue()
    assert "\x1b[31m✗\x1b[0m" in terminal.getvalue()


def test_a_terminal_that_knows_no_marks(admin, terminal, monkeypatch):
    """They are words then."""
    monkeypatch.setattr(Terminal, "encoding", "iso-8859-1")
    play(admin, *snapshots())
    follow(Screen(terminal))
    assert left_on_screen(terminal.getvalue())[0] == "ok verifying  1.0 s"
    assert "✓" not in terminal.getvalue()


def test_a_terminal_says_that_the_api_is_away(admin, terminal):
    """In the place of the stage, and it is gone when it is back."""
    play(admin, deployment("baking"), (200, b"?"), deployment("baking", "succeeded"))
    follow(Screen(terminal))
    assert "  the admin API is away; the deployment goes on" in terminal.getvalue()
    assert left_on_screen(terminal.getvalue()) == ["✓ baking  1.0 s"]


def test_what_suits_the_output(monkeypatch, terminal):
    """Redrawn on a terminal; lines elsewhere, and on one that cannot move its cursor; nothing with --json."""
    monkeypatch.setattr(sys, "stdout", terminal)
    assert isinstance(sink_of(), Screen)
    assert isinstance(sink_of(json=True), Quiet)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(sink_of(), Lines)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert isinstance(sink_of(), Lines)


def test_quiet_is_quiet(admin, capsys):
    """And the answer is the API's."""
    play(admin, *snapshots())
    answer = follow(Quiet())
    assert capsys.readouterr().out == ""
    assert json.loads(answer.text) == snapshots()[-1]


def strip(text):
    for code in ("\x1b[J", "\x1b[K", "\r"):
        text = text.replace(code, "")
    return text.split("A", 1)[1] if text.startswith("\x1b[") else text


def left_on_screen(text):
    """What stands on the terminal in the end: a small interpreter of what is written to it."""
    lines, at = [""], 0
    i = 0
    while i < len(text):
        if text[i] == "\x1b":
            end = i + 2
            while text[end].isdigit() or text[end] == ";":
                end += 1
            number, what = text[i + 2 : end], text[end]
            if what == "A":
                at -= int(number)
                assert at >= 0
            elif what == "J":
                lines[at:] = [""]
            i = end + 1
            continue
        if text[i] == "\n":
            at += 1
            if at == len(lines):
                lines.append("")
        elif text[i] == "\r":
            lines[at] = ""
        else:
            lines[at] += text[i]
        i += 1
    return [line for line in lines if line]
