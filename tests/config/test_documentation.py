"""docs/configuration.md: every key of the schema, with its default, and no key that there is not."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

from bgproxy.config import schema
from bgproxy.config.schema import Config, Service
from bgproxy.config.units import Marker
from bgproxy.config.written import key_of

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
ROWS = {
    row[0]: row[1]
    for row in re.findall(r"^\| `([a-z0-9_.\[\]]+)` \| (?:`([^`]*)`)? ?\|", PAGE.read_text(), re.MULTILINE)
}

SECTIONS = [value for value in vars(schema).values() if is_dataclass(value) and value.__module__ == schema.__name__]

#: What the schema leaves to loading, or a section whose keys have rows of their own.
WITHOUT = {"state_dir", "services"}


def keys(kind, prefix=""):
    """Each key of a dataclass and those below it: `(dotted, whether what is shown is its default)`.

    What may be left out or be there more than once has a row of its own besides those of its keys.
    """
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        dotted, hint = f"{prefix}{key_of(field.name)}", hints[field.name]
        if is_dataclass(hint):
            yield from keys(hint, f"{dotted}.")
            continue
        if field.default is not MISSING:
            yield dotted, shows(field.default, hint)
        elif field.default_factory is not MISSING:
            yield dotted, shows(field.default_factory(), hint)
        else:
            yield dotted, None
        for inner in get_args(hint):
            if inner in SECTIONS and get_origin(hint) is not dict:
                yield from keys(inner, f"{dotted}[]." if get_origin(hint) is tuple else f"{dotted}.")


def shows(default, hint):
    """A function that tells whether a text, read as the file's would be, is `default`."""
    marker = next((part for part in get_args(hint) if isinstance(part, Marker)), None)
    parts = [hint, *get_args(hint)]
    inner = [note for part in parts if get_origin(part) is Annotated for note in get_args(part)]
    if default is None and marker is None:
        return lambda text: not text
    markers = [note for note in inner if isinstance(note, Marker)]
    if markers and not isinstance(default, str):
        return lambda text: markers[0].parse(text) == default
    if isinstance(default, tuple):
        one = len(default) == 1
        return lambda text: text == (str(default[0]) if one else f"[{', '.join(default)}]")
    return lambda text: text.strip('"') == (default or "")


EXPECTED = {**dict(keys(Config)), **dict(keys(Service))}


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
