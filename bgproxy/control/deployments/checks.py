"""The declarative checks of a verify stage: a request to every upstream of the idle pool, and what its answer must be."""

from __future__ import annotations

import asyncio
import codecs
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from bgproxy.config import jsonpath
from bgproxy.config.schema import CHECK_TIMEOUT, Check, Expect
from bgproxy.config.statuses import parse_statuses
from bgproxy.config.units import format_duration
from bgproxy.control.deployments.caller import Answer, Caller
from bgproxy.control.deployments.words import brief, milliseconds
from bgproxy.control.registry import Upstream
from bgproxy.model.deployment import DeploymentState, Result

T = TypeVar("T")

#: Upstreams that are asked at a time.
_AT_A_TIME: Final = 16

#: Charsets of the Web, by their names in Python. It has others, which break on what they cannot read, or take minutes (idna, punycode).
_CHARSET: Final = re.compile(
    r"ascii|utf-(8|8-sig|16|32)(-[bl]e)?|iso8859-\d+|cp125\d|cp866|cp932|cp949|koi8-[ru]|mac-.*|big5|gb2312|gbk|gb18030|"
    r"shift_jis|euc_(jp|kr)|iso2022_jp"
)

#: Further failures that a result tells.
_MOST_DETAILS: Final = 20

_STAGE: Final = DeploymentState.VERIFYING.value


class Miss(NamedTuple):
    """One expectation that does not hold."""

    expected: str
    found: str


# --- judging --------------------------------------------------------------------------------------------------------


def expectation(expect: Expect) -> str:
    """All that an answer must be, in a line."""
    parts = [f"status {expect.status}"]
    parts += [f"{name}: {value}" for name, value in expect.headers.items()]
    if expect.body_contains:
        parts.append(f"a body with {expect.body_contains!r}")
    parts += [f"{path} = {value}" for path, value in expect.json.items()]
    if expect.within is not None:
        parts.append(f"within {format_duration(expect.within)}")
    return ", ".join(parts)


def judge(expect: Expect, answer: Answer) -> list[Miss]:
    """What of `expect` an answer does not hold; empty if it is all right."""
    if not answer.status:
        return [Miss(f"status {expect.status}", answer.reason)]
    misses = []
    if not any(answer.status in statuses for statuses in parse_statuses(expect.status)):
        text = brief(_text(answer))
        misses.append(Miss(f"status {expect.status}", f"status {answer.status}{f': {text}' if text else ''}"))
    for name, wanted in expect.headers.items():
        came = answer.header(name)
        each = [value for field, value in answer.headers if field.lower() == name.lower()]
        if wanted not in (came, *each):
            misses.append(Miss(f"{name}: {wanted}", f"no {name}" if came is None else f"{name}: {brief(came)}"))
    if expect.body_contains and expect.body_contains not in _text(answer):
        misses.append(Miss(f"a body with {expect.body_contains!r}", _said(answer)))
    if expect.json:
        misses += _judge_json(expect.json, answer)
    if expect.within is not None and answer.seconds > expect.within:
        misses.append(
            Miss(f"an answer within {format_duration(expect.within)}", f"it took {milliseconds(answer.seconds)}")
        )
    return misses


def _judge_json(wanted: dict[str, str], answer: Answer) -> list[Miss]:
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return [Miss("a body of JSON", _said(answer))]
    misses = []
    for path, value in wanted.items():
        found = jsonpath.find(jsonpath.parse(path), document)
        if not found:
            misses.append(Miss(f"{path} = {value}", f"there is no {path} in {brief(_text(answer))}"))
            continue
        other = next((each for each in found if not same(value, each)), None)
        if not all(same(value, each) for each in found):
            misses.append(Miss(f"{path} = {value}", f"{path} = {_shown(other)}"))
    return misses


def same(wanted: str, value: Any) -> bool:
    """Whether a value is what the file says: text as it stands, anything else as JSON writes it."""
    if isinstance(value, str):
        return value == wanted or json.dumps(value) == wanted
    try:
        read = json.loads(wanted)
        if _is_number(read) and _is_number(value):
            return bool(read == value)
        return _written(read) == _written(value)  # by what JSON writes: to Python, true is 1
    except (ValueError, RecursionError):  # no JSON; or too deep
        return False


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _written(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _shown(value: object) -> str:
    try:
        return brief(_written(value))
    except RecursionError:  # reading takes less depth than writing
        return "(a deep document)"


def _text(answer: Answer) -> str:
    """The body as text, by the charset that it says it has."""
    charset = "utf-8"
    for parameter in (answer.header("content-type") or "").split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"')
    try:
        charset = codecs.lookup(charset).name
    except (LookupError, ValueError):
        charset = "utf-8"
    return answer.body.decode(charset if _CHARSET.fullmatch(charset) else "utf-8", "replace")


def _said(answer: Answer) -> str:
    """What a body was that was not what was wanted."""
    coding = answer.header("content-encoding")
    if coding is not None and coding.lower() != "identity":
        return f"a body that is coded ({brief(coding)}), which was not asked for"
    if answer.cut:
        return f"a body of more than {len(answer.body)} bytes, of which no more is read: {brief(_text(answer))}"
    return f"a body of {len(answer.body)} bytes{f': {brief(_text(answer))}' if answer.body else ''}"


# --- asking ---------------------------------------------------------------------------------------------------------


async def of_each(upstreams: Sequence[Upstream], ask: Callable[[Upstream], Awaitable[T]], what: str) -> dict[str, T]:
    """What `ask` says of each upstream, by its id; some of them at a time. `what` names the tasks."""
    said: dict[str, T] = {}
    gate = asyncio.Semaphore(_AT_A_TIME)

    async def one(upstream: Upstream) -> None:
        async with gate:
            said[upstream.id] = await ask(upstream)

    async with asyncio.TaskGroup() as group:
        for upstream in upstreams:
            group.create_task(one(upstream), name=f"{what} of {upstream.id}")
    return said


async def request_check(
    caller: Caller, upstreams: Sequence[Upstream], check: Check, *, tell: Callable[[int], None] = lambda _: None
) -> Result:
    """Ask each of `upstreams`; the result names the first that failed. `tell` is given how many have answered."""
    method, _, target = check.request.strip().partition(" ")
    limit = check.timeout if check.timeout is not None else CHECK_TIMEOUT
    count = 0

    async def ask(upstream: Upstream) -> tuple[float, list[Miss]]:
        nonlocal count
        answer = await caller.ask(
            upstream,
            method.upper(),
            target.strip() or "/",
            headers=check.headers.items(),
            body=check.body.encode(),
            timeout=limit,
        )
        count += 1
        tell(count)
        return answer.seconds, judge(check.expect, answer)  # its body is not kept until all have answered

    answers = await of_each(upstreams, ask, f"check {check.name}")
    slowest = max((seconds for seconds, _ in answers.values()), default=0.0)
    lines = [
        (f"{upstream.id}: {miss.found}", miss.expected) for upstream in upstreams for miss in answers[upstream.id][1]
    ]
    if not lines:
        found = f"as expected after {milliseconds(slowest)}"
        if len(upstreams) > 1:
            found = f"as expected of all {len(upstreams)} upstreams, after {milliseconds(slowest)} at the most"
        return _result(check, ok=True, expected=expectation(check.expect), found=found, seconds=slowest)
    details = tuple(f"{found}; expected {expected}" for found, expected in lines[1 : 1 + _MOST_DETAILS])
    return _result(check, ok=False, expected=lines[0][1], found=lines[0][0], seconds=slowest, details=details)


def _result(
    check: Check, *, ok: bool, expected: str, found: str, seconds: float, details: tuple[str, ...] = ()
) -> Result:
    return Result(
        stage=_STAGE,
        name=check.name,
        ok=ok,
        expected=expected,
        found=found,
        seconds=round(seconds, 3),
        details=details,
    )
