"""The rows of http.md, what a correct HTTP/1.1 reverse proxy does: each is held by a test over sockets."""

from __future__ import annotations

import re
from pathlib import Path

ROWS = 66
HERE = Path(__file__).parent
_TEST = re.compile(r"^(?:async )?def test_row_(\d\d)_\w+\(", re.MULTILINE)


def test_every_row_has_a_test():
    """`test_row_NN_...` for each; here, or where TLS is tested, as row 66 is."""
    found = {int(number) for path in HERE.parent.rglob("test_*.py") for number in _TEST.findall(path.read_text())}
    assert found == set(range(1, ROWS + 1))
