"""The cases that others wrote (llhttp, gunicorn), against the sans-I/O core.

The files are not part of this repository: BGPROXY_CORPORA names their directory, or they lie beside it in
../shared/corpora. `expected` says what a proxy should do; `tier` says how sure that is: must, or strict.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode
from collections import Counter
from pathlib import Path

import h11
import pytest
from support.sansio import read_connection, read_response, reparse

CORPORA = Path(os.environ.get("BGPROXY_CORPORA") or Path(__file__).parents[3] / "shared" / "corpora")

#: Where we differ on purpose: (suite, name) -> why. A row here that does not differ any more fails the test.
ON_PURPOSE = {
    (
        "llhttp-request",
        "connection/CRLF between requests, implicit `keep-alive`",
    ): "the first request is accepted; the second never ends, and is waited for",
    (
        "llhttp-request",
        "lenient-headers/Second request header value (lenient)",
    ): "the first request is accepted; the second is refused, as the row itself asks for",
    ("llhttp-request", "transfer-encoding/No extension after semicolon"): "extensions are dropped, so not parsed",
    ("llhttp-response", "transfer-encoding/No extension after semicolon"): "extensions are dropped, so not parsed",
    (
        "llhttp-response",
        "transfer-encoding/Unbalanced chunk extensions quoting",
    ): "extensions are dropped, so not parsed",
    (
        "llhttp-response",
        "connection/HTTP 100 first, then 400",
    ): "an empty line before a status line is rubbish (9112 2.2)",
    ("llhttp-response", "connection/HTTP 103 first, then 200"): "its body is a byte shorter than its Content-Length",
}


def rows(name):
    path = CORPORA / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} is not there; set BGPROXY_CORPORA to the directory of the corpora")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def wrong_with_request(row, counts):
    """What is wrong with our reading of a row; "" if nothing is."""
    reading = read_connection(b64decode(row["raw_b64"]))
    complete = [request for request in reading.requests if request.complete]
    if len(complete) > row["max_backend_requests"]:
        return f"{len(complete)} requests reach the back end"
    for request in reading.requests:
        try:
            reparse(request)
        except h11.RemoteProtocolError as error:
            return f"a strict server refuses what was forwarded: {error}"
    verdict = reading.verdict
    expected = row["expected"]
    counts[row["tier"], expected, verdict] += 1
    if expected == "reject":
        # What never ends its head is refused when its time is over: 408.
        if verdict == "accept" or (verdict == "wait" and complete):
            return f"expected to be refused: {verdict}"
        if reading.error is not None and row["status"] and reading.error.status not in row["status"]:
            return f"refused with {reading.error.status}, expected one of {row['status']}"
    elif expected in ("accept", "wait") and verdict != expected:
        return f"expected {expected}: {verdict} {reading.error!r}"
    return ""


def wrong_with_response(row, counts):
    verdict, detail = read_response(b64decode(row["raw_b64"]))
    expected = row["expected"]
    counts[row["tier"], expected, verdict] += 1
    if expected in ("either_resp", verdict):
        return ""
    return f"expected {expected}: {verdict} {detail}"


@pytest.mark.parametrize(
    ("name", "judge"),
    [
        ("gunicorn_requests", wrong_with_request),
        ("llhttp_requests", wrong_with_request),
        ("llhttp_responses", wrong_with_response),
    ],
)
def test_we_judge_as_the_corpus_does(name, judge):
    """Accepted, refused or waited for as each row says; what goes on is strict; and no more requests than there are."""
    counts: Counter[tuple[str, str, str]] = Counter()
    faults = []
    differing = set()
    of_corpus = set()
    for row in rows(name):
        key = (row["suite"], row["name"])
        of_corpus.add(key)
        fault = judge(row, counts)
        if fault and key in ON_PURPOSE:
            differing.add(key)
        elif fault:
            faults.append(f"{row['tier']}: {row['name']}: {fault} ({row['why']}; {row['ref']})")
    for (tier, expected, verdict), count in sorted(counts.items()):
        print(f"{name}: {tier:6} {expected:11} {verdict:9} {count:4}")
    print(f"{name}: {len(differing)} on purpose")
    assert not faults, "\n".join(faults)
    assert differing == of_corpus & set(ON_PURPOSE)
    assert sum(counts.values()) >= 50


def test_what_goes_on_does_not_depend_on_what_came_before():
    """Two rows over one connection read as each does alone, where the first may be followed by another."""
    alone = [(row, b64decode(row["raw_b64"])) for row in rows("gunicorn_requests") if row["expected"] == "accept"]
    first = b"GET /first HTTP/1.1\r\nHost: bgproxy.test\r\n\r\n"
    for row, raw in alone:
        if raw.startswith(b"\r\n"):
            continue
        both = read_connection(first + raw)
        once = read_connection(raw)
        assert [r.head + r.body for r in both.requests[1:]] == [r.head + r.body for r in once.requests], row["name"]
        assert both.verdict == once.verdict
