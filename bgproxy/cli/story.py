"""A deployment in words: its stages, what they found out, how far it is, how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from bgproxy.cli.terminal import Paint, columns
from bgproxy.cli.words import duration, in_classes, printable

Deployment = Mapping[str, Any]

#: States in which it has ended, and how that is said.
_ENDS: Final = {
    "succeeded": "succeeded",
    "rolled_back": "was rolled back",
    "failed": "failed",
    "aborted": "was aborted",
}
#: What comes after a stage that did not pass.
_BROKEN: Final = frozenset({"rolling_back", "rolled_back", "failed", "aborted"})
_STAGES: Final = {
    "provisioning": "provision",
    "verifying": "verify",
    "comparing": "compare",
    "warming": "warm",
    "awaiting_approval": "approval",
    "switching": "switch",
    "baking": "bake",
    "draining": "drain",
    "retiring": "retire",
}
_BAR: Final = 20  # characters


def said(state: str) -> str:
    """A state as it is read: `awaiting approval`."""
    return printable(state.replace("_", " "))


def stage_names(states: Sequence[str]) -> str:
    """What is going to be done: `verify, switch, bake, drain`."""
    return ", ".join(_STAGES.get(state, said(state)) for state in states)


def is_stage(state: str) -> bool:
    """Whether something is done in this state."""
    return state != "queued" and state not in _ENDS


def passed(stage: str, following: str) -> bool:
    """Whether a stage that was followed by this state did what it is for."""
    return following not in _BROKEN or (stage, following) == ("rolling_back", "rolled_back")


def took(seconds: float) -> str:
    """`12 ms`, `1.2 s`, `4m 2s`."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else duration(seconds)


def _latency(seconds: float) -> str:
    """`0.4 ms`, `12 ms`, `1.2 s`."""
    return f"{seconds * 1000:.1f} ms" if seconds < 0.00995 else took(seconds)


def between(earlier: str, later: str | None = None) -> float:
    """Seconds between two RFC 3339 times, or from one until now; 0.0 where they make no sense."""
    try:
        end = datetime.now(UTC) if later is None else datetime.fromisoformat(later)
        return max((end - datetime.fromisoformat(earlier)).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return 0.0


def result_lines(result: Mapping[str, Any], paint: Paint, *, marks: tuple[str, str], details: bool) -> list[str]:
    """What a stage found out; `marks` are those of what is well and of what is not. Details of what is well only where asked for."""
    ok = bool(result["ok"])
    found, expected = printable(result["found"]), printable(result["expected"])
    text = found if ok or not expected else f"expected {expected}, found {found or 'nothing'}"
    seconds = f" ({took(result['seconds'])})" if result["seconds"] else ""
    mark = paint(marks[0], "green") if ok else paint(marks[1], "red")
    lines = [f"{mark} {': '.join(filter(None, [printable(result['name']), text]))}{seconds}"]
    if details or not ok:
        lines += [f"    {printable(line)}" for line in result["details"]]
    return lines


def repeats(result: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> bool:
    """Whether it is the cause of the end, and another one that failed has said as much: the last line says it once more."""
    same = (other for other in others if other is not result and not other["ok"] and other["stage"] == result["stage"])
    return result["name"] == "cause" and any(other["details"] == result["details"] for other in same)


def briefly(step: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """A step without its why, where what was found just before says as much: the last line says it once more."""
    told = any(result["found"] and result["found"] in step["why"] for result in results)
    return {**step, "why": ""} if told else step


def ended(state: str) -> str:
    """`succeeded`, `was rolled back`."""
    return _ENDS.get(state, f"is {said(state)}")


def outcome(deployment: Deployment) -> str:
    """How it ended, and why, in one sentence."""
    state = str(deployment["state"])
    how = ended(state)
    if state == "failed" and not any(step["state"] == "switching" for step in deployment["steps"]):
        how += " before the switch"
    after = f" after {took(between(deployment['created_at'], deployment['ended_at']))}" if state in _ENDS else ""
    why = printable(deployment["outcome"])
    return f"{printable(deployment['service'])}: deployment {deployment['id']} {how}{after}" + (
        f": {why}" if why else ""
    )


def bar(share: float) -> str:
    """`[=====>              ] 30%`."""
    share = min(max(share, 0.0), 1.0)
    full = int(share * _BAR)
    drawn = ("=" * full + ">" * (full < _BAR)).ljust(_BAR)
    return f"[{drawn}] {share * 100:.0f}%"


def figure_lines(figures: Mapping[str, Any], paint: Paint) -> list[str]:
    """What both pools do at the moment; nothing where the stage does not watch them."""
    pools = figures.get("pools")
    if not isinstance(pools, dict):
        return []
    rows = []
    for name, pool in pools.items():
        errors = f"{pool['errors'] * 100:.2g}% errors"
        rows.append(
            [
                paint(printable(name), "bold", str(name)),
                f"{pool['rate']:.1f}/s",
                paint(errors, "red") if pool["errors"] else errors,
                *(f"{key} {'-' if pool[key] is None else _latency(pool[key])}" for key in ("p50", "p99")),
                f"{in_classes(pool['in_flight']) or 'nothing'} in flight",
            ]
        )
    return columns(rows, right=frozenset({1}))


def heading(deployment: Deployment, paint: Paint) -> list[str]:
    """Which one it is, who began it, when and why, and where it leads."""
    version = printable(deployment["version"])
    reason = f" ({printable(deployment['reason'])})" if deployment["reason"] else ""
    begun = f"begun at {printable(deployment['created_at'])} by {printable(deployment['actor']['name'])}{reason}"
    title = f"deployment {deployment['id']} of {printable(deployment['service'])}"
    to = f"{deployment['target']}{f' {version}' if version else ''}, {printable(deployment['strategy'])}"
    lines = [f"{paint(title, 'bold')} to {to}", begun]
    return lines + [f"  {printable(upstream)}" for upstream in deployment["upstreams"] or ()]


def story(deployment: Deployment, paint: Paint) -> list[str]:
    """All of it: who began it and why, each stage with what it found out, the end."""
    lines = heading(deployment, paint)
    results = list(deployment["results"])
    steps = deployment["steps"]
    for at, long in enumerate(steps):
        step = briefly(long, results)
        following = steps[at + 1] if at + 1 < len(steps) else None
        why = f": {printable(step['why'])}" if step["why"] and is_stage(step["state"]) else ""
        if is_stage(step["state"]):
            seconds = took(between(step["at"], None if following is None else following["at"]))
            lines.append(f"{printable(step['at'])}  {said(step['state'])} ({seconds}) [{printable(step['by'])}]{why}")
        own = [result for result in results if result["stage"] == step["state"] and not repeats(result, results)]
        for result in own if is_stage(step["state"]) else ():
            lines += [f"  {line}" for line in result_lines(result, paint, marks=("ok", "FAILED"), details=True)]
    progress = deployment["progress"]
    if progress is not None and progress["text"]:
        lines.append(f"  {printable(progress['text'])}")
    return [*lines, outcome(deployment)]
