"""The shared schemas."""

from __future__ import annotations

import json

from jsonschema import Draft202012Validator

from bgproxy.admin.schemas import COMPONENTS, STRING, or_null, record


def test_every_component_is_a_schema_whose_references_exist():
    """Valid by Draft 2020-12, and no reference leads nowhere."""
    for name, schema in COMPONENTS.items():
        Draft202012Validator.check_schema(schema)
        for part in json.dumps(schema).split("#/components/schemas/")[1:]:
            assert part.split('"')[0] in COMPONENTS, name


def test_all_members_of_a_record_are_required_and_more_are_allowed():
    """So that a later version may say more without breaking a client."""
    check = Draft202012Validator(record(a=STRING, b=or_null(STRING))).is_valid
    assert check({"a": "x", "b": None, "c": 1})
    assert not check({"a": "x"})
