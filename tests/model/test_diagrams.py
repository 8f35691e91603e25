"""The pictures of the state tables: true to the tables, and docs/states.md is what is printed."""

from __future__ import annotations

import re
import subprocess
import sys
from enum import Enum
from pathlib import Path

import pytest

import bgproxy
from bgproxy.model.diagrams import TABLES, diagram, page
from bgproxy.model.machine import Table

DOCS = Path(__file__).parents[2] / "docs"
BY_NAME = pytest.mark.parametrize("table", [table for table, _ in TABLES], ids=lambda table: table.name)


class Lamp(Enum):
    DARK = "dark"
    LIT = "lit"
    BROKEN = "broken"


class Hand(Enum):
    SWITCH_ON = "switch on"
    DROP = "drop"


LAMP = Table(
    "lamp", Lamp.DARK, {(Lamp.DARK, Hand.SWITCH_ON): Lamp.LIT, **{(state, Hand.DROP): Lamp.BROKEN for state in Lamp}}
)


def test_the_document_is_what_the_program_prints():
    """docs/states.md is never edited by hand, and never older than the tables."""
    command = [sys.executable, "-m", "bgproxy.model.diagrams"]
    root = str(Path(bgproxy.__file__).parents[1])
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": root}).stdout
    assert printed == page()
    assert (DOCS / "states.md").read_text() == printed, "python -m bgproxy.model.diagrams > docs/states.md"


def test_a_table_becomes_a_picture():
    """An arrow a transition, one note for what may happen anywhere, and an end where nothing leads out."""
    assert diagram(LAMP).splitlines() == [
        "stateDiagram-v2",
        "    [*] --> dark",
        "    dark --> lit: switch on",
        "    note right of broken",
        "        from every state: drop",
        "    end note",
        "    broken --> [*]",
    ]


@BY_NAME
def test_every_state_is_in_the_picture(table):
    """No state of a table is left out of its picture."""
    words = set(re.findall(r"\w+", diagram(table)))
    assert {state.name.lower() for state in type(table.initial)} <= words


@BY_NAME
def test_every_transition_is_in_the_picture(table):
    """As many arrows and notes as the table has transitions."""
    text = diagram(table)
    arrows = sum(len(events.split(", ")) for events in re.findall(r"^    \w+ --> \w+: (.*)$", text, re.MULTILINE))
    everywhere = text.count("from every state") * len(type(table.initial))
    labels = [event.value for _, event in table.transitions if isinstance(event.value, str)]
    commas = sum(label.count(", ") for label in labels)  # "drained, healthy" is one event
    assert arrows - commas + everywhere == len(table.transitions)
