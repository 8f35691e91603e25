"""Whether two answers are the same, and how the difference is told."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest

from bgproxy.config.jsonpath import parse
from bgproxy.config.schema import MiB
from bgproxy.control.deployments.comparing import (
    MOST_DECODED,
    MOST_TOLD,
    Reply,
    Rules,
    TooMuch,
    decoded,
    differences,
)

JSON = ("Content-Type", "application/json; charset=utf-8")
RULES = Rules(("content-type", "location"), ())


def reply(body: bytes | str = b"", *headers: tuple[str, str], status: int = 200, complete: bool = True) -> Reply:
    data = body.encode() if isinstance(body, str) else body
    return Reply(status=status, headers=headers, body=data, complete=complete)


def told(live: Reply, idle: Reply, rules: Rules = RULES) -> list[str]:
    return [str(difference) for difference in differences(live, idle, rules)]


def test_the_same_is_the_same() -> None:
    """Status, fields however their names are spelt, body."""
    assert told(reply("a", ("Content-Type", "text/html")), reply("a", ("content-type", "text/html"))) == []


def test_a_status_is_told_alone() -> None:
    """Of another status, everything else differs too, which says nothing."""
    assert told(reply("a"), reply("b", status=500)) == ["status: 200 / 500"]


@pytest.mark.parametrize(("live", "idle"), [(200, 304), (304, 200)])
def test_validators_are_each_pools_own(live: int, idle: int) -> None:
    """A conditional request of a user is about what the live pool said."""
    assert told(reply("a", status=live), reply("b", status=idle)) == []


def test_chosen_fields_are_compared() -> None:
    """Those that come more than once as one; others are not looked at."""
    live = reply("", ("Location", "/a"), ("Date", "today"), ("Content-Type", "a"), ("Content-Type", "b"))
    idle = reply("", ("Location", "/b"), ("Date", "tomorrow"), ("Content-Type", "a, b"))
    assert told(live, idle) == ["location: /a / /b"]
    assert told(reply(""), reply("", ("Location", "/b"))) == ["location: (none) / /b"]


def test_secrets_are_not_shown() -> None:
    """That they differ is told, and no more."""
    rules = Rules(("set-cookie",), ())
    found = told(reply("", ("Set-Cookie", "session=ours")), reply("", ("Set-Cookie", "session=theirs")), rules)
    assert found == ["set-cookie: (a value that is not shown) / (a value that is not shown)"]


def test_bodies_are_compared_by_their_bytes() -> None:
    """With how long each is, and a digest."""
    (found,) = told(reply("abc"), reply("abcd"))
    assert found.startswith("body: 3 bytes, SHA-256 ba7816bf8f01cfea… / 4 bytes, SHA-256 88d4266fd4e6338d…")


@pytest.mark.parametrize(
    ("live", "idle", "found"),
    [
        ('{"a": 1, "b": [1, 2]}', '{"b":[1,2],"a":1.0}', []),
        ('{"a": 1}', '{"a": 2}', ["$.a: 1 / 2"]),
        ('{"a": {"b c": [0, {"d": "x"}]}}', '{"a": {"b c": [0, {"d": "y"}]}}', ['$.a[\'b c\'][1].d: "x" / "y"']),
        ('{"a": true}', '{"a": 1}', ["$.a: true / 1"]),
        ('{"a": null}', "{}", ["$.a: null / (none)"]),
        ("[1]", "[1, 2]", ["$[1]: (none) / 2"]),
        ("[]", "{}", ["$: [] / {}"]),
        ('{"a": NaN}', '{"a": NaN}', []),
        ('{"a": NaN}', '{"a": "NaN"}', ['$.a: NaN / "NaN"']),
        ("[NaN, 1]", "[NaN, 2]", ["$[1]: 1 / 2"]),
        ("[Infinity]", "[-Infinity]", ["$[0]: Infinity / -Infinity"]),
        ("[12345678901234567890]", "[12345678901234567891]", ["$[0]: 12345678901234567890 / 12345678901234567891"]),
        ('{"a": 1, "a": 2}', '{"a": 2}', []),
        ("[1, 2]", "[2, 1]", ["$[0]: 1 / 2", "$[1]: 2 / 1"]),
        ('[{"a": 1.0}, {"b": true}]', '[{"a": 1}, {"b": 1}]', ["$[1].b: true / 1"]),
        ('{"total": 12.50}', '{"total": 12.5}', []),
    ],
)
def test_documents_are_compared_by_their_values(live: str, idle: str, found: list[str]) -> None:
    """However they are written; the place that differs is named."""
    assert told(reply(live, JSON), reply(idle, JSON)) == found


def test_places_are_ignored() -> None:
    """As the configuration names them; the rest counts."""
    rules = Rules((), (parse("$.at"), parse("$.items[*].id")))
    live = '{"at": 1, "items": [{"id": 1, "n": 1}, {"id": 2, "n": 2}]}'
    assert (
        told(reply(live, JSON), reply(live.replace('"id": 1', '"id": 9').replace('"at": 1', '"at": 5'), JSON), rules)
        == []
    )
    assert told(reply(live, JSON), reply(live.replace('"n": 2', '"n": 3'), JSON), rules) == ["$.items[1].n: 2 / 3"]


def test_not_every_difference_is_told() -> None:
    """Nor all of a value."""
    live = '{"a": 1, "b": 1, "c": 1, "d": 1}'
    assert len(told(reply(live, JSON), reply(live.replace("1", "2"), JSON))) == MOST_TOLD
    (found,) = told(reply('{"a": "' + "x" * 5000 + '"}', JSON), reply('{"a": ""}', JSON))
    assert len(found) < 250


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "[" * 100_000,
        "[" * 900 + "]" * 900,
        '{"a": ' + "1" * 5000 + "}",
        "\ud800".encode("utf-16", "surrogatepass"),
    ],
)
def test_what_is_no_document_is_bytes(body: bytes | str) -> None:
    """What cannot be read, is too deep, or has numbers without end: the same is the same, anything else differs; nothing breaks."""
    assert told(reply(body, JSON), reply(body, JSON)) == []
    assert told(reply(body, JSON), reply("{}", JSON))


def test_codings_are_taken_off() -> None:
    """One pool may compress better than the other, or not at all."""
    data = b'{"a": [1, 2, 3]}' * 1
    raw = zlib.compressobj(wbits=-15)
    coded = [
        reply(gzip.compress(data, 1), JSON, ("Content-Encoding", "gzip")),
        reply(gzip.compress(data[:5]) + gzip.compress(data[5:]), JSON, ("Content-Encoding", "x-gzip")),
        reply(zlib.compress(data), JSON, ("Content-Encoding", "Deflate")),
        reply(raw.compress(data) + raw.flush(), JSON, ("Content-Encoding", "deflate")),
        reply(data, JSON, ("Content-Encoding", "identity")),
    ]
    for other in coded:
        assert told(reply(data, JSON), other) == []
        assert told(other, reply(data.replace(b"3", b"4"), JSON)) == ["$.a[2]: 3 / 4"]


@pytest.mark.parametrize("coding", ["br", "gzip", "gzip, br"])
def test_codings_that_cannot_be_taken_off_leave_bytes(coding: str) -> None:
    """Unknown, broken, or several."""
    field = ("Content-Encoding", coding)
    assert told(reply(b"abc", field), reply(b"abc", field)) == []
    assert told(reply(b"abc", field), reply(b"abd", field))


def test_a_bomb_is_not_unpacked() -> None:
    """Of what grows beyond the bound, no more is made."""
    assert decoded(gzip.compress(b"0" * 1000), "gzip", 1000) == b"0" * 1000
    assert decoded(gzip.compress(b"0" * 1000)[:-9], "gzip") is None
    for bomb, most in (
        (gzip.compress(b"0" * (MOST_DECODED + 1)), MOST_DECODED),
        (gzip.compress(b"0" * 1000) * 2, 1999),
        (gzip.compress(b"") * 50_000, 1000),
    ):
        with pytest.raises(TooMuch):
            decoded(bomb, "gzip", most)


def test_what_unpacks_to_too_much_is_as_what_is_too_large() -> None:
    """The live one's is not compared; the idle one's is more than it should be."""
    field = ("Content-Encoding", "gzip")
    bomb = reply(gzip.compress(b"[" + b"1," * MOST_DECODED + b"1]"), JSON, field)
    assert told(bomb, reply("[1]", JSON)) == []
    assert told(reply("[1]", JSON), bomb) == ["body: 3 bytes / more than 1048576 bytes without its coding"]


@pytest.mark.parametrize("element", ["[]", "1"])
@pytest.mark.parametrize("ignored", ["$.x", "$[*].a"])
def test_an_idle_pool_cannot_keep_us_busy(element: str, ignored: str) -> None:
    """As many values as fit, in a few kilobytes: nothing is made of them but the document itself, and what is told."""
    many = "[" + ",".join([element] * ((MOST_DECODED - 2) // (len(element) + 1))) + "]"
    bomb = reply(gzip.compress(many.encode()), JSON, ("Content-Encoding", "gzip"))
    tracemalloc.start()
    try:
        assert len(told(reply("[]", JSON), bomb, Rules((), (parse(ignored),)))) == MOST_TOLD
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 32 * MiB


def test_places_are_those_of_the_documents() -> None:
    """Also behind what is ignored; and what is ignored in one of them alone, counted from the end, is not there in it."""
    rules = Rules((), (parse("$.a[0]"), parse("$.b[-1]")))
    live, idle = '{"a": [1, 2, 3], "b": [1, 2]}', '{"a": [9, 2, 4], "b": [1, 9]}'
    assert told(reply(live, JSON), reply(idle, JSON), rules) == ["$.a[2]: 3 / 4"]
    assert told(reply("[1, 2]", JSON), reply("[1, 2, 3]", JSON), Rules((), (parse("$[-1]"),))) == ["$[1]: (none) / 2"]
    rules = Rules((), (parse("$[-1].a"),))
    live, idle = '[{"a": 1}]', '[{"a": 1}, {"a": 2}]'
    assert told(reply(live, JSON), reply(idle, JSON), rules) == ["$[0].a: (none) / 1", '$[1]: (none) / {"a": 2}']
    assert told(reply(idle, JSON), reply(live, JSON), rules) == ["$[0].a: 1 / (none)", '$[1]: {"a": 2} / (none)']


def test_incomplete_bodies() -> None:
    """Where the live one is not all there, heads are compared; where the idle one is longer than is kept, that differs."""
    assert told(reply("", complete=False), reply("abc")) == []
    assert told(reply("", complete=False), reply("abc", status=500)) == ["status: 200 / 500"]
    assert told(reply("abc"), reply("abcd", complete=False)) == ["body: 3 bytes / more than 4 bytes"]
