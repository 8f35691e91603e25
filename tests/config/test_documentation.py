"""docs/configuration.md: every key of the schema, with its default, and no key that there is not."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

from bgproxy.config.schema import Certificate, Config, Listen, ListenTls, Service, Token
from bgproxy.config.units import Marker

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
ROWS = {
    row[0]: row[1] for row in re.findall(r"^\| `([a-z_.\[\]]+)` \| (?:`([^`]*)`)? ?\|", PAGE.read_text(), re.MULTILINE)
}

#: What the schema leaves to loading, or a section whose keys have rows of their own.
WITHOUT = {"state_dir", "services"}


def keys(kind, prefix=""):
    """Each key of a dataclass and those below it: `(dotted, whether what is shown is its default)`."""
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        dotted = f"{prefix}{field.name}"
        default = field.default if field.default is not MISSING else None
        if field.default is MISSING and field.default_factory is not MISSING:
            default = field.default_factory()
        if is_dataclass(hints[field.name]):
            yield from keys(hints[field.name], f"{dotted}.")
        else:
            known = field.default is not MISSING or field.default_factory is not MISSING
            yield dotted, shows(default, hints[field.name]) if known else None


def shows(default, hint):
    """A function that tells whether a text, read as the file's would be, is `default`."""
    parts = [hint, *get_args(hint)]
    parts += [inner for part in parts if get_origin(part) is Annotated for inner in get_args(part)]
    markers = [part for part in parts if isinstance(part, Marker)]
    if markers and not isinstance(default, str):
        return lambda text: markers[0].parse(text) == default
    if isinstance(default, tuple):
        return lambda text: text == (str(default[0]) if len(default) == 1 else "[]")
    return lambda text: text.strip('"') == (default or "")


EXPECTED = {**dict(keys(Config)), **dict(keys(Service)), **{f"admin.tokens[].{k}": None for k, _ in keys(Token)}}
EXPECTED |= dict(keys(Listen, "listen[].")) | dict(keys(ListenTls, "listen[].tls."))
EXPECTED |= dict(keys(Certificate, "listen[].tls.certificates[]."))


def test_every_key_is_documented_with_its_default():
    """A row for each key, and what it says is what holds without the key."""
    assert len(EXPECTED) > 50
    for key, is_default in EXPECTED.items():
        assert key in ROWS, key
        if is_default is not None and key not in WITHOUT:
            assert is_default(ROWS[key]), f"{key}: {ROWS[key]!r}"


def test_no_key_is_documented_that_does_not_exist():
    """A key that was renamed does not live on in the documentation."""
    assert set(ROWS) == set(EXPECTED)
