"""The report and its verdicts, from results that are made up."""

from __future__ import annotations

from bench.report import table, write
from bench.targets import judge


def spread(value):
    return {"median": value, "low": value * 0.9, "high": value * 1.1, "count": 3}


def proxy(cost, ratio):
    numbers = {"cost": spread(cost), "rate": spread(1e6 / cost), "core": spread(0.9), "ratio": spread(ratio)}
    return numbers | {"errors": 0, "bad": 0}


def result(**groups):
    return {
        "at": "2026-01-01T00:00:00Z",
        "seconds": 9,
        "machine": {"processor": "any", "cores": 2, "memory_gib": 4, "kernel": "6", "python": "3.11"},
        "versions": {"nginx": "1.22"},
        "left_out": {"caddy": "no caddy on this machine"},
        "settings": {"rounds": 3, "seconds": 2.0, "proxy_cores": "0", "load_cores": "1", "load_average": 0.1},
        "groups": groups,
    }


COST = {
    "get": {
        "title": "GET",
        "unit": "µs/request",
        "connections": 64,
        "command": "python benchmarks/run.py cost --only get",
        "proxies": {"nginx": proxy(20, 1), "bgproxy": proxy(18, 0.9), "envoy": proxy(100, 5)},
    }
}


def verdicts(result):
    return {(target.figure, target.build): word for target, _, word in judge(result)}


def test_verdicts():
    """Over its limit is missed, at it is met, and what was not measured says so."""
    found = verdicts(result(cost=COST))
    assert found["CPU a small request whose headers repeat, to nginx", "bgproxy"] == "missed"
    assert found["CPU a small request whose headers repeat, to Envoy", "bgproxy"] == "met"
    assert found["CPU a small request whose headers repeat, to Caddy", "bgproxy"] == "not measured"


def test_a_point_of_the_scale_is_found_by_its_value():
    """The one with 1,000 services, not the thousandth of a list; one that failed is not measured."""
    points = [{"value": 1, "ratio": spread(1)}, {"value": 1000, "ratio": spread(1.1)}]
    figure = "CPU a request with 1,000 services, to one (whole tree, checks and all)", "bgproxy"
    assert verdicts(result(scale={"services": {"proxies": {"bgproxy": points}}}))[figure] == "met"
    points[1] = {"value": 1000, "failed": "it did not start"}
    assert verdicts(result(scale={"services": {"proxies": {"bgproxy": points}}}))[figure] == "not measured"


def test_it_is_written(tmp_path):
    """Report and plot, each figure with its command, and who was left out."""
    names = [path.name for path in write(result(cost=COST), tmp_path)]
    text = (tmp_path / "report.md").read_text()
    assert names == ["report.md", "cost-get.svg"]
    assert "`python benchmarks/run.py cost --only get`" in text
    assert "left out: caddy" in text
    assert "| bgproxy | 18.0 (16.2\u201319.8) | 0.90 (0.81\u20130.99) |" in text


def test_table():
    """A head, a rule, rows and an empty line."""
    assert list(table(("a", "b"), [("1", "2")])) == ["| a | b |", "|---|---|", "| 1 | 2 |", ""]
