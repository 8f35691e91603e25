"""The JSON Schema that editors complete and check a configuration file with.

Pydantic's schema of the dataclasses, plus what the file may look like beyond them: the shorthand for one service, one
address instead of a list, numbers where text is meant (``version: 1.10``), and defaults as they are written.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Le

from bgproxy.config import schema
from bgproxy.config.units import CountText, FlagText, Marker
from bgproxy.config.written import key_of

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def editor_schema(generated: dict[str, Any]) -> dict[str, Any]:
    """The whole schema, from the one that pydantic generated for `Config`."""
    whole = deepcopy(generated)
    definitions = whole["$defs"]
    for name, definition in definitions.items():
        _write_defaults(definition, getattr(schema, name))
    _write_defaults(whole, schema.Config)
    _allow_numbers(whole)
    approve = definitions["Deployment"]["properties"]["approve"]
    modes = definitions["Approve"]["properties"]["mode"]["enum"]
    definitions["Deployment"]["properties"]["approve"] = {"anyOf": [approve, {"enum": modes}]}
    addresses = definitions["Admin"]["properties"]["listen"]
    definitions["Admin"]["properties"]["listen"] = {
        "anyOf": [addresses, {"type": "string"}],
        "default": addresses.pop("default"),
    }
    one = [{"type": "string"}, {"$ref": "#/$defs/Listen"}]
    whole["properties"]["listen"] = {
        "anyOf": [*one, {"type": "array", "items": {"anyOf": one}}],
        "default": str(schema.Config().listen[0]),
    }
    services = whole["properties"]["services"]
    services.update(
        minProperties=1, maxProperties=schema.MAX_SERVICES, propertyNames={"pattern": "^[a-z0-9_.-]{1,64}$"}
    )
    services.pop("default", None)
    for name, definition in definitions["Service"]["properties"].items():
        whole["properties"][name] = deepcopy(definition)
    whole["oneOf"] = [
        {
            "required": ["services"],
            "not": {"anyOf": [{"required": [key]} for key in definitions["Service"]["properties"]]},
        },
        {"required": ["pools"], "not": {"required": ["services"]}},
    ]
    return {"$schema": DIALECT, "title": "bgproxy configuration", **{k: v for k, v in whole.items() if k != "title"}}


def _write_defaults(definition: dict[str, Any], owner: Any) -> None:
    """Replace defaults by their written form: 30s, not 30.0; and drop titles that only repeat the key."""
    hints = get_type_hints(owner, include_extras=True)
    for field in fields(owner):
        part = definition["properties"][key_of(field.name)]
        part.pop("title", None)
        notes = get_args(hints[field.name])
        marker = next((note for note in notes if isinstance(note, Marker)), None)
        _write_limits(part, hints[field.name])
        if marker is not None and not isinstance(marker, CountText | FlagText) and field.default is not MISSING:
            part["default"] = marker.format(field.default)
        elif is_dataclass(hints[field.name]) or part.get("default", "") is None or field.name == "state_dir":
            part.pop("default", None)


def _write_limits(part: dict[str, Any], annotation: Any) -> None:
    """Give counts their limits, which pydantic does not see behind the marker; also where a count is one of several."""
    is_union = get_origin(annotation) in (Union, UnionType)
    for notes in [get_args(member) for member in (get_args(annotation) if is_union else [annotation])]:
        if any(isinstance(note, CountText) for note in notes):
            branch = next(branch for branch in part["anyOf"] if branch.get("type") == "integer")
            for note in notes:
                if isinstance(note, Ge):
                    branch["minimum"] = note.ge
                elif isinstance(note, Le):
                    branch["maximum"] = note.le


def _allow_numbers(part: Any) -> None:
    """Where any text may stand, a number may: it is taken as the text that was written. So is a boolean in a mapping of yours."""
    if isinstance(part, dict):
        if part.get("type") == "string" and not {"enum", "const", "pattern"} & part.keys():
            part["type"] = ["string", "number"]
        if part.get("additionalProperties") == {"type": "string"}:
            part["additionalProperties"] = {"type": ["string", "number", "boolean"]}
        for value in part.values():
            _allow_numbers(value)
    elif isinstance(part, list):
        for value in part:
            _allow_numbers(value)
