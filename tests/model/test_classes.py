"""The classes of what is in flight."""

from __future__ import annotations

from dataclasses import fields

from bgproxy.config.schema import Drain
from bgproxy.model import classes


def test_the_numbers_are_the_places_of_the_names():
    """Cells and deadlines are lists in this order."""
    for name in classes.CLASS_NAMES:
        assert classes.CLASS_NAMES[getattr(classes, name.upper())] == name


def test_every_class_has_a_drain_deadline():
    """The schema's deadlines are of the same classes, in the same order."""
    assert tuple(field.name for field in fields(Drain)) == classes.CLASS_NAMES
