"""The schema: light enough for every process, and consistent with itself."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import MISSING, fields, is_dataclass
from typing import get_args, get_type_hints

import pytest
from annotated_types import Ge, Gt, Le

from bgproxy.config import schema
from bgproxy.config.units import Marker

CLASSES = [value for value in vars(schema).values() if is_dataclass(value) and value.__module__ == schema.__name__]


@pytest.mark.parametrize("module", ["bgproxy.config.schema", "bgproxy.config.source", "bgproxy.config.addresses"])
def test_long_lived_processes_do_not_carry_the_checker(module):
    """Importing what they need of the configuration imports neither pydantic nor PyYAML."""
    heavy = "('pydantic', 'pydantic_core', 'yaml')"
    program = f"import sys, {module}; print([name for name in sys.modules if name.split('.')[0] in {heavy}])"
    path = ":".join(sys.path)
    child = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": path},
        timeout=30,
    )
    assert child.stdout.strip() == "[]"


@pytest.mark.parametrize("owner", CLASSES, ids=lambda owner: owner.__name__)
def test_defaults_are_within_their_limits(owner):
    """A default is a value that the file could say: it can be written, read back, and is within its limits."""
    hints = get_type_hints(owner, include_extras=True)
    for field in fields(owner):
        notes = get_args(hints[field.name])
        marker = next((note for note in notes if isinstance(note, Marker)), None)
        if marker is None or field.default is MISSING or isinstance(field.default, str):
            continue
        written = str(field.default).lower() if isinstance(field.default, bool) else marker.format(field.default)
        assert marker.parse(written) == field.default, field.name
        for note in notes:
            assert not isinstance(note, Gt) or field.default > note.gt, field.name
            assert not isinstance(note, Ge) or field.default >= note.ge, field.name
            assert not isinstance(note, Le) or field.default <= note.le, field.name


def test_a_configuration_can_be_sent():
    """It goes from process to process by pickle and arrives equal."""
    config = schema.Config(services={"a": schema.Service(pools=schema.Pools())})
    assert pickle.loads(pickle.dumps(config)) == config
