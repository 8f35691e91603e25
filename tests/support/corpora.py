"""The cases that others wrote (llhttp, gunicorn), one JSON object a line.

The files are not part of this repository: BGPROXY_CORPORA names their directory, or they lie beside it in
../shared/corpora. `expected` says what a proxy should do; `tier` says how sure that is: must, or strict.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CORPORA = Path(os.environ.get("BGPROXY_CORPORA") or Path(__file__).parents[3] / "shared" / "corpora")
REQUESTS = ("gunicorn_requests", "llhttp_requests")
RESPONSES = ("llhttp_responses",)

#: Of the strict rows of a file, the share that must be as the corpus says.
STRICT = 0.95

#: Where we differ on purpose: (suite, name) -> why. A row here that does not differ any more fails the tests.
ON_PURPOSE = {
    (
        "llhttp-response",
        "connection/HTTP 103 first, then 200",
    ): "its body is 16 bytes, its Content-Length 17: 103, 200 and the 16 are relayed, and the connection is cut as in the rows "
    "of this file that ask for `truncated` (http.md row 52: 'truncated body -> abort client, no final chunk')",
}


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of a corpus, each with its bytes under `raw`; without the files the test is skipped."""
    path = CORPORA / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} is not there; set BGPROXY_CORPORA to the directory of the corpora")
    with path.open(encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    for row in found:
        row["raw"] = b64decode(row["raw_b64"])
    return found


def wrong_with_request(
    row: dict[str, Any], verdict: str, complete: int, status: int | None, statuses: list[int]
) -> str:
    """What is wrong with what became of a row; "" if nothing is.

    `verdict` is accept, reject or wait, of all its bytes; `complete` the requests that reached the back end; `status` that
    of a refusal, None where there is none; `statuses` those of all answers.
    """
    if complete > row["max_backend_requests"]:
        return f"{complete} requests reach the back end"
    expected = row["expected"]
    if expected == "reject":
        # What never ends its head is refused when its time is over: 408.
        if verdict == "accept" or (verdict == "wait" and complete):
            return f"expected to be refused: {verdict}"
        if status is not None and row["status"] and status not in row["status"]:
            return f"refused with {status}, expected one of {row['status']}"
    elif expected == "wait" and verdict != expected:
        return f"expected to be waited for: {verdict} {status}"
    elif expected == "accept" and verdict != expected and not as_others(row, statuses):
        return f"expected to be accepted: {verdict} {status}"
    return ""


def as_others(row: dict[str, Any], statuses: list[int]) -> bool:
    """Whether two of nginx, HAProxy and Caddy give these answers, no more and no fewer.

    Some rows ask for `accept` and have more behind the request that is meant: a bad one, or one that never ends.
    """
    given = "/".join(map(str, statuses))
    return bool(given) and list(row["ref"].values()).count(given) >= 2


def wrong_with_response(row: dict[str, Any], verdict: str, detail: str = "") -> str:
    """The same for a response; `verdict` is relay, bad or truncated."""
    expected = row["expected"]
    if expected in ("either_resp", verdict):
        return ""
    return f"expected {expected}: {verdict} {detail}"


@dataclass
class Tally:
    """What became of the rows of a corpus."""

    name: str
    on_purpose: dict[tuple[str, str], str]
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    right: Counter[str] = field(default_factory=Counter)
    differing: set[tuple[str, str]] = field(default_factory=set)
    keys: set[tuple[str, str]] = field(default_factory=set)

    def note(self, row: dict[str, Any], verdict: str, fault: str) -> None:
        """Count a row."""
        key = (row["suite"], row["name"])
        self.keys.add(key)
        self.counts[row["tier"], row["expected"], verdict] += 1
        if not fault:
            self.right[row["tier"]] += 1
        elif key in self.on_purpose:
            self.differing.add(key)
        else:
            self.faults.append(f"{row['tier']}: {row['name']}: {fault} ({row['why']}; {row['ref']})")

    def judge(self) -> None:
        """Print the counts by tier; no row may differ, of either tier, but those that do so on purpose."""
        totals: Counter[str] = Counter()
        for (tier, expected, verdict), count in sorted(self.counts.items()):
            print(f"{self.name}: {tier:6} {expected:11} {verdict:9} {count:4}")
            totals[tier] += count
        for tier, total in sorted(totals.items()):
            print(f"{self.name}: {tier:6} {self.right[tier]} of {total} as the corpus says")
        print(f"{self.name}: {len(self.differing)} differ on purpose")
        assert not self.faults, "\n".join(self.faults)
        assert self.differing == self.keys & set(self.on_purpose)
        assert self.right["strict"] >= STRICT * totals["strict"]
        assert sum(totals.values()) >= 50
