"""What a request may say: checked whole, all mistakes at once."""

from __future__ import annotations

import io

import pytest

from bgproxy.admin.body import LONGEST_ITEM, MOST_MISTAKES, Field, check, parse, schema_of
from bgproxy.admin.problems import MAX_BODY, Problem

FIELDS = (
    Field("to", "string", "pool", choices=("blue", "green"), nullable=True),
    Field("force", "boolean", "force", nullable=True),
    Field("limit", "integer", "limit", least=1, most=9),
    Field("upstreams", "strings", "urls", longest=2),
    Field("services", "choices by name", "targets", choices=("blue", "green")),
    Field("reason", "string", "why", longest=5),
)


def mistakes(body: dict, fields=FIELDS) -> list[str]:
    with pytest.raises(Problem) as caught:
        check(body, fields, "field")
    assert caught.value.slug == "invalid"
    return caught.value.details


def test_all_mistakes_are_named_at_once():
    """Three mistakes are three lines, an unknown field with the nearest known one."""
    assert mistakes({"fource": True, "to": "red", "limit": 10}) == [
        "fource: unknown field; did you mean 'force'?",
        "to: must be 'blue' or 'green', not \"red\"",
        "limit: at most 9, not 10",
    ]


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ({"zzz": 1}, "zzz: unknown field; known: to, force, limit, upstreams, services, reason"),
        ({"force": 1}, "force: must be true or false, not 1"),
        ({"force": "yes"}, 'force: must be true or false, not "yes"'),
        ({"limit": True}, "limit: must be a whole number, not true"),
        ({"limit": 1.5}, "limit: must be a whole number, not 1.5"),
        ({"limit": 0}, "limit: at least 1, not 0"),
        ({"upstreams": "http://a"}, 'upstreams: must be a list of strings, not "http://a"'),
        ({"upstreams": ["a", 2]}, "upstreams[1]: must be a string, not 2"),
        ({"upstreams": ["a", "b", "c"]}, "upstreams: at most 2 entries, not 3"),
        ({"services": []}, "services: must be an object of strings, not []"),
        ({"services": {}}, "services: must be an object of strings, not {}"),
        ({"services": {"shop": "red"}}, "services.shop: must be 'blue' or 'green', not \"red\""),
        ({"services": {"shop": None}}, "services.shop: must be a string, not null"),
        ({"reason": "longer"}, "reason: at most 5 characters, not 6"),
        ({"reason": "a\x1bb"}, 'reason: must not have control characters: "a\\u001bb"'),
        ({"reason": "\ud800"}, 'reason: must not have control characters: "\\ud800"'),
        ({"reason": None}, "reason: must be a string, not null"),
    ],
)
def test_a_mistake_says_what_is_allowed(body, line):
    """Each mistake names the field, what was found and what is allowed."""
    assert mistakes(body) == [line]


def test_a_missing_required_field_is_a_mistake():
    """Required fields that were not said are named."""
    assert mistakes({}, (Field("state", "string", "state", required=True),)) == ["state: is missing"]


def test_null_is_the_same_as_leaving_it_out_where_that_is_allowed():
    """A nullable field that is null is not among the values."""
    assert check({"to": None, "force": True}, FIELDS, "field") == {"force": True}


@pytest.mark.parametrize("raw", [b"", b"  \n"])
def test_an_empty_body_says_nothing(raw):
    """No body is an object without fields."""
    assert parse(raw, FIELDS) == {}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"{", "is not JSON"),
        (b"[]", "must be a JSON object, not []"),
        (b"null", "must be a JSON object, not null"),
        (b'{"to": "blue", "to": "green"}', "'to' twice"),
        (b"\xff\xfe{}", "is not JSON"),
        (b'{"a": \xff}', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"9" * 5000, "is not JSON"),
    ],
)
def test_what_is_no_json_object_is_malformed(raw, said):
    """A body that cannot be read is 400, and says why."""
    with pytest.raises(Problem) as caught:
        parse(raw, FIELDS)
    assert caught.value.slug == "malformed"
    assert said in caught.value.detail


def test_the_schema_describes_what_is_checked():
    """The JSON Schema has the fields, their choices, and allows no others."""
    schema = schema_of((*FIELDS, Field("state", "string", "state", required=True)))
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["state"]
    assert schema["properties"]["to"] == {
        "type": ["string", "null"],
        "enum": ["blue", "green", None],
        "description": "pool",
    }
    assert schema["properties"]["limit"] == {"type": "integer", "minimum": 1, "maximum": 9, "description": "limit"}


async def test_a_body_over_the_limit_is_413(api):
    """More than 1 MiB is refused, announced or not, and nothing is changed."""

    async def chunks():
        for _ in range(33):
            yield b" " * (MAX_BODY // 32)

    json_type = {"Content-Type": "application/json"}
    for data in (io.BytesIO(b" " * (MAX_BODY + 1)), chunks()):
        async with api.post("/v1/services/shop/switch", data=data, headers=json_type) as answer:
            assert answer.status == 413
            assert (await answer.json(content_type=None))["type"] == "urn:bgproxy:problem:too-large"


async def test_a_body_up_to_the_limit_is_read(api):
    """Exactly 1 MiB is fine."""
    body = b'{"to": "green"}'.ljust(MAX_BODY)
    async with api.post("/v1/services/shop/switch", data=body, headers={"Content-Type": "application/json"}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_body_that_is_not_json_is_415(api, controller, media_type):
    """The media types that a web page can post without asking are refused."""
    async with api.post("/v1/services/shop/switch", data=b"{}", headers={"Content-Type": media_type}) as answer:
        assert answer.status == 415
        assert answer.headers["Accept"] == "application/json"
    assert controller.calls == []


async def test_a_json_body_may_name_its_charset(api):
    """Parameters of the media type do not matter."""
    headers = {"Content-Type": "application/json; charset=utf-8"}
    async with api.post("/v1/services/shop/switch", data=b"{}", headers=headers) as answer:
        assert answer.status == 200


async def test_a_change_without_a_body_needs_no_content_type(api):
    """All fields are optional, so no body is fine."""
    async with api.post("/v1/services/shop/switch") as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "query", ["limit=x", "limit=0", "limit=-1", "lmit=1", "limit=1&limit=2", "limit=" + "9" * 5000]
)
async def test_a_bad_query_is_refused(api, query):
    """Parameters are checked as fields are."""
    async with api.get(f"/v1/history?{query}") as answer:
        assert answer.status in (400, 422)


@pytest.mark.parametrize(
    "body",
    [
        {f"field{number}": 1 for number in range(60_000)},
        {"x" * 1_000_000: 1},
        {"services": {"x" * 1_000_000: "red"}},
        {"upstreams": ["\x01" * 1_000_000]},
        {"upstreams": ["\x01"] * 100_000},
    ],
)
def test_a_flood_of_mistakes_is_not_answered_in_kind(body):
    """A body may have a mebibyte; what is said of it fits on a screen, and looking for near names ends after a few."""
    with pytest.raises(Problem) as caught:
        check(body, FIELDS, "field")
    assert len(caught.value.details) <= MOST_MISTAKES
    assert sum(map(len, [caught.value.detail, *caught.value.details])) < 200 * (MOST_MISTAKES + 1)


def test_items_have_a_longest():
    """What is quoted in logs and answers is bounded."""
    assert check({"upstreams": ["x" * LONGEST_ITEM]}, FIELDS, "field")
    assert mistakes({"upstreams": ["x" * (LONGEST_ITEM + 1)]}) == [
        f"upstreams[0]: at most {LONGEST_ITEM} characters, not {LONGEST_ITEM + 1}"
    ]


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b'{"limit": ' + b"1" * 5000 + b"}", "a number in it has thousands of digits"),
        (b'{"reason": "\xff"}', "byte 12 is not UTF-8"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b"{", "line 1 column 2"),
    ],
)
def test_what_is_not_json_says_why(raw, why):
    """The cause itself, not a guess."""
    with pytest.raises(Problem, match=why) as caught:
        parse(raw, FIELDS)
    assert caught.value.slug == "malformed"
