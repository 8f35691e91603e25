"""What is wrong with a value, in words: what was found, what is allowed there, what to do.

The wording comes from the schema's own annotations, so that a field says the same about itself everywhere.
"""

from __future__ import annotations

import difflib
import json
import re
import types
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, MinLen

from bgproxy.config import schema
from bgproxy.config.units import Marker
from bgproxy.config.written import SERVICE_KEYS, TOP_KEYS, Path, key_of

_UNIONS: Final = (Union, types.UnionType)

#: Of a section that is written as one value, the keys that the value may have been meant for, the likeliest first.
_MEANT: Final[dict[type, tuple[str, ...]]] = {
    schema.Bake: ("for",),
    schema.BakeErrors: ("max",),
    schema.BakeLatency: ("max",),
    schema.Drain: ("requests",),
    schema.Expect: ("status",),
    schema.Health: ("path",),
    schema.Hook: ("run",),
    schema.Load: ("rate",),
    schema.Retire: ("after", "run"),
    schema.Strategy: ("type",),
    schema.Warm: ("requests",),
}

#: Words of other programs (Argo Rollouts, Flagger, kamal-proxy, CodeDeploy) for what a deployment has under another name.
_ELSEWHERE: Final = {
    "analysis": "bake, under live traffic, or verify, before the switch",
    "auto_promotion_enabled": "approve, which takes automatic or manual",
    "canary": "strategy: { type: canary, percent: 10%, for: 5m }",
    "drain": "drain of the service, beside deployment",
    "health_check": "health of the service, beside deployment, or verify",
    "post_deploy": "retire",
    "pre_deploy": "provision",
    "promotion": "approve, which takes automatic or manual",
    "rollback": "bake, which rolls back by itself",
    "scale_down_delay": "retire: { after: 30m }",
    "shadow": "compare",
    "smoke_test": "verify: { checks: [{ name: smoke test, run: ./smoke-test.sh }] }",
    "steps": "strategy: { type: linear, step: 10%, every: 1m }",
    "tests": "verify: { checks: [...] }",
    "timeout": "timeout of each stage, such as verify: { timeout: 30m }",
    "version": "version of the pools; bgproxy deploy --version sets it",
    "weight": "percent",
}


def explain(error: Any, *, shorthand: bool) -> tuple[Path, str]:
    """The path and the message of one of pydantic's errors (`ErrorDetails`).

    All errors of one path have the same path here, whatever branch of a union each is about; the first is enough.
    """
    path, holder, annotation = _walk(error["loc"])
    if _is_marked(required := _required(annotation)):
        annotation = required
    kind, found = error["type"], error["input"]
    if kind == "unexpected_keyword_argument":
        return path, _unknown(str(path[-1]), holder, shorthand=shorthand and len(path) == 1)
    if kind == "missing":
        return path, f"is missing: add it; it takes {describe(annotation)}"
    bare = _bare(annotation)
    text = isinstance(found, str)
    if (meant := _meant(annotation, found, path)) is not None:
        return path, f"{_found(found)} {'is not a mapping' if text else 'cannot stand here'}: write {meant}"
    own_words = kind == "value_error" and text
    if get_origin(bare) in _UNIONS and not (own_words and _is_marked(annotation)):
        return path, f"{_found(found)} is not allowed: write {describe(annotation)}"
    if own_words:
        return path, str(error["ctx"]["error"])
    if kind == "literal_error":
        return path, f"{_found(found)} is not allowed: write {describe(annotation)}{_nearest(found, get_args(bare))}"
    if get_origin(bare) is tuple and text:
        return path, f"takes a list: write [{found}], or one item a line, each behind '- '"
    if kind.startswith(("greater_than", "less_than")):
        return path, f"{_found(found)} is out of range: write {describe(annotation)}"
    return path, f"{_found(found)} cannot stand here: it takes {describe(annotation)}"


def describe(annotation: Any) -> str:
    """What a field of that annotation takes: "a whole number from 1 to 100", "blue or green"."""
    bare, notes = _bare(annotation), _notes(annotation)
    marker = next((note for note in notes if isinstance(note, Marker)), None)
    if marker is not None:
        return marker.noun + _bounds(marker, notes)
    origin = get_origin(bare)
    if origin in _UNIONS:
        return " or ".join(describe(member) for member in get_args(bare) if member is not types.NoneType)
    if origin is Literal:
        return _any_of(get_args(bare))
    if origin is tuple:
        return f"a list, each item {describe(get_args(bare)[0])}"
    if origin is dict:
        texts = get_args(bare)[1] is str
        return "a mapping, each key with a text" if texts else "a mapping, each key a name of yours"
    if is_dataclass(bare):
        return f"a mapping with the keys {', '.join(_keys(bare))}"
    return "text that is not empty" if any(isinstance(note, MinLen) for note in notes) else "text"


def nearest(name: str, known: Any) -> str | None:
    """The one of `known` that `name` was probably meant to be."""
    plain = name.strip().lower().replace("-", "_")
    close = difflib.get_close_matches(plain, sorted(known), n=1, cutoff=0.6)
    return close[0] if close else None


# --- unknown keys ---------------------------------------------------------------------------------------------------


def _unknown(key: str, holder: Any, *, shorthand: bool) -> str:
    """What to do about a key that `holder` does not have."""
    known = _keys(holder)
    if holder is schema.Config:
        known = [name for name in known if not shorthand or name != "services"]
        known += sorted(SERVICE_KEYS) if shorthand else []
    homes = _homes().get(key, [])
    if homes and holder in (schema.Config, schema.Service):
        return f"is not a key that is known here: it belongs below {_any_of(homes)}"
    near = nearest(key, known)
    elsewhere = _elsewhere(key) if holder in (schema.Deployment, schema.Strategy) else None
    if elsewhere is not None and near is None:
        return f"is not a key that is known here: what you mean may be {elsewhere} (known: {', '.join(known)})"
    if near is not None:
        return f"is not a key that is known here: did you mean {near}? (known: {', '.join(known)})"
    return f"is not a key that is known here: remove it (known: {', '.join(known)})"


def _elsewhere(key: str) -> str | None:
    """What another program's word is here."""
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower().replace("-", "_")
    word = next((word for word in _ELSEWHERE if plain.removesuffix("_seconds").rstrip("s") == word.rstrip("s")), None)
    return None if word is None else _ELSEWHERE[word]


def _meant(annotation: Any, found: Any, path: Path) -> str | None:
    """How to write what was found, where it can be told; `annotation` is what can stand there."""
    bare = _bare(_required(annotation))
    members = {type(None), *get_args(bare)} if get_origin(bare) in _UNIONS else {bare}
    if isinstance(found, dict) and any(get_origin(member) is tuple for member in members):
        return "it behind '- ', or in [ ], since this is a list"
    if isinstance(found, list) and bare is str and all(isinstance(item, str) for item in found) and found:
        return ",".join(found) if path[-1] in ("status", "expect") else None
    if isinstance(found, list) and get_origin(bare) is dict and path[-1] == "json":
        return "a path and its value each, such as { $.total: 12 }"
    if isinstance(bare, type) and is_dataclass(bare) and isinstance(found, str):
        return _section(bare, found)
    return None


def _section(owner: type, text: str) -> str | None:
    """One value as the section that it may have been meant for."""
    if text.lower() in ("true", "yes", "on") and all(_is_optional(field) for field in fields(owner)):
        return "{} to have it with its defaults" if owner is not schema.Hook else None
    for key in _MEANT.get(owner, ()):
        marker = next((note for note in _notes(_required(_hints(owner)[key])) if isinstance(note, Marker)), None)
        try:
            if marker is not None:
                marker.parse(text)
        except ValueError:
            continue
        choices = get_args(_bare(_hints(owner)[key])) if get_origin(_bare(_hints(owner)[key])) is Literal else (text,)
        if text in choices:
            quoted = text if re.fullmatch(r"[\w./%$-][\w ./%$=-]*", text) else json.dumps(text, ensure_ascii=False)
            return f"{{ {key}: {quoted} }}"
    return None


def _is_optional(field: Any) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


@cache
def _homes() -> dict[str, list[str]]:
    """The sections that a key may stand in, for keys of sections."""
    homes: dict[str, list[str]] = {}
    for owner, names in ((schema.Config, TOP_KEYS), (schema.Service, SERVICE_KEYS)):
        hints = _hints(owner)
        for section in sorted(names):
            if is_dataclass(hints[section]):
                for key in _keys(hints[section]):
                    homes.setdefault(key, []).append(section)
    return homes


# --- annotations ----------------------------------------------------------------------------------------------------


def _walk(location: tuple[str | int, ...]) -> tuple[Path, Any, Any]:
    """The part of an error's location that is a path, the class that holds its last key, and that key's annotation."""
    path: list[str | int] = []
    holder: Any = None
    annotation: Any = schema.Config
    for part in location:
        bare = _bare(annotation)
        if get_origin(bare) in _UNIONS:
            members = [member for member in get_args(bare) if member is not types.NoneType]
            if len(members) == 1:
                bare = members[0]  # what may be left out has no branches
            elif not isinstance(part, int):
                continue  # the name of a branch, not a key
            else:
                bare = next(member for member in members if get_origin(member) is tuple)
        if isinstance(bare, type) and is_dataclass(bare):
            holder, annotation = bare, _hints(bare).get(str(part))
        elif get_origin(bare) is dict:
            annotation = get_args(bare)[1]
        elif get_origin(bare) is tuple:
            annotation = get_args(bare)[0]
        else:
            break
        path.append(part)
        if annotation is None:
            break
    return tuple(path), holder, annotation


@cache
def _hints(owner: Any) -> dict[str, Any]:
    """The annotation of each key."""
    return {key_of(name): hint for name, hint in get_type_hints(owner, include_extras=True).items()}


def _keys(owner: Any) -> list[str]:
    return [key_of(field.name) for field in fields(owner)]


def _required(annotation: Any) -> Any:
    """The annotation of what may be left out, as if it might not."""
    members = [member for member in get_args(annotation) if member is not types.NoneType]
    return members[0] if get_origin(annotation) in _UNIONS and len(members) == 1 else annotation


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _notes(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()


def _is_marked(annotation: Any) -> bool:
    return any(isinstance(note, Marker) for note in _notes(annotation))


def _bounds(marker: Marker, notes: tuple[Any, ...]) -> str:
    """The limits among `notes`, in the marker's units."""
    low = next((note for note in notes if isinstance(note, Ge | Gt)), None)
    high = next((note for note in notes if isinstance(note, Le)), None)
    below = f", at most {marker.format(high.le)}" if high else ""
    if isinstance(low, Gt):
        return f", more than {marker.format(low.gt)}{below}"
    if isinstance(low, Ge):
        return (
            f" from {marker.format(low.ge)} to {marker.format(high.le)}"
            if high
            else f", at least {marker.format(low.ge)}"
        )
    return below


# --- words ----------------------------------------------------------------------------------------------------------


def _found(value: Any) -> str:
    if isinstance(value, str):
        return repr(value) if len(value) <= 80 else repr(value[:77] + "...")
    return "a list" if isinstance(value, list) else "a mapping" if isinstance(value, dict) else "nothing"


def _nearest(found: Any, known: tuple[str, ...]) -> str:
    near = nearest(found, known) if isinstance(found, str) else None
    return f"; did you mean {near}?" if near else ""


def _any_of(words: Any) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else str(last)
