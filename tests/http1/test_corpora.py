"""The cases that others wrote (llhttp, gunicorn), against the sans-I/O core; tests/http_rows/ has them over sockets."""

from __future__ import annotations

import h11
import pytest
from support.corpora import ON_PURPOSE, REQUESTS, RESPONSES, Tally, rows, wrong_with_request, wrong_with_response
from support.sansio import read_connection, read_response, reparse


def request_fault(row):
    """Our reading of a row, and what is wrong with it."""
    reading = read_connection(row["raw"])
    for request in reading.requests:
        try:
            reparse(request)
        except h11.RemoteProtocolError as error:
            return reading.verdict, f"a strict server refuses what was forwarded: {error}"
    complete = sum(request.complete for request in reading.requests)
    status = None if reading.error is None else reading.error.status
    statuses = [200] * complete + ([] if status is None else [status])
    return reading.verdict, wrong_with_request(row, reading.verdict, complete, status, statuses)


def response_fault(row):
    verdict, detail = read_response(row["raw"])
    return verdict, wrong_with_response(row, verdict, detail)


@pytest.mark.parametrize(
    ("name", "judge"),
    [*((name, request_fault) for name in REQUESTS), *((name, response_fault) for name in RESPONSES)],
)
def test_we_judge_as_the_corpus_does(name, judge):
    """Accepted, refused or waited for as each row says; what goes on is strict; and no more requests than there are."""
    tally = Tally(name, ON_PURPOSE)
    for row in rows(name):
        tally.note(row, *judge(row))
    tally.judge()


def test_what_goes_on_does_not_depend_on_what_came_before():
    """Two rows over one connection read as each does alone, where the first may be followed by another."""
    alone = [row for row in rows("gunicorn_requests") if row["expected"] == "accept"]
    first = b"GET /first HTTP/1.1\r\nHost: bgproxy.test\r\n\r\n"
    for row in alone:
        raw = row["raw"]
        if raw.startswith(b"\r\n"):
            continue
        both = read_connection(first + raw)
        once = read_connection(raw)
        assert [r.head + r.body for r in both.requests[1:]] == [r.head + r.body for r in once.requests], row["name"]
        assert both.verdict == once.verdict
