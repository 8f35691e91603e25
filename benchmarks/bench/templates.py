"""The peers' configurations: files with @NAMES@ in them."""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r"@([A-Z]+)@")


def render(text: str, values: dict[str, object]) -> str:
    """Put each value where its name stands; `KeyError` for a name without a value."""
    return _NAME.sub(lambda found: str(values[found[1]]), text)


def render_file(template: Path, target: Path, values: dict[str, object]) -> Path:
    """Render a file into another; the other."""
    target.write_text(render(template.read_text(), values))
    return target
