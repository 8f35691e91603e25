"""The load check: the load generator runs in a process of its own, so that neither it nor live traffic slows the other down here."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from bgproxy.config.schema import Check, Load, MiB
from bgproxy.config.units import format_duration, format_percent, format_rate
from bgproxy.control.deployments.caller import request_bytes, way_to
from bgproxy.control.deployments.loadgen import Spec
from bgproxy.control.deployments.stage import Run
from bgproxy.control.deployments.words import milliseconds
from bgproxy.control.registry import Upstream
from bgproxy.model.deployment import DeploymentState, Result

#: Seconds that a request may take, from the moment that it is due.
REQUEST: Final = 10.0

#: Seconds that the whole may take on top of `for`, unless the check says otherwise.
MORE: Final = 30.0

#: Seconds that the generator's own schedule may be late (99th percentile) before its figures say more of this machine than of the pool.
LATE: Final = 0.05

#: Bytes of a line that the generator says: figures of every upstream are in it.
_LINE: Final = 16 * MiB

#: The end of what the generator has to complain about; bytes.
_COMPLAINT: Final = 4096


async def load_check(run: Run, upstreams: Sequence[Upstream], check: Check, load: Load) -> Result:
    """Load the pool as `load` says; the result has the figures. Whoever cancels it ends the generator."""
    limit = check.timeout if check.timeout is not None else load.for_ + MORE
    began = time.monotonic()
    ways = tuple(way_to(run.service, run.idle, upstream) for upstream in upstreams)
    try:
        requests = tuple(request_bytes("GET", load.path, way.host, (), b"") for way in ways)
    except ValueError as error:
        return _result(check, expected="", found=str(error), seconds=0.0)
    spec = Spec(
        ways=ways,
        requests=requests,
        rate=load.rate,
        seconds=load.for_,
        connections=load.connections,
        timeout=min(REQUEST, limit),
    )
    try:
        async with asyncio.timeout(limit):
            report = await _generate(run, check, load, spec)
    except TimeoutError:
        found = f"it was not done after {format_duration(limit)}"
        return _result(check, expected=expectation(load), found=found, seconds=time.monotonic() - began)
    except _GeneratorFailed as error:
        return _result(check, expected=expectation(load), found=str(error), seconds=time.monotonic() - began)
    return judge(check, load, report, time.monotonic() - began)


class _GeneratorFailed(Exception):  # noqa: N818 - says what happened
    """It ended without a report."""


async def _generate(run: Run, check: Check, load: Load, spec: Spec) -> dict[str, Any]:
    """The report of the generator, which has ended in whatever way this ends."""
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "bgproxy.control.deployments.loadgen"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
            limit=_LINE,
            start_new_session=True,  # a Ctrl-C in the terminal is for bgproxy, which ends it
        )
    except OSError as error:
        raise _GeneratorFailed(f"the load generator {sys.executable} cannot be started: {error.strerror}") from None
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    if stdin is None or stdout is None or stderr is None:
        raise _GeneratorFailed("the load generator has no pipes")
    complaints = asyncio.get_running_loop().create_task(stderr.read(), name=f"complaints of load check {check.name}")
    report: dict[str, Any] | None = None
    try:
        stdin.write(json.dumps(spec.to_json()).encode() + b"\n")
        while line := await stdout.readline():
            said = json.loads(line)
            if "report" in said:
                report = said["report"]
                break
            _show(run, check, load, said["progress"])
        if report is None:
            text = (await complaints)[-_COMPLAINT:].decode("utf-8", "replace").strip()
            last = text.splitlines()[-1] if text else "it said nothing"
            raise _GeneratorFailed(f"the load generator ended without a report: {last}")
    finally:
        stdin.close()
        if process.returncode is None:
            process.kill()
        complaints.cancel()
        await asyncio.gather(complaints, process.wait(), return_exceptions=True)
    return report


def _environment() -> dict[str, str]:
    """This process's environment, with the very import path that it has itself, so that both are one program."""
    folders = [os.path.abspath(folder) for folder in sys.path]  # noqa: PTH100 - "" is the working directory
    return os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(folders))}


def _show(run: Run, check: Check, load: Load, progress: dict[str, Any]) -> None:
    failed = sum(progress["errors"].values())
    figures = {key: progress[key] for key in ("requests", "sent", "answered", "p50", "p99", "max", "rate")}
    run.show(
        f"{check.name}: {progress['done']} of {progress['requests']} requests at {format_rate(load.rate)}, "
        f"{failed} failed, p99 {milliseconds(progress['p99'])}",
        share=progress["done"] / progress["requests"],
        failed=failed,
        **figures,
    )


# --- judging --------------------------------------------------------------------------------------------------------


def expectation(load: Load) -> str:
    """What the figures must be, in a line."""
    parts = [f"at most {format_percent(load.errors)} failed"]
    if load.p99 is not None:
        parts.insert(0, f"p99 at most {format_duration(load.p99)}")
    return f"{', '.join(parts)}, at {format_rate(load.rate)} for {format_duration(load.for_)}"


def judge(check: Check, load: Load, report: dict[str, Any], seconds: float) -> Result:
    """What the figures of a whole run say."""
    requests, failed = report["requests"], sum(report["errors"].values())
    share = 100 * failed / requests
    misses = []
    if share > load.errors:
        kinds = ", ".join(
            f"{count} {kind}" for kind, count in sorted(report["errors"].items(), key=lambda pair: -pair[1])
        )
        sample = report["samples"].get(max(report["errors"], key=report["errors"].__getitem__), "")
        misses.append(f"{format_percent(round(share, 3))} failed ({failed} of {requests}: {kinds}; such as {sample})")
    if load.p99 is not None and report["p99"] > load.p99:
        misses.append(f"p99 {milliseconds(report['p99'])}")
    late = report["late_p99"]
    figures = f"p99 {milliseconds(report['p99'])}, {failed} of {requests} failed, {report['rate']:.1f}/s"
    found = "; ".join(misses) or figures
    # Late in asking, it is as late in reading what came. What was refused, hung, or was answered with 5xx, was so whoever was late.
    ours = late > min(LATE, (load.p99 or LATE) / 2)
    hung = report["errors"].get("timed out", 0) if report["late_max"] < REQUEST / 2 else 0
    others = failed - report["errors"].get("timed out", 0) + hung
    quick = load.p99 is None or report["p99"] - 2 * late <= load.p99
    if misses and ours and quick and 100 * others / requests <= load.errors:
        found = (
            f"this machine could not keep up with {format_rate(load.rate)}: the load generator was itself "
            f"{milliseconds(late)} behind (p99), so this says nothing of the pool; lower the rate, or give it more CPU ({found})"
        )
    details = _details(report)
    return _result(check, ok=not misses, expected=expectation(load), found=found, seconds=seconds, details=details)


def _details(report: dict[str, Any]) -> tuple[str, ...]:
    times = ", ".join(f"{name} {milliseconds(report[name])}" for name in ("p50", "p90", "p99", "p99.9", "max"))
    statuses = ", ".join(f"{count} of status {status}" for status, count in report["statuses"].items()) or "none"
    lines = [
        f"{report['requests']} requests, {report['sent']} sent, {report['answered']} answered ({statuses})",
        f"latency from the moment that each was due: {times}",
    ]
    lines += [f"failed: {count} {kind}, such as {report['samples'][kind]}" for kind, count in report["errors"].items()]
    if len(report["upstreams"]) > 1:
        worst = sorted(report["upstreams"].items(), key=lambda pair: (-pair[1]["errors"], -pair[1]["p99"]))
        lines += [
            f"{name}: {each['errors']} of {each['requests']} failed, p99 {milliseconds(each['p99'])}"
            for name, each in worst[:5]
        ]
    return tuple(lines)


def _result(
    check: Check, *, expected: str, found: str, seconds: float, ok: bool = False, details: tuple[str, ...] = ()
) -> Result:
    return Result(
        stage=DeploymentState.VERIFYING.value,
        name=check.name,
        ok=ok,
        expected=expected,
        found=found,
        seconds=round(seconds, 3),
        details=details,
    )
