"""A deployment in words."""

from __future__ import annotations

import pytest
from support.fake_admin import deployment, result

from bgproxy.cli.story import (
    bar,
    between,
    briefly,
    figure_lines,
    outcome,
    passed,
    result_lines,
    stage_names,
    story,
    took,
)
from bgproxy.cli.terminal import Paint

PLAIN = Paint(on=False)
MARKS = ("ok", "FAILED")


@pytest.mark.parametrize(
    ("states", "cause", "says"),
    [
        (["switching", "succeeded"], "green is live", "shop: deployment 3 succeeded after 2.0 s: green is live"),
        (
            ["verifying", "failed"],
            "cart: status 500",
            "shop: deployment 3 failed before the switch after 2.0 s: cart: status 500",
        ),
        (["switching", "rolling_back", "failed"], "no", "shop: deployment 3 failed after 3.0 s: no"),
        (
            ["switching", "baking", "rolling_back", "rolled_back"],
            "5% errors",
            "shop: deployment 3 was rolled back after 4.0 s: 5% errors",
        ),
        (["aborted"], "aborted by \x1b[2Jbob", "shop: deployment 3 was aborted after 1.0 s: aborted by ?[2Jbob"),
        (["awaiting_approval"], "", "shop: deployment 3 is awaiting approval"),
    ],
)
def test_every_end_is_one_sentence(states, cause, says):
    """How, after how long, and why."""
    assert outcome(deployment(*states, outcome=cause)) == says


def test_results():
    """Well: what was found. Not well: what was expected too, and the details."""
    good = result("verifying", "cart", found="2 of 2", seconds=0.012, details=["more"])
    bad = result(
        "verifying", "cart", ok=False, expected="status 200", found="status\n500", seconds=1.2, details=["a\x07"]
    )
    assert result_lines(good, PLAIN, marks=MARKS, details=False) == ["ok cart: 2 of 2 (12 ms)"]
    assert result_lines(good, PLAIN, marks=MARKS, details=True) == ["ok cart: 2 of 2 (12 ms)", "    more"]
    assert result_lines(bad, PLAIN, marks=MARKS, details=False) == [
        "FAILED cart: expected status 200, found status?500 (1.2 s)",
        "    a?",
    ]
    bare = result("verifying", "cart", ok=False, expected="it ends")
    assert result_lines(bare, PLAIN, marks=MARKS, details=False) == ["FAILED cart: expected it ends, found nothing"]


def test_figures_of_both_pools():
    """Aligned; a stage that does not watch them has none."""
    flight = {"requests": 2, "streams": 0, "websockets": 0}
    blue = {"rate": 120.0, "errors": 0.0, "p50": 0.01, "p99": 1.5, "in_flight": flight}
    green = {"rate": 3.0, "errors": 0.05, "p50": None, "p99": None, "in_flight": {}}
    assert figure_lines({"pools": {"blue": blue, "green": green}}, PLAIN) == [
        "blue   120.0/s  0% errors  p50 10 ms  p99 1.5 s  2 requests in flight",
        "green    3.0/s  5% errors  p50 -      p99 -      nothing in flight",
    ]
    assert figure_lines({"left": 3}, PLAIN) == []
    green.update(p50=0.0004, p99=0.0099)
    assert "p50 0.4 ms  p99 9.9 ms" in figure_lines({"pools": {"green": green}}, PLAIN)[0]


def test_small_words():
    """Bars, times, stages."""
    assert bar(0) == "[>                   ] 0%"
    assert bar(0.5) == "[==========>         ] 50%"
    assert bar(7) == "[====================] 100%"
    assert (took(0.0123), took(1.24), took(242)) == ("12 ms", "1.2 s", "4m 2s")
    assert (
        stage_names(["verifying", "awaiting_approval", "of_a_later_version"]) == "verify, approval, of a later version"
    )
    assert [passed("baking", then) for then in ("draining", "rolling_back", "failed")] == [True, False, False]
    assert [passed("rolling_back", then) for then in ("rolled_back", "failed")] == [True, False]
    assert between("nonsense") == 0.0
    assert between("2024-01-01T00:00:09Z", "2024-01-01T00:00:00Z") == 0.0


def test_the_whole_story():
    """Who began it, each stage with its results and their details, the end."""
    told = deployment(
        "verifying",
        "failed",
        reason="release",
        upstreams=["http://web\x1b:1"],
        results=[result("verifying", "cart", ok=False, expected="200", found="500", details=["the body"])],
        outcome="cart: 500",
    )
    assert story(told, PLAIN) == [
        "deployment 3 of shop to green 2.0, all-at-once",
        "begun at 2024-01-01T00:00:00.000Z by alice (release)",
        "  http://web?:1",
        "2024-01-01T00:00:01.000Z  verifying (1.0 s) [alice]",
        "  FAILED cart: expected 200, found 500",
        "      the body",
        "shop: deployment 3 failed before the switch after 2.0 s: cart: 500",
    ]


def test_the_story_of_one_under_way():
    """With how far it is."""
    progress = {"share": 0.5, "text": "bakes", "figures": {}}
    assert story(deployment("baking", progress=progress), PLAIN)[-2:] == ["  bakes", "shop: deployment 3 is baking"]


def test_a_cause_that_was_just_found_is_not_given_again():
    """The stage that broke says it, and the last line; not the way back between them."""
    rule = result("baking", "bake.errors.max", ok=False, found="5% of 60 requests failed")
    why = "green: 5% of 60 requests failed"
    told = deployment("baking", "rolling_back", "rolled_back", results=[rule], outcome=why)
    for step in told["steps"][-2:]:
        step["why"] = why
    assert briefly(told["steps"][-1], [])["why"] == why
    assert story(told, PLAIN)[2:] == [
        "2024-01-01T00:00:01.000Z  baking (1.0 s) [alice]",
        "  FAILED bake.errors.max: 5% of 60 requests failed",
        "2024-01-01T00:00:02.000Z  rolling back (1.0 s) [alice]",
        "shop: deployment 3 was rolled back after 3.0 s: green: 5% of 60 requests failed",
    ]
    told["steps"][-2]["why"] = "aborted by bob"
    assert story(told, PLAIN)[4].endswith("rolling back (1.0 s) [alice]: aborted by bob")


def test_who_has_approved_is_said_once():
    """By what the approval has found, and not by the stage that follows it again."""
    told = deployment(
        "awaiting_approval", "switching", results=[result("awaiting_approval", "approval", found="approved by bob")]
    )
    told["steps"][-1]["why"] = "approved by bob"
    assert "approved" not in "".join(line for line in story(told, PLAIN) if "switching" in line)
