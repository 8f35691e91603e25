"""What a request may say in its JSON body or its query: declared once, checked whole, described in OpenAPI.

All mistakes are named at once, an unknown field with the nearest known name.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, Literal

from aiohttp import web

from bgproxy.admin.problems import MAX_BODY, Problem, too_large

Type = Literal["string", "boolean", "integer", "strings", "choices by name"]

_SAID: Final = {
    "string": "a string",
    "boolean": "true or false",
    "integer": "a whole number",
    "strings": "a list of strings",
    "choices by name": "an object of strings",
}

#: Control characters but tab and newline, and halves of surrogate pairs, which no UTF-8 has room for.
_ILL_TEXT: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
#: The same for JSON Schema, whose strings have no such halves.
_GOOD_TEXT: Final = r"^[^\x00-\x08\x0b-\x1f\x7f]*$"


#: Mistakes that are told of at most: who sends thousands is no person.
MOST_MISTAKES: Final = 20
#: Characters that an item of a list, or a name, may have; far more than a URL of an upstream needs.
LONGEST_ITEM: Final = 2048


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its name, its type, and what it may be."""

    name: str
    type: Type
    about: str
    choices: tuple[str, ...] = ()
    required: bool = False
    nullable: bool = False  # null says the same as leaving it out
    least: int | None = None  # integers: the smallest and the largest
    most: int | None = None
    longest: int | None = None  # strings: characters; lists and objects: entries

    def schema(self) -> dict[str, Any]:
        """As JSON Schema (Draft 2020-12)."""
        text: dict[str, Any] = {"type": "string"}
        if self.choices:
            text["enum"] = list(self.choices)
        else:
            text["pattern"] = _GOOD_TEXT
            if self.type != "string":
                text["maxLength"] = LONGEST_ITEM
        if self.type == "string":
            schema = text | ({"maxLength": self.longest} if self.longest is not None else {})
        elif self.type == "strings":
            schema = {"type": "array", "items": text} | ({"maxItems": self.longest} if self.longest is not None else {})
        elif self.type == "choices by name":
            schema = {"type": "object", "additionalProperties": text, "minProperties": 1}
            if self.longest is not None:
                schema["maxProperties"] = self.longest
        else:
            schema = {"type": self.type}
            if self.least is not None:
                schema["minimum"] = self.least
            if self.most is not None:
                schema["maximum"] = self.most
        if self.nullable:
            schema["type"] = [schema["type"], "null"]
            if "enum" in schema:
                schema["enum"] = [*schema["enum"], None]
        return schema | {"description": self.about}

    def mistakes(self, value: object) -> list[str]:
        """What is wrong with a value of it, a line each."""
        match self.type:
            case "boolean":
                good = isinstance(value, bool)
            case "integer":
                return self._number(value)
            case "string":
                return self._text(self.name, value)
            case "strings":
                good = isinstance(value, list)
            case "choices by name":
                good = isinstance(value, dict) and len(value) > 0
        if not good:
            return [f"{self.name}: must be {_SAID[self.type]}, not {_shown(value)}"]
        if isinstance(value, list | dict):
            if self.longest is not None and len(value) > self.longest:
                return [f"{self.name}: at most {self.longest} entries, not {len(value)}"]
            if isinstance(value, list):
                return [line for i, item in enumerate(value) for line in self._text(f"{self.name}[{i}]", item)]
            return [line for key, item in value.items() for line in self._text(f"{self.name}.{_cut(key)}", item)]
        return []

    def _text(self, where: str, value: object) -> list[str]:
        if not isinstance(value, str):
            return [f"{where}: must be a string, not {_shown(value)}"]
        if _ILL_TEXT.search(value):
            return [f"{where}: must not have control characters: {_shown(value)}"]
        if self.choices and value not in self.choices:
            return [f"{where}: must be {_either(self.choices)}, not {_shown(value)}"]
        longest = self.longest if self.type == "string" else LONGEST_ITEM
        if longest is not None and len(value) > longest:
            return [f"{where}: at most {longest} characters, not {len(value)}"]
        return []

    def _number(self, value: object) -> list[str]:
        if not isinstance(value, int) or isinstance(value, bool):
            return [f"{self.name}: must be a whole number, not {_shown(value)}"]
        if self.least is not None and value < self.least:
            return [f"{self.name}: at least {self.least}, not {value}"]
        if self.most is not None and value > self.most:
            return [f"{self.name}: at most {self.most}, not {value}"]
        return []


Fields = tuple[Field, ...]


def schema_of(fields: Fields) -> dict[str, Any]:
    """The JSON Schema of an object with these fields and no others."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {field.name: field.schema() for field in fields},
        "additionalProperties": False,
    }
    required = [field.name for field in fields if field.required]
    return schema | ({"required": required} if required else {})


async def read(request: web.Request) -> bytes:
    """The bytes of the body.

    Raises:
        Problem: 413 when they are more than `MAX_BODY`, 415 when there are some and they are not said to be JSON.
    """
    if request.content_length is not None and request.content_length > MAX_BODY:
        raise too_large()
    if request.body_exists and request.content_type != "application/json":
        said = request.headers.get("Content-Type", "none")
        raise Problem(
            "unsupported-media-type",
            f"A body must be sent with Content-Type: application/json, not {said}.",
            headers={"Accept": "application/json", "Connection": "close"},
        )
    return await request.read()


def parse(raw: bytes, fields: Fields) -> dict[str, Any]:
    """The fields of a JSON body that were said; none for an empty one.

    Raises:
        Problem: 400 when it is no JSON object, 422 naming every mistake in it.
    """
    if not raw.strip():
        said: object = {}
    else:
        try:
            said = json.loads(raw, object_pairs_hook=_once)
        except _TwiceError as error:
            raise Problem("malformed", f"The body has the field {error.args[0]!r} twice.") from None
        except (ValueError, RecursionError) as error:
            reason = _why(error)
            raise Problem("malformed", f"The body is not JSON: {reason}.") from None
    if not isinstance(said, dict):
        raise Problem("malformed", f"The body must be a JSON object, not {_shown(said)}.")
    return check(said, fields, "field")


def parse_query(request: web.Request, fields: Fields) -> dict[str, Any]:
    """The parameters of a query, whole numbers turned into such; raises as `parse` does."""
    said: dict[str, object] = {}
    known = {field.name: field for field in fields}
    for name, value in request.query.items():
        if name in said:
            raise Problem("malformed", f"The query has the parameter {name!r} twice.")
        number = name in known and known[name].type == "integer" and value.isascii() and value.isdecimal()
        said[name] = int(value) if number and len(value) <= 18 else value
    return check(said, fields, "parameter")


def check(said: dict[str, Any], fields: Fields, noun: str) -> dict[str, Any]:
    """The given fields without those that are null for "not said"; raises `Problem` (422) naming every mistake."""
    known = {field.name: field for field in fields}
    values: dict[str, Any] = {}
    mistakes: list[str] = []
    for name, value in said.items():
        if len(mistakes) > MOST_MISTAKES:
            break
        field = known.get(name)
        if field is None:
            mistakes.append(_unknown(name, noun, tuple(known)))
        elif not (value is None and field.nullable):
            mistakes += field.mistakes(value)
            values[name] = value
    mistakes += [f"{field.name}: is missing" for field in fields if field.required and field.name not in said]
    if len(mistakes) > MOST_MISTAKES:
        raise Problem("invalid", f"More than {MOST_MISTAKES} mistakes.", mistakes[:MOST_MISTAKES])
    if mistakes:
        raise Problem("invalid", mistakes[0] if len(mistakes) == 1 else f"{len(mistakes)} mistakes.", mistakes)
    return values


class _TwiceError(ValueError):
    """A JSON object names a field twice: which one was meant cannot be known."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for name, value in pairs:
        if name in seen:
            raise _TwiceError(name)
        seen[name] = value
    return seen


def _unknown(name: str, noun: str, known: tuple[str, ...]) -> str:
    name = _cut(name)
    near = get_close_matches(name, known, n=1)
    if near:
        return f"{name}: unknown {noun}; did you mean {near[0]!r}?"
    return f"{name}: unknown {noun}; known: {', '.join(known) or 'none'}"


def _either(choices: tuple[str, ...]) -> str:
    return " or ".join(repr(choice) for choice in choices)


def _shown(value: object) -> str:
    """A value as a reader would know it, cut short."""
    return _cut(json.dumps(value))


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _why(error: ValueError | RecursionError) -> str:
    """Why bytes are not JSON."""
    match error:
        case json.JSONDecodeError():
            return str(error)
        case UnicodeDecodeError():
            return f"byte {error.start} is not UTF-8"
        case RecursionError():
            return "it is nested too deeply"
    return "a number in it has thousands of digits"
