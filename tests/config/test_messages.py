"""The wording of mistakes."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import get_type_hints

import pytest

from bgproxy.config import schema
from bgproxy.config.messages import describe, nearest

DEPLOYMENT = [field.name for field in fields(schema.Deployment)]


@pytest.mark.parametrize(
    ("owner", "key", "text"),
    [
        (schema.Health, "rise", "a whole number from 1 to 100"),
        (schema.Health, "interval", "a duration (250ms, 30s, 5m, 1h), more than 0s, at most 7d"),
        (schema.Limits, "header_bytes", "a size (64KiB, 10MiB) from 1KiB to 1MiB"),
        (schema.Limits, "body_bytes", "a size (64KiB, 10MiB) or unlimited"),
        (schema.Passive, "max_ejected", "a share (50%) from 0% to 100%"),
        (schema.Config, "workers", "auto or a whole number from 1 to 256"),
        (schema.Service, "live", "blue or green"),
        (schema.Service, "expose_pool", "true or false"),
        (schema.Service, "pools", "a mapping with the keys blue, green"),
        (schema.Token, "name", "text that is not empty"),
        (schema.Match, "hosts", "a list, each item text"),
        (schema.Load, "rate", "a rate (200/s), more than 0/s, at most 10000/s"),
        (schema.BakeErrors, "worse_than_before", "a factor of more than 1x (2x) or off"),
        (schema.BakeLatency, "max", "a duration (250ms, 30s, 5m, 1h), more than 0s, at most 7d"),
        (schema.Service, "deployment", f"a mapping with the keys {', '.join(DEPLOYMENT)}"),
        (schema.Warm, "paths", "recent or a list, each item text"),
        (schema.Retire, "after", "a duration (250ms, 30s, 5m, 1h) from 0s to 7d"),
        (schema.Bake, "for_", "a duration (250ms, 30s, 5m, 1h), more than 0s, at most 7d"),
    ],
)
def test_a_field_says_what_it_takes(owner, key, text):
    """The description comes from the annotation, limits in the units that they are written in."""
    assert describe(get_type_hints(owner, include_extras=True)[key]) == text


def test_every_field_can_be_described():
    """No annotation of the schema is left without words."""
    for owner in vars(schema).values():
        if not is_dataclass(owner) or owner.__module__ != schema.__name__:
            continue
        hints = get_type_hints(owner, include_extras=True)
        assert all("Annotated" not in describe(hints[field.name]) for field in fields(owner))
    assert "for, path" in describe(schema.Load)


def test_the_nearest_name():
    """A slip, a dash or a capital finds the name; something else finds nothing."""
    known = ("access_log", "listen", "workers")
    assert nearest("lisen", known) == "listen"
    assert nearest("Access-Log", known) == "access_log"
    assert nearest("frobnicate", known) is None
