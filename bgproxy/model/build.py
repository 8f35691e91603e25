"""Whether the hot path of this installation is compiled (mypyc) or runs as the Python that it is written in."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal


def build_kind() -> Literal["compiled", "interpreted"]:
    """How `bgproxy.http1` was built; only looked up, not imported, since the control plane has no use for it."""
    spec = find_spec("bgproxy.http1.request")
    source = spec is None or spec.origin is None or spec.origin.endswith(".py")
    return "interpreted" if source else "compiled"
