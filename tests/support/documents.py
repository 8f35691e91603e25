"""The fenced blocks of a Markdown page, so that what it shows can be run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"(?:#|--|//) (\S*[./]\S*)\n")


@dataclass(frozen=True, slots=True)
class Block:
    """One block. `file` is the name in its first line, which is no part of `text`; "" if it is no file."""

    kind: str  # the word behind the fence: yaml, sh
    section: str  # the heading above it
    file: str
    text: str


def blocks(page: str) -> list[Block]:
    """Those of `docs/PAGE`, in order."""
    found = []
    _, *sections = re.split(r"^## (.+)$", (DOCS / page).read_text(), flags=re.MULTILINE)
    for section, body in zip(sections[::2], sections[1::2], strict=True):
        for kind, text in _FENCED.findall(body):
            named = _FILE.match(text)
            found.append(Block(kind, section, named[1] if named else "", text[named.end() :] if named else text))
    return found
