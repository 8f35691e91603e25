"""The report: Markdown and plots from the results' JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import svg
from bench.targets import judge

Result = dict[str, Any]


def write(result: Result, folder: Path) -> list[Path]:
    """report.md and the plots; what was written."""
    written = []
    plots: dict[str, str] = {}
    for name in ("get", "changing", "new", "body-1m"):
        found = result["groups"].get("cost", {}).get(name)
        if found:
            plots[f"cost-{name}.svg"] = svg.bars(f"CPU: {found['title']}", found["unit"], _bars(found))
    timed = result["groups"].get("switch", {}).get("second", {}).get("proxies", {})
    panels = [svg.Panel(name, found["points"]) for name, found in timed.items() if found["points"]]
    if panels:
        plots["switch.svg"] = svg.timeline("Latency across a switch, under load at half of capacity", panels)
    for name, text in plots.items():
        (folder / name).write_text(text)
        written.append(folder / name)
    (folder / "report.md").write_text("\n".join(lines(result, list(plots))) + "\n")
    return [folder / "report.md", *written]


def _bars(found: Result) -> list[svg.Bar]:
    rows = [
        svg.Bar(name, each["cost"]["median"], each["cost"]["low"], each["cost"]["high"])
        for name, each in found["proxies"].items()
    ]
    return sorted(rows, key=lambda row: row.value)


def lines(result: Result, plots: Sequence[str]) -> Iterator[str]:
    """The report, a line at a time."""
    groups, settings, machine = result["groups"], result["settings"], result["machine"]
    yield "# What was measured"
    yield ""
    yield (
        f"{result['at']}, in {result['seconds']} s: {settings['rounds']} rounds of {settings['seconds']:g} s each, medians, "
        f"with the smallest and the largest in brackets. {machine['processor']}, {machine['cores']} cores, Linux "
        f"{machine['kernel']}; the proxy on core {settings['proxy_cores']}, load and back end on core "
        f"{settings['load_cores']}; load average at the start {settings['load_average']:.2f}. "
        "[README](../README.md) says what the figures mean. Only the ratios travel to other machines."
    )
    yield ""
    yield from (f"- {name}: {said}" for name, said in result["versions"].items())
    yield from (f"- left out: {name}: {why}" for name, why in result["left_out"].items())
    yield from (f"- the group {name} failed: {why}" for name, why in result.get("failed", {}).items())
    yield ""
    yield from _targets(result)
    for part, write_part in PARTS.items():
        if groups.get(part):
            shown = [plot for plot in plots if plot.startswith(part)]
            yield from (f"![{plot}]({plot})\n" for plot in shown)
            yield from write_part(groups[part])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A Markdown table and the empty line behind it."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "|".join("---" for _ in head) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _spread(found: Result | None, digits: int = 2) -> str:
    if not found:
        return "–"
    low, middle, high = (_number(found[key], digits) for key in ("low", "median", "high"))
    return f"{middle} ({low}–{high})"


def _targets(result: Result) -> Iterator[str]:
    yield "## Targets"
    yield ""
    rows = [
        (target.figure, target.build, f"≤ {target.limit:g} {target.unit}".strip(), _number(value), f"**{word}**")
        for target, value, word in judge(result)
        if value is not None
    ]
    yield from table(("figure", "build", "target", "measured", ""), rows)


def _cost(group: Result) -> Iterator[str]:
    yield "## Cost"
    yield ""
    for found in group.values():
        yield f"**{found['title']}** ({found['connections']} connections): `{found['command']}`"
        yield ""
        unit = found["unit"].split("/")[1]
        rows = [
            (
                name,
                _spread(each["cost"], 1),
                _spread(each["ratio"]),
                _number(each["rate"]["median"], 0),
                f"{each['core']['median']:.0%}",
                str(each["errors"] + each["bad"]),
            )
            for name, each in sorted(found["proxies"].items(), key=lambda item: item[1]["cost"]["median"])
        ]
        yield from table(
            (
                "proxy",
                f"CPU {found['unit']}",
                "× nginx",
                f"{unit}/s" if unit == "MiB" else f"{unit}s/s",
                "of its core",
                "errors",
            ),
            rows,
        )


def _latency(found: Result | None) -> str:
    if not found:
        return "–"
    return " · ".join(_number(found[key]) for key in ("p50", "p99", "p999", "max"))


def _switch(group: Result) -> Iterator[str]:
    yield "## Switch"
    yield ""
    titles = {"second": "A switch every second", "storm": "Ten switches a second"}
    for name, title in titles.items():
        if name not in group:
            continue
        yield f"**{title}**: `{group[name]['command']}`. Latencies in ms: p50 · p99 · p99.9 · maximum."
        yield ""
        rows = [
            (
                proxy,
                _number(each["rate"], 0),
                str(each["switches"]),
                _latency(each["near"]),
                _latency(each["away"]),
                _latency(each["prober"]["near"]),
                f"{each['errors']} of {each['requests']:,}",
                _number(each["closed_a_switch"]),
                _number(each["call_ms"]["p50"]),
                _spread(each["last_on_old_ms"]),
            )
            for proxy, each in group[name]["proxies"].items()
        ]
        head = (
            "proxy",
            "requests/s",
            "switches",
            "250 ms after a call",
            "away from calls",
            "250 ms after, the prober's",
        )
        more = ("errors", "closed a switch, of 16", "the call, ms", "last request on the old pool, ms after the call")
        yield from table((*head, *more), rows)
    if "calm" in group:
        yield f"**Nothing in flight**: `{group['calm']['command']}`"
        yield ""
        rows = [
            (proxy, each["way"], _number(each["call_ms"]["p50"]), _spread(each["last_on_old_ms"]))
            for proxy, each in group["calm"]["proxies"].items()
        ]
        yield from table(
            ("proxy", "switched by", "the call, ms", "last request on the old pool, ms after the call"), rows
        )


def _scale(group: Result) -> Iterator[str]:
    yield "## Scale"
    yield ""
    for axis, found in group.items():
        yield f"**{axis}**: `{found['command']}`"
        yield ""
        rows = [
            (
                name,
                f"{point['value']:,}",
                _spread(point["cost"], 1),
                _spread(point["ratio"]),
                _number(point["worker_cost"]["median"], 1) if "worker_cost" in point else "–",
                f"{point['resting_core']['median']:.1%}" if "resting_core" in point else "–",
                _number(point["pss_bytes"]["median"] / (1 << 20), 1),
            )
            for name, points in found["proxies"].items()
            for point in points
            if "failed" not in point
        ]
        head = ("proxy", axis, "CPU µs/request", "× the first", "of it the workers'", "core at rest", "PSS MiB")
        yield from table(head, rows)
        for name, points in found["proxies"].items():
            yield from (f"{name}, {p['value']:,} {axis}: failed: {p['failed']}\n" for p in points if "failed" in p)


def _memory(group: Result) -> Iterator[str]:
    yield "## Memory"
    yield ""
    yield f"`{group['command']}`: {group['connections']:,} idle connections, {group['websockets']:,} idle WebSockets."
    yield ""
    rows = [
        (
            name,
            _number(each["rest_bytes"] / (1 << 20), 1),
            _number(each["connection_bytes"] / 1024),
            _number(each["websocket_bytes"] / 1024 if each["websocket_bytes"] is not None else None),
        )
        for name, each in group["proxies"].items()
    ]
    head = ("proxy", "at rest, MiB (PSS of the tree)", "an idle connection, KiB", "an idle WebSocket, KiB")
    yield from table(head, rows)


def _mirror(group: Result) -> Iterator[str]:
    yield "## Mirror"
    yield ""
    yield f"`{group['command']}`: all live requests mirrored to a pool that never answers, against none, in turns."
    yield ""
    rows = [
        (
            name,
            _number(each["rate"], 0),
            _spread(each["off"]["p99"]),
            _spread(each["on"]["p99"]),
            _spread(each["p99_ratio"]),
            f"{each['mirrored']:,} of {each['mirrored'] + each['dropped']:,}",
            str(each["errors"]),
            _spread({key: value / (1 << 20) for key, value in each["on"]["pss_bytes"].items()}, 1),
        )
        for name, each in group["proxies"].items()
    ]
    head = ("proxy", "requests/s", "p99 off, ms", "p99 on, ms", "ratio", "mirrored", "errors", "workers, PSS MiB")
    yield from table(head, rows)


PARTS = {"cost": _cost, "switch": _switch, "scale": _scale, "memory": _memory, "mirror": _mirror}
