"""What the controller counts of its own doing."""

from __future__ import annotations

from bgproxy.control.tallies import Durations, Tallies


def test_a_duration_counts_for_the_first_bound_that_is_not_below_it():
    """Bounds are inclusive, as Prometheus has them; what is above all of them is counted last."""
    durations = Durations((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.11, 7.0):
        durations.observe(seconds)
    assert durations.counts == [2, 1, 1]
    assert durations.total == 0.05 + 0.1 + 0.11 + 7.0


def test_each_service_has_its_own_tallies():
    """And they go when it goes."""
    tallies = Tallies()
    tallies.changed("shop", "switched", 0.001)
    tallies.changed("shop", "refused")
    tallies.changed("api", "rolled_back", 0.002)
    tallies.drained("shop", 3.0)
    tallies.deployed("shop", "succeeded")
    tallies.deployed("api", "failed")
    tallies.mismatched("shop", "green")
    tallies.mismatched("api", "green")
    assert tallies.changes == {("shop", "switched"): 1, ("shop", "refused"): 1, ("api", "rolled_back"): 1}
    assert sum(tallies.switch_seconds["shop"].counts) == 1
    assert tallies.drain_seconds["shop"].total == 3.0
    tallies.forget("shop")
    assert tallies.changes == {("api", "rolled_back"): 1}
    assert tallies.deployments == {("api", "failed"): 1}
    assert tallies.mismatches == {("api", "green"): 1}
    assert "shop" not in tallies.switch_seconds
    assert "shop" not in tallies.drain_seconds
