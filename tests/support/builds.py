"""Which build a test runs on: compiled classes take no stand-ins for each other."""

from __future__ import annotations

import pytest

from bgproxy.proxy import client

COMPILED = not str(client.__file__).endswith(".py")

#: For a test that hands stand-ins to the classes of the hot path; `make test` runs it on the source tree.
interpreted_only = pytest.mark.skipif(
    COMPILED, reason="compiled classes take no stand-ins; this runs on the source tree"
)
