"""The status JSON as a page for people: what is live, what is healthy, what a drain still waits for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from bgproxy.cli.drain import waits_for
from bgproxy.cli.story import ended, said
from bgproxy.cli.terminal import Paint, columns
from bgproxy.cli.words import ago, plural, printable
from bgproxy.model.classes import CLASS_NAMES
from bgproxy.model.pool import POOLS

_STATE_STYLES: Final = {
    "live": ("bold", "green"),
    "draining": ("yellow",),
    "idle": ("dim",),
    "up": ("green",),
    "down": ("red",),
    "checking": ("yellow",),
    "maint": ("yellow",),
    "ejected": ("red",),
}
_COUNTS: Final = frozenset({3, 4, 5, 6})  # columns of the table of pools that are numbers


def page(status: Mapping[str, Any], paint: Paint, now: datetime) -> list[str]:
    """The lines of the whole status."""
    workers = status["workers"]
    serving = sum(worker["state"] == "serving" for worker in workers)
    fleet = plural(len(workers), "worker") + (" serving" if serving == len(workers) else f", {serving} serving")
    head = [
        f"{status['program']} {status['version']} ({status['build']})",
        f"up {ago(status['started_at'], now)}",
        fleet if serving == len(workers) else paint(fleet, "red"),
        f"listens on {', '.join(map(printable, status['listeners'])) or 'nothing'}",
    ]
    lines = [" · ".join(head)]
    for service in status["services"]:
        lines += ["", *section(service, paint, now)]
    return lines


def section(service: Mapping[str, Any], paint: Paint, now: datetime) -> list[str]:
    """The lines of one service."""
    lines = [_title(service, paint, now)]
    rows = [
        [
            paint(cell, "dim")
            for cell in ("POOL", "VERSION", "STATE", "REQUESTS", "STREAMS", "WEBSOCKETS", "SESSIONS", "UP")
        ]
    ]
    for name in POOLS:
        pool = service["pools"][name]
        up = sum(_is_up(upstream) for upstream in pool["upstreams"])
        total = len(pool["upstreams"]) + len(pool["unresolved"])
        share = f"{up} of {total}"
        rows.append(
            [
                paint(name, "bold", name),
                printable(pool["version"]) or "-",
                _state(pool["state"], paint),
                *(str(pool["in_flight"][kind]) for kind in CLASS_NAMES),
                str(pool["sessions"]),
                share if up == total else paint(share, "red" if pool["state"] == "live" else "yellow"),
            ]
        )
    lines += [f"  {line}" for line in columns(rows, right=_COUNTS)]
    if service["deployment"] is not None:
        lines += [f"  {line}" for line in _deployment(service["deployment"], paint)]
    elif service.get("last_deployment") is not None:
        lines.append(f"  {_last(service['last_deployment'], paint, now)}")
    if service["share"]:
        canary = POOLS[1 - POOLS.index(service["live"])]
        lines.append(f"  {paint('canary', 'yellow')}: {service['share']}% of the clients go to {canary}")
    for name in POOLS:
        if service["pools"][name]["drain"] is not None:
            lines.append(f"  {paint(f'{name} drains', 'yellow')}: {waits_for(service['pools'][name])}")
    upstreams = [row for name in POOLS for row in _upstreams(name, service["pools"][name], paint, now)]
    lines += [f"  {line}" for line in columns(upstreams)]
    return lines


def _deployment(deployment: Mapping[str, Any], paint: Paint) -> list[str]:
    number, share = deployment["id"], deployment["share"]
    to = f"{deployment['target']} {printable(deployment['version'])}".rstrip()
    far = "" if share is None else f", {share * 100:.0f}%"
    text = f": {printable(deployment['text'])}" if deployment["text"] else ""
    title = paint(f"deployment {number}", "yellow")
    lines = [f"{title} of {to} is {said(deployment['state'])}{far}{text}"]
    if deployment["waits"]:
        lines.append(f"  `bgproxy approve {number}` lets it go on, `bgproxy abort {number}` ends it")
    return lines


def _last(deployment: Mapping[str, Any], paint: Paint, now: datetime) -> str:
    """What became of the latest one: so that whoever looks later reads what its terminal showed."""
    to = f"{deployment['target']} {printable(deployment['version'])}".rstrip()
    how = paint(ended(deployment["state"]), *(() if deployment["state"] == "succeeded" else ("yellow",)))
    why = printable(deployment["outcome"])
    told = f": {why}" if why not in ("", f"{deployment['target']} is live") else ""
    return f"deployment {deployment['id']} of {to} {how} {ago(deployment['ended_at'], now)} ago{told}"


def _title(service: Mapping[str, Any], paint: Paint, now: datetime) -> str:
    live = service["live"]
    parts = [f"generation {service['generation']}"]
    if service["switched_at"] is not None:
        parts.append(f"switched {ago(service['switched_at'], now)} ago")
    if service["previous"] is not None:
        parts.append(f"before: {service['previous']}")
    match = service["match"]
    hosts = ", ".join(map(printable, match["hosts"])) or "any host"
    parts.append(hosts if match["path"] == "/" else f"{hosts}, {printable(match['path'])}")
    sessions = service["sessions"]
    if sessions["mode"] != "none":
        parts.append(f"sessions by {sessions['mode']}, {sessions['on_switch']}")
    return f"{paint(printable(service['service']), 'bold')}: {paint(live, 'bold', live)} is live ({'; '.join(parts)})"


def _upstreams(name: str, pool: Mapping[str, Any], paint: Paint, now: datetime) -> list[list[str]]:
    rows = []
    for upstream in pool["upstreams"]:
        state = "ejected" if upstream["ejected"] else upstream["state"]
        since = f"for {ago(upstream['since'], now)}" if upstream["since"] else ""
        check = upstream["check_ms"]
        if upstream["reason"] and not _is_up(upstream):
            note = paint(printable(upstream["reason"]), "red")
        else:
            note = f"{upstream['in_flight']} in flight" + (f", checked in {check:.1f} ms" if check is not None else "")
        rows.append([paint(name, name), printable(upstream["id"]), _state(state, paint), since, note])
    return rows + [
        [paint(name, name), printable(lost["url"]), "", "", paint(printable(lost["reason"]), "red")]
        for lost in pool["unresolved"]
    ]


def _is_up(upstream: Mapping[str, Any]) -> bool:
    return upstream["state"] == "up" and not upstream["ejected"]


def _state(state: str, paint: Paint) -> str:
    return paint(state, *_STATE_STYLES.get(state, ()))
