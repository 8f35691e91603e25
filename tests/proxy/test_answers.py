"""The answers that bgproxy makes itself."""

from __future__ import annotations

import json

import h11
import pytest

from bgproxy.proxy.answers import RETRY_AFTER, answer, answer_options, reason_phrase, wants_json


def parse(data, method="GET"):
    """The head and the body as a client reads them."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    head = client.next_event()
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert client.trailing_data[0] == b""
    headers = dict(head.headers)
    return head, {name.decode(): value.decode("latin-1") for name, value in headers.items()}, body


@pytest.mark.parametrize("status", [400, 404, 405, 408, 413, 414, 417, 421, 431, 499, 501, 502, 503, 504, 505, 508])
def test_an_answer_is_whole_and_names_its_reason(status):
    """A strict client reads it; it has a date, an id, and the reason as RFC 9209 has it."""
    head, headers, body = parse(answer(status, "some_error", "what happened", b"id-1", close=False))
    assert head.status_code == status
    assert body == f"{status} {reason_phrase(status)}: what happened\n".encode()
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert headers["proxy-status"] == "bgproxy; error=some_error"
    assert headers["x-request-id"] == "id-1"
    assert headers["cache-control"] == "no-store"
    assert headers["date"].endswith(" GMT")
    assert "connection" not in headers


def test_problem_json_where_it_is_asked_for():
    """RFC 9457, with the request's id as the instance."""
    _, headers, body = parse(answer(502, "e", 'it said "no" \N{SNOWMAN}', b"id-\xe9", close=False, as_json=True))
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Bad Gateway",
        "status": 502,
        "detail": 'it said "no" \N{SNOWMAN}',
        "instance": "urn:bgproxy:request:id-\xe9",
    }


def test_the_length_is_of_bytes_not_of_characters():
    """A detail may have any character."""
    _, headers, body = parse(answer(400, "e", "\N{SNOWMAN}", b"i", close=False))
    assert int(headers["content-length"]) == len(body)
    assert "\N{SNOWMAN}".encode() in body


@pytest.mark.parametrize("as_json", [False, True])
def test_head_gets_the_same_head_and_no_body(as_json):
    """RFC 9110 section 9.3.2: Content-Length is that of the GET."""
    whole = answer(404, "e", "d", b"i", close=False, as_json=as_json)
    head = answer(404, "e", "d", b"i", close=False, as_json=as_json, head_only=True)
    assert whole.startswith(head)
    assert head.endswith(b"\r\n\r\n")
    assert parse(head, method="HEAD")[2] == b""


def test_503_always_says_when_to_come_back():
    """And others where told."""
    assert parse(answer(503, "e", "d", b"i", close=False))[1]["retry-after"] == str(RETRY_AFTER)
    assert parse(answer(503, "e", "d", b"i", close=False, retry_after=30))[1]["retry-after"] == "30"
    assert "retry-after" not in parse(answer(502, "e", "d", b"i", close=False))[1]


def test_close_is_said_where_the_connection_ends():
    """So that a client does not send its next request into a closing connection."""
    assert parse(answer(400, "e", "d", b"i", close=True))[1]["connection"] == "close"


def test_an_unknown_status_has_a_phrase_too():
    """499 is not in the registry."""
    assert reason_phrase(499) == "Error"
    assert reason_phrase(404) == "Not Found"


@pytest.mark.parametrize(
    ("block", "wanted"),
    [
        (b"Host: a\r\nAccept: application/json\r\n", True),
        (b"ACCEPT:application/problem+JSON, */*\r\n", True),
        (b"Accept: text/html\r\n", False),
        (b"X-Accept: json\r\n", False),
        (b"", False),
        (b"\0", False),
        (b"Content-Type: application/json\r\n", False),
    ],
)
def test_who_wants_json(block, wanted):
    """Accept decides, and nothing else."""
    assert wants_json(block) is wanted


def test_further_lines_and_no_reason():
    """A redirection is no error, so that it names none; what it adds stands in the head."""
    data = answer(308, "", "elsewhere", b"id-1", close=False, extra=b"Location: https://a/\r\n")
    head, headers, _ = parse(data)
    assert (head.status_code, headers["location"]) == (308, "https://a/")
    assert "proxy-status" not in headers


def test_options_is_answered_without_a_body():
    """200 with what may be asked, and the connection ends; a 405 says the same (RFC 9110 section 15.5.6)."""
    head, headers, body = parse(answer_options(b"id-1"), "OPTIONS")
    assert (head.status_code, body) == (200, b"")
    assert (headers["x-request-id"], headers["connection"]) == ("id-1", "close")
    refused = parse(answer(405, "e", "d", b"id", close=True))[1]
    assert headers["allow"] == refused["allow"] == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    assert "allow" not in parse(answer(400, "e", "d", b"id", close=True))[1]
